"""What a flood of strangers costs: known senders meanwhile, strangers that find pending full, and the end of them all.

Sections: flood (a known sender's check while a process goes on flooding its store, against the same hook on a store
like it at rest, in turn; the same two while that process floods a third store, which shows what is not the store but
the load; a stranger's check with the bound reached); expiry (so many strangers in a row with the bound; dropping as
many in one transaction, against a durable commit on the same disk and against removing them record by record).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import lmdb

import fastgrey
import figures
import stores
from execs import Spawner, hook
from fastgrey import settings
from figures import Count, Results

SECTIONS = ("flood", "expiry")
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


class Extent(NamedTuple):
    """How much is measured."""

    rounds: int
    # Processes of each kind in a round.
    times: int
    # pending_size of the stores that are flooded.
    bound: int
    # In a row, and expired at once.
    strangers: int
    # Strangers that are removed one by one, which is multiplied.
    rows: int


EXTENTS = {
    "smoke": Extent(2, 5, 4 << 20, 48_000, 1_000),
    "quick": Extent(3, 20, 16 << 20, 100_000, 20_000),
    "full": Extent(15, 200, 64 << 20, 10_000_000, 500_000),
}


def record(store: fastgrey.Store, first: int, number: int, now: int) -> float:
    """Let so many strangers come at one moment; the seconds it took."""
    check, started = store.check, time.monotonic()
    for index in range(first, first + number):
        verdict = check(client=f"11.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}",
                        sender=f"a@h{index}.example", recipient="b@example.net", now=now)
        if verdict[:2] != ("defer", "new"):
            raise SystemExit(f"bench: stranger {index}: {verdict}")
    return time.monotonic() - started


def events_of(store: fastgrey.Store) -> dict[str, int]:
    """The store's counters of what happened beside verdicts."""
    counters = store.counters()
    assert counters is not None
    return counters["events"]


def fill_bound(path: Path) -> None:
    """Strangers until partitions have been given up."""
    with fastgrey.open(path) as store:
        number = 0
        while events_of(store)["partitions given up"] < 2:
            record(store, number, 10_000, int(time.time()))
            number += 10_000


def flooded(extent: Extent, results: Results, place: Path) -> None:
    """Hooks beside a flood, and strangers in a full pending."""
    spawner = Spawner(place)
    rest, target, aside = (stores.made(place / name, 1000, {"pending_size": extent.bound})
                           for name in ("rest", "flooded", "aside"))
    for path in (target, aside):
        fill_bound(path)

    def pair(name: str, sender: str, says: str, rounds: int) -> figures.Figure:
        base, subject = (hook(store, sender, stores.client(0), stores.RECIPIENT, says) for store in (rest, target))
        return spawner.pair("flood", name, subject, "hook, a store like it at rest", base, rounds=rounds,
                            times=extent.times)

    results.add(pair("stranger, pending full", "x@new%.example", "defer new", extent.rounds))
    found: dict[str, list[figures.Figure]] = {}
    for number in range(extent.rounds):
        # By turns, because one process that floods takes as much of the machine as another.
        for name, store in (("known sender, the same flood elsewhere", aside), ("known sender, flood", target)):
            flood = subprocess.Popen([sys.executable, "-c", FLOOD, store, str(number << 24)], stdout=subprocess.PIPE)
            assert flood.stdout is not None
            try:
                flood.stdout.readline()
                found.setdefault(name, []).append(pair(name, "a@h#.example", "accept known-domain", 1))
            finally:
                flood.kill()
                flood.communicate()
    for rounds in found.values():
        results.add(figures.joined(rounds))


def bounded(extent: Extent, results: Results, place: Path) -> None:
    """Strangers in a row against the bound."""
    path = place / "run"
    fastgrey.create(path, {"pending_size": extent.bound})
    with fastgrey.open(path) as store:
        taken = record(store, 0, extent.strangers, int(time.time()))
        events = events_of(store)
        (file,) = path.glob("pending.*/data.mdb")
        size = file.stat().st_size
        if events["not recorded"] or size > extent.bound:
            raise SystemExit(f"bench: {events['not recorded']} not recorded, {size} bytes on disk")
        kept = sum(partition["records"] for partition in store.partitions())
    results.add(Count("expiry", f"{extent.strangers} strangers in a row, none not recorded", {
        "a second in one process": round(extent.strangers / taken),
        "partitions given up": events["partitions given up"], "records kept": kept, "bytes on disk": size,
        "bytes on disk by the bound": size / extent.bound}))


def expired(extent: Extent, results: Results, place: Path) -> None:
    """Dropping all of them at once, against a durable commit and against row by row. Once, for it takes all of them."""
    path = place / "expire"
    fastgrey.create(path, {"pending_size": settings.BY_NAME["pending_size"].most})
    start = 1_700_000_000
    with fastgrey.open(path) as store:
        record(store, 0, extent.strangers, start)
        started = time.monotonic()
        dropped = store.drop_expired(start + 3 * LENGTH)
        drop = time.monotonic() - started
        if dropped != 1 or store.partitions():
            raise SystemExit(f"bench: {dropped} partitions dropped")
    commits = durable_commits(place)
    name = f"dropping {extent.strangers} strangers at once"
    results.add(*figures.figures_of({name: [drop] * len(commits), "one durable commit": commits}, "one durable commit",
                                    "expiry", notes={name: "dropped once, against 30 commits"}))
    rows = row_by_row(place, extent.rows) * extent.strangers / extent.rows
    one_by_one = "removing them one by one"
    results.add(*figures.figures_of({one_by_one: [rows], name: [drop]}, name, "expiry",
                                    notes={one_by_one: f"measured with {extent.rows} and multiplied; once"}))


def durable_commits(place: Path) -> list[float]:
    """Seconds of each of 30 commits of one record with a flush."""
    times = []
    with lmdb.open(str(place / "durable")) as environment:
        for number in range(30):
            started = time.monotonic()
            with environment.begin(write=True) as txn:
                txn.put(b"key", str(number).encode())
            times.append(time.monotonic() - started)
    return times


def row_by_row(place: Path, rows: int) -> float:
    """Seconds to remove so many strangers, two records each, from a table in one transaction that is not flushed."""
    with lmdb.open(str(place / "rows"), sync=False, map_size=1 << 34) as environment:
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
    """Measure."""
    arguments = figures.parser(__doc__).parse_args()
    results = Results(arguments, SECTIONS)
    extent = EXTENTS[results.profile]
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        place = Path(name)
        if results.wants("flood"):
            flooded(extent, results, place)
        if results.wants("expiry"):
            bounded(extent, results, place)
            expired(extent, results, place)
    results.write()


if __name__ == "__main__":
    main()
