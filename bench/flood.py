"""What a flood of strangers costs: known senders meanwhile, strangers that find pending full, and the end of them all.

    bench/flood.py [--strangers N] [--bound SIZE] [--rounds N] [--times N] [--rows N]

Printed are ratios, each with its baseline: the median over the rounds and the range, or the one where it is done once.

- A known sender's check by the hook while a process goes on flooding its store, against the same hook on a store like
  it that nobody floods, in turn; and the same two while that process floods a third store, which shows what is not the
  store but the load.
- A stranger's check by the hook with the bound reached, against one where there is room.
- So many strangers recorded in a row, with the bound: how many a second, what was given up, bytes on disk.
- Dropping as many when they expire, in one transaction, against removing them record by record, measured with fewer
  records and multiplied; and against one durable commit on the same disk.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import lmdb

import fastgrey
from fastgrey import settings
from fastgrey.sizes import bytes_shown
from hook import HOOK, build, check_log, copy_of, fill

LENGTH = 172_800
FLOOD = """
import itertools, sys, fastgrey
store = fastgrey.open(sys.argv[1])
print(flush=True)
for number in itertools.count(int(sys.argv[2])):
    verdict = store.check(client=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
                          sender=f"a@h{number}.flood.example", recipient="b@example.net")
    if verdict.reason != "new":
        raise SystemExit(f"bench: {verdict}")
"""


def record(store: fastgrey.Store, first: int, number: int, now: int) -> float:
    """Let so many strangers come at one moment; the seconds it took."""
    check, started = store.check, time.monotonic()
    for index in range(first, first + number):
        verdict = check(client=f"11.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}",
                        sender=f"a@h{index}.example", recipient="b@example.net", now=now)
        if verdict[:2] != ("defer", "new"):
            raise SystemExit(f"bench: stranger {index}: {verdict}")
    return time.monotonic() - started


def fill_bound(path: Path) -> None:
    """Strangers until partitions have been given up."""
    with fastgrey.open(path) as store:
        number = 0
        while store.counters()["events"]["partitions given up"] < 2:
            record(store, number, 10_000, int(time.time()))
            number += 10_000


def hooks(arguments: argparse.Namespace, directory: Path, spawn: Path, words: list[str], expected: str,
          base: Path, other: Path) -> float:
    """One round: the median time of the hook on the store other by that of the hook on base, in turn."""
    copies = [copy_of(HOOK, directory) for _ in range(2)]
    call = [spawn, "1", str(arguments.times)]
    for copy, place in zip(copies, (base, other), strict=True):
        call += ["--", f"FASTGREY_STORE={place}", copy, *words]
    log = directory / "log"
    environment = {"TCPREMOTEIP": "10.0.0.0", "PATH": os.environ["PATH"]}
    with open(log, "wb") as errors:
        output = subprocess.run(call, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    if output.returncode != 0:
        raise SystemExit(f"bench: {log.read_text()[-300:]}")
    check_log(log.read_text(), expected, 2 * arguments.times)
    for copy in copies:
        copy.unlink()
    one, two = (float(field) for field in output.stdout.split())
    return two / one


def flooded(arguments: argparse.Namespace, directory: Path, spawn: Path) -> dict[str, list[float]]:
    """Ratios by rounds of hooks beside a flood, and of strangers in a full pending."""
    stores = {name: directory / name for name in ("rest", "flooded", "aside")}
    for path in stores.values():
        fastgrey.create(path, {"refresh": 10**7, "pending_size": arguments.bound})
        fill(path, 1000)
    known = (["a@a.example", "b@example.net"], "accept known-domain")
    new = (["new@host%.example", "b@example.net"], "defer new")
    results: dict[str, list[float]] = {}
    fill_bound(stores["flooded"])
    fill_bound(stores["aside"])
    for round_ in range(arguments.rounds):
        results.setdefault("stranger, pending full", []).append(
            hooks(arguments, directory, spawn, *new, stores["rest"], stores["flooded"]))
        # By turns, because one process that floods takes as much of the machine as another.
        for name in ("aside", "flooded"):
            flood = subprocess.Popen([sys.executable, "-c", FLOOD, stores[name], str(round_ << 24)],
                                     stdout=subprocess.PIPE)
            try:
                flood.stdout.readline()
                label = "known sender, flood" if name == "flooded" else "known sender, the same flood elsewhere"
                results.setdefault(label, []).append(
                    hooks(arguments, directory, spawn, *known, stores["rest"], stores["flooded"]))
            finally:
                flood.kill()
                flood.communicate()
    return results


def run(arguments: argparse.Namespace, directory: Path) -> list[str]:
    """Strangers in a row against the bound."""
    path = directory / "run"
    fastgrey.create(path, {"pending_size": arguments.bound})
    with fastgrey.open(path) as store:
        taken = record(store, 0, arguments.strangers, int(time.time()))
        events = store.counters()["events"]
        (file,) = path.glob("pending.*/data.mdb")
        size = file.stat().st_size
        if events["not recorded"] or size > arguments.bound:
            raise SystemExit(f"bench: {events['not recorded']} not recorded, {size} bytes on disk")
        kept = sum(partition["records"] for partition in store.partitions())
    return [f"{arguments.strangers} strangers in a row: {arguments.strangers / taken:.0f} a second in one process, "
            f"{events['partitions given up']} partitions given up, none not recorded",
            f"disk: {bytes_shown(size)} of at most {bytes_shown(arguments.bound)}, ratio {size / arguments.bound:.3f}; "
            f"{kept} records kept"]


def expire(arguments: argparse.Namespace, directory: Path) -> list[str]:
    """Dropping all of them at once, against a durable commit and against row by row."""
    path = directory / "expire"
    fastgrey.create(path, {"pending_size": settings.BY_NAME["pending_size"].most})
    start = 1_700_000_000
    with fastgrey.open(path) as store:
        record(store, 0, arguments.strangers, start)
        started = time.monotonic()
        dropped = store.drop_expired(start + 3 * LENGTH)
        drop = time.monotonic() - started
        if dropped != 1 or store.partitions():
            raise SystemExit(f"bench: {dropped} partitions dropped")
    commits = durable_commits(directory)
    rows = row_by_row(directory, arguments.rows) * arguments.strangers / arguments.rows
    return [f"dropping {arguments.strangers} strangers: {drop * 1000:.1f} ms, "
            f"{drop / median(commits):.1f} durable commits ({drop / max(commits):.1f}-{drop / min(commits):.1f}), "
            f"1/{rows / drop:.0f} of removing them one by one"]


def durable_commits(directory: Path) -> list[float]:
    """Seconds of each of 30 commits of one record with a flush."""
    times = []
    with lmdb.open(str(directory / "durable")) as environment:
        for number in range(30):
            started = time.monotonic()
            with environment.begin(write=True) as txn:
                txn.put(b"key", str(number).encode())
            times.append(time.monotonic() - started)
    return times


def row_by_row(directory: Path, rows: int) -> float:
    """Seconds to remove so many strangers, two records each, from a table in one transaction that is not flushed."""
    with lmdb.open(str(directory / "rows"), sync=False, map_size=1 << 34) as environment:
        with environment.begin(write=True) as txn:
            for number in range(2 * rows):
                txn.put(os.urandom(16), number.to_bytes(8, "little"))
        started = time.monotonic()
        with environment.begin(write=True) as txn:
            cursor = txn.cursor()
            cursor.first()
            while cursor.delete():
                pass
        return time.monotonic() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strangers", type=int, default=1_000_000, help="in a row, and expired at once")
    parser.add_argument("--bound", type=settings.BY_NAME["pending_size"].parse, default="64M", help="pending_size")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=200, help="processes of each kind in a round")
    parser.add_argument("--rows", type=int, default=100_000, help="strangers that are removed one by one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        directory = Path(name)
        ratios = flooded(arguments, directory, build(directory)[0])
        lines = run(arguments, directory) + expire(arguments, directory)
    print(f"{arguments.rounds} rounds of {arguments.times} processes each, a bound of {bytes_shown(arguments.bound)}, "
          f"{time.strftime('%Y-%m-%d')}, {os.uname().release}, {os.cpu_count()} cores")
    print("against the same hook on a store like it at rest, in turn:")
    for name, found in ratios.items():
        print(f"{name:40}{median(found):7.3f}{min(found):8.3f}-{max(found):.3f}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
