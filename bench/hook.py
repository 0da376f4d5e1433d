"""What a check costs beside an exec that does nothing: the hook against an empty static executable, in turn.

    bench/hook.py [--rounds N] [--times N] [--known N]

Every figure is a ratio: in a round the command and the empty executable take turns, and the median time of the one is
divided by that of the other. Printed are the median and the range of the ratios over the rounds.

The floor is a C program that makes the LMDB calls of a stranger's check and does nothing else (floor.c).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import fastgrey

HERE = Path(__file__).parent
HOOK = Path(sys.executable).parent / "qmail-checkenv"
EMPTY = "int main(void) { return 0; }\n"


def build(directory: Path) -> tuple[Path, Path, Path]:
    """Compile the spawner, the empty executable, and the floor, which is linked as the hook is."""
    (directory / "empty.c").write_text(EMPTY)
    static = ["-O2", "-static", "-no-pie", "-s"]
    lean = ["-Wl,--gc-sections", "-Wl,-z,norelro", "-Wl,-z,noseparate-code"]
    lmdb = subprocess.run(["pkg-config", "--cflags", "--libs", "lmdb"], check=True, capture_output=True, text=True)
    names = [directory / name for name in ("spawn", "empty", "floor")]
    for command in (
        ["-O2", HERE / "spawn.c", "-o", names[0]],
        [*static, directory / "empty.c", "-o", names[1]],
        [*static, *lean, HERE / "floor.c", "-o", names[2], *lmdb.stdout.split(), "-lpthread"],
    ):
        subprocess.run(["cc", *command], check=True)
    return names[0], names[1], names[2]


def fill(store: Path, known: int) -> None:
    """Make so many known triplets, and one more whose domain stays unknown to it."""
    from fastgrey._core import Store

    # Flushing would take most of the time and change nothing of what is measured.
    with Store(str(store), throw_away=True) as opened:
        start = int(time.time()) - 4000
        for step in (0, 400):
            for number in range(known + 1):
                opened.check(client=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
                             sender=f"a@{_letters(number)}.example", recipient="b@example.net", now=start + step)


def _letters(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(number))


def measure(arguments: argparse.Namespace, directory: Path) -> list[tuple[str, list[float], list[float]]]:
    """Name, median times and ratios of each command, by rounds in which it alternates with the empty executable.

    Pairs, because of several commands in turn the one most like the others would find its caches warm. New copies of
    both executables for every round, because where the pages of a file happen to lie in memory is worth several
    hundredths: an executable and its own copy differ by that much.
    """
    spawn, empty, floor = build(directory)
    store = directory / "store"
    fastgrey.create(store, {"refresh": 10**7})
    fill(store, arguments.known)
    # The first stranger makes what the floor expects to be there.
    with fastgrey.open(store) as opened:
        opened.check(client="10.0.0.0", sender="again@host.example", recipient="b@example.net")
        newest = opened.partitions()[-1]
    partition = f"2.{newest['start']:013d}.{newest['length']}"
    (pending,) = store.glob("pending.*")
    commands = {
        "empty, once more": ([empty, "x", "y"], None),
        "known sender": ([HOOK, "a@a.example", "b@example.net"], "accept known-domain"),
        "stranger": ([HOOK, "new@host%.example", "b@example.net"], "defer new"),
        "stranger, early retry": ([HOOK, "again@host.example", "b@example.net"], "defer early"),
        "floor of a stranger": ([floor, store / "passed.000001", pending, partition, "%"], None),
    }
    environment = {"FASTGREY_STORE": str(store), "TCPREMOTEIP": "10.0.0.0", "PATH": os.environ["PATH"]}
    results = []
    for name, (command, words) in commands.items():
        rounds = []
        for _ in range(arguments.rounds):
            copies = [copy_of(file, directory) for file in (empty, command[0])]
            call = [spawn, "1", str(arguments.times), "--", copies[0], "x", "y", "--", copies[1], *command[1:]]
            log = directory / "log"
            with open(log, "wb") as errors:
                output = subprocess.run(call, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
            if output.returncode != 0:
                raise SystemExit(f"bench: {log.read_text()[-300:]}")
            if words:
                check_log(log.read_text(), words, arguments.times)
            rounds.append([float(field) for field in output.stdout.split()])
            for copy in copies:
                copy.unlink()
        results.append((name, [taken for _, taken in rounds], [taken / base for base, taken in rounds]))
    return results


def copy_of(file: Path, directory: Path) -> Path:
    """A new file with the same content, on the same file system as the store."""
    target = Path(tempfile.mkdtemp(dir=directory)) / file.name
    shutil.copy(file, target)
    return target


def check_log(text: str, words: str, calls: int) -> None:
    """A hook that failed would be a fast one: every call must have decided what its row says."""
    found = text.count(f"fastgrey: {words} ")
    if found != calls:
        raise SystemExit(f"bench: {found} lines of {words!r}, expected {calls}; the last: {text[-300:]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=200, help="processes of each kind in a round")
    parser.add_argument("--known", type=int, default=10_000, help="known triplets in the store")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        results = measure(arguments, Path(name))
    print(f"{arguments.rounds} rounds of {arguments.times} processes each, {arguments.known} known triplets, "
          f"{time.strftime('%Y-%m-%d')}, {os.uname().release}, {os.cpu_count()} cores")
    print(f"{'':26}{'ratio':>7}{'range':>15}   median time, for orientation only")
    for name, times, ratios in results:
        print(f"{name:26}{median(ratios):7.3f}{min(ratios):8.3f}-{max(ratios):.3f}   {median(times):.0f} us")


if __name__ == "__main__":
    main()
