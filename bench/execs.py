"""Commands that are run as qmail-smtpd runs a hook: one process a question, timed by a small spawner (spawn.c)."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from figures import Figure, figures_of, run

HERE = Path(__file__).parent
HOOK = Path(sys.executable).parent / "qmail-checkenv"
EMPTY = "int main(void) { return 0; }\n"
# How a C program is linked that is compared with the hook, which is linked so.
STATIC = ("-O2", "-static", "-no-pie", "-s")
LEAN = ("-Wl,--gc-sections", "-Wl,-z,norelro", "-Wl,-z,noseparate-code")


class Command(NamedTuple):
    """What is run, and how it is seen that it did its work."""

    # '%' becomes a number never used before, '#' one of stores.SENDERS (spawn.c).
    words: tuple[str | Path, ...]
    environment: dict[str, str]
    # The beginning of the line that every call writes to standard error; nothing where it writes none.
    says: str = ""
    # The executable is copied anew for every round: where the pages of a file happen to lie in memory is worth several
    # hundredths. Not for what is found by its path: an interpreter with its library.
    copied: bool = True


class Spawner:
    """Runs commands in turn. What it needs is made in a directory of its own, on the file system of the stores."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spawn = directory / "spawn"
        run(["cc", "-O2", HERE / "spawn.c", "-o", self.spawn])

    def empty(self) -> Command:
        """The baseline of all: a static executable that does nothing."""
        source = self.directory / "empty.c"
        source.write_text(EMPTY)
        return self.compiled(source, [])

    def compiled(self, source: Path, arguments: list[str | Path], *libraries: str) -> Command:
        """A C program, linked as the hook is."""
        target = Path(tempfile.mkdtemp(dir=self.directory)) / source.stem
        lean = LEAN if libraries else ()
        run(["cc", *STATIC, *lean, source, "-o", target, *libraries])
        return Command((target, *arguments), {})

    def seconds(self, commands: list[Command], times: int, callers: int = 1) -> list[float]:
        """One round: seconds a process of each, so many times by each of so many callers at once, in turn."""
        call: list[str | Path] = [self.spawn, str(times), str(callers)]
        places = []
        names = {name for command in commands for name in command.environment}
        for command in commands:
            file = Path(command.words[0])
            if command.copied:
                places.append(Path(tempfile.mkdtemp(dir=self.directory)))
                file = Path(shutil.copy(file, places[-1] / file.name))
            # What one command sets would otherwise stay for the next.
            environment = {name: command.environment.get(name, "") for name in sorted(names)}
            call += ["--", *(f"{name}={value}" for name, value in environment.items()), file, *command.words[1:]]
        log = self.directory / "log"
        with log.open("wb") as errors:
            done = subprocess.run(call, env={"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=errors,
                                  text=True)
        text = log.read_text(errors="replace")
        if done.returncode != 0:
            raise SystemExit(f"bench: {text[-300:]}")
        # With several callers a round is made of BLOCKS turns (spawn.c).
        calls = times if callers == 1 else (times + 4) // 5 * 5 * callers
        _check_log(text, commands, calls)
        for place in places:
            shutil.rmtree(place)
        return [float(field) / 1e6 for field in done.stdout.split()]

    def pair(self, section: str, name: str, subject: Command, baseline: str, base: Command, *, rounds: int, times: int,
             callers: int = 1, note: str = "") -> Figure:
        """A figure of two commands. Pairs, because of several in turn the one most like the others would find its
        caches warm."""
        taken = [self.seconds([base, subject], times, callers) for _ in range(rounds)]
        seconds = {baseline: [one for one, _ in taken], name: [other for _, other in taken]}
        return figures_of(seconds, baseline, section, 1, {name: note})[0]


def hook(store: Path, sender: str, client: str, recipient: str, says: str) -> Command:
    """A check by the hook; says: "accept known-domain"."""
    return Command((HOOK, sender, recipient), {"FASTGREY_STORE": str(store), "TCPREMOTEIP": client},
                   f"fastgrey: {says} ")


def _check_log(text: str, commands: list[Command], calls: int) -> None:
    """A check that failed would be a fast one: every call must have decided what is expected of it."""
    for says in {command.says for command in commands if command.says}:
        found = sum(line.startswith(says) for line in text.splitlines())
        expected = calls * sum(command.says == says for command in commands)
        if found != expected:
            raise SystemExit(f"bench: {found} lines of {says!r}, expected {expected}; the last: {text[-300:]}")
