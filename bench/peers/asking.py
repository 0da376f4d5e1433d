"""Running `ask` (ask.c) and `load` (load.c), and what they found."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from figures import run

HERE = Path(__file__).parent
BENCH = HERE.parent


class Target(NamedTuple):
    """Somebody who can be asked: a way that ask knows, and where."""

    way: str
    where: str
    store: Path | None = None


class Tools:
    """ask, load, the clock for daemons, and the client that a hook would be that asks a daemon; compiled here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ask, self.load = directory / "ask", directory / "load"
        self.clock, self.client = directory / "clock.so", directory / "ask_postgrey"
        for tool in (self.ask, self.load):
            run(["cc", "-O2", BENCH / f"{tool.name}.c", "-o", tool])
        run(["cc", "-O2", "-shared", "-fPIC", HERE / "clock.c", "-o", self.clock])
        run(["cc", "-O2", "-static", "-no-pie", "-s", BENCH / "baselines" / "ask_postgrey.c", "-o", self.client])
        self.log = directory / "log"

    def asked(self, target: Target, callers: int, questions: Path, allowed: int = 0) -> dict[str, Any]:
        """Ask all questions once, by so many processes. More wrong answers than allowed end the run."""
        return self._run(self._command(target, callers, questions), target, allowed)

    def loaded(self, target: Target, connections: int, questions: Path, allowed: int = 0) -> dict[str, Any]:
        """The same over so many connections of one process, whose first questions are not timed; not for hooks."""
        return self._run([self.load, target.way, target.where, str(connections), questions], target, allowed)

    def _run(self, command: list[str | Path], target: Target, allowed: int) -> dict[str, Any]:
        with self.log.open("wb") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, env=self._environment(target),
                                  timeout=600)
        return self._result(target, done.returncode, done.stdout, allowed)

    @contextlib.contextmanager
    def probing(self, target: Target, questions: Path) -> Iterator[dict[str, Any]]:
        """Ask one question after the other, again and again, until the block ends; the dictionary is filled then."""
        found: dict[str, Any] = {}
        with self.log.open("wb") as log:
            process = subprocess.Popen(self._command(target, 1, questions, "-u"), stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=log, env=self._environment(target))
        try:
            yield found
            output = process.communicate(timeout=600)[0]
        finally:
            process.kill()
            process.wait()
        found.update(self._result(target, process.returncode, output, 0))

    def _command(self, target: Target, callers: int, questions: Path, *options: str) -> list[str | Path]:
        return [self.ask, *options, target.way, target.where, str(callers), questions]

    def _environment(self, target: Target) -> dict[str, str]:
        return {"FASTGREY_STORE": str(target.store or "")}

    def _result(self, target: Target, status: int, output: bytes, allowed: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(output) if output else {"wrong": 1}
        if status != 0 or found["wrong"] > allowed:
            lines = self.log.read_text().splitlines()
            said = [line for line in lines if line.startswith(("ask: ", "load: "))] or ["nothing said"]
            raise SystemExit(f"bench: {target.way} {target.where}: {found}: {said[-1]}")
        return found
