"""What a check costs beside an exec that does nothing: the hook against an empty static executable, in turn.

    bench/hook.py [--rounds N] [--times N] [--known N]

Every figure is a ratio: the median of one round divided by that of the empty executable in the same round. Printed
are the median and the range of the ratios over the rounds.
"""

import argparse
import os
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
    """Name, medians and ratios of each command, the empty executable first."""
    spawn, empty, floor = build(directory)
    store = directory / "store"
    fastgrey.create(store, {"refresh": 10**7, "pool_hops": 3})
    fill(store, arguments.known)
    # The first stranger makes what the floor expects to be there.
    with fastgrey.open(store) as opened:
        opened.check(client="10.0.0.0", sender="first@first.example", recipient="b@example.net")
        newest = opened.partitions()[-1]
    partition = f"1.{newest['start']:013d}.{newest['length']}"
    (pending,) = store.glob("pending.*")
    commands = {
        "empty static executable": [empty, "x", "y"],
        "known sender": [HOOK, "a@a.example", "b@example.net"],
        "stranger": [HOOK, "new@host%.example", "b@example.net"],
        "stranger, early retry": [HOOK, "again@host.example", "b@example.net"],
        "floor of a stranger": [floor, store / "passed.000001", pending, partition, "%"],
    }
    environment = {"FASTGREY_STORE": str(store), "TCPREMOTEIP": "10.0.0.0", "PATH": os.environ["PATH"]}
    call = [spawn, str(arguments.rounds), str(arguments.times)]
    for command in commands.values():
        call += ["--", *command]
    log = directory / "log"
    with open(log, "wb") as errors:
        output = subprocess.run(call, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=True)
    check_log(log.read_text(), arguments.rounds * arguments.times)
    rounds = [[float(field) for field in line.split()] for line in output.stdout.splitlines()]
    return [(name, [row[i] for row in rounds], [row[i] / row[0] for row in rounds])
            for i, name in enumerate(commands)]


def check_log(text: str, calls: int) -> None:
    """A hook that failed would be a fast one: every call must have decided what its row says."""
    expected = {"accept known-domain": calls, "defer new": calls + 1, "defer early": calls - 1}
    for words, number in expected.items():
        if text.count(f"fastgrey: {words} ") != number:
            raise SystemExit(f"bench: {text.count(words)} lines of {words!r}, expected {number}; last: {text[-300:]}")


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
