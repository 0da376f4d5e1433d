"""What a decision costs inside a process: its steps beside a bare look-up of LMDB, many readers at once, and what is
written a second.

Sections: steps (normalising, hashing, look-up, decision, against an mdb_get of a ready key); python (the same decision
through the API); readers (1, 2, 4 and 8 processes, and the system calls they make); writer (a reader while promotions
are committed without pause); writes (strangers and promotions, against LMDB transactions with nothing around them).
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cases
import core
import fastgrey
import figures
import population
from figures import Count, Figure, Results

SECTIONS = ("steps", "python", "readers", "writer", "writes")
HERE = Path(__file__).parent
FORK = multiprocessing.get_context("fork")
# Names of files that are not there: looking at them marks a place among the system calls of a process.
BEGIN, END = "/fastgrey-bench-begin", "/fastgrey-bench-end"
TRACED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import in_process
for _ in range(1, int(sys.argv[3])):
    if os.fork() == 0:
        break
in_process.marked(sys.argv[2], int(sys.argv[4]))
"""


class Extent:
    """How much is measured."""

    def __init__(self, profile: str) -> None:
        self.known = {"smoke": 1000, "quick": 10**6, "full": 10**6}[profile]
        self.rounds = {"smoke": 3, "quick": 5, "full": 15}[profile]
        # Seconds that readers read in a round.
        self.reading = {"smoke": 0.02, "quick": 0.2, "full": 1.0}[profile]
        self.strangers = {"smoke": 20, "quick": 500, "full": 5000}[profile]
        self.flushed = {"smoke": 5, "quick": 50, "full": 300}[profile]


def power(number: int) -> str:
    """10^6 for 1000000."""
    zeros = len(str(number)) - 1
    return f"10^{zeros}" if number == 10**zeros else str(number)


def python(extent: Extent, results: Results, place: Path) -> None:
    """The decision of a known domain through the API, against the same in a loop of C."""
    native, store = population.make(place / "native", extent.known), place / "python"
    shutil.copytree(native, store, symlinks=True)
    requests = population.some(2000, extent.known, "known-domain")
    loops = core.load().Loops(str(native))
    loops.take(core.load().Workload(requests, int(time.time())))
    with fastgrey.open(store) as opened:
        def through_python() -> float:
            started = time.perf_counter()
            for client, sender, recipient in requests:
                opened.check(client=client, sender=sender, recipient=recipient)
            return time.perf_counter() - started

        results.add(*figures.in_turn(
            {f"Store.check, known domain, {power(extent.known)} known": through_python, "decision in C": loops.decide},
            "decision in C", extent.rounds, "python", len(requests)))
    loops.close()


def read(store: Path, requests: list[tuple[bytes, bytes, bytes]], seconds: float, start: Any, said: Any) -> None:
    """A process that decides for so long once all are ready."""
    loops = core.load().Loops(str(store))
    loops.take(core.load().Workload(requests, int(time.time())))
    loops.decide()
    start.wait()
    said.put(loops.decide_for(seconds))
    loops.close()


def at_once(store: Path, extent: Extent, number: int) -> float:
    """Decisions a second of so many processes together."""
    start, said = FORK.Barrier(number), FORK.Queue()
    processes = [FORK.Process(target=read, args=(store, population.some(5000, extent.known, seed=seed), extent.reading,
                                                 start, said)) for seed in range(number)]
    for process in processes:
        process.start()
    rate: float = sum(said.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    return rate


def readers(extent: Extent, results: Results, place: Path) -> None:
    """What several readers decide a second by what one does: how far the throughput follows the cores."""
    store = population.make(place / "readers", extent.known)
    rates: dict[int, list[float]] = {number: [] for number in (1, 2, 4, 8)}
    for _ in range(extent.rounds):
        for number, found in rates.items():
            found.append(at_once(store, extent, number))
    for number in (2, 4, 8):
        ratios = [many / one for one, many in zip(rates[1], rates[number], strict=True)]
        results.add(Figure("readers", f"one reader, by {number} at once", f"{number} readers at once", ratios,
                           1 / median(rates[1]), 1 / median(rates[number]),
                           note=f"seconds a decision; {len(os.sched_getaffinity(0))} cores, so at best "
                                f"{min(number, len(os.sched_getaffinity(0)))}"))
    if shutil.which("strace") is None:
        print("  no strace here (Debian: apt-get install strace): the system calls of readers are not counted")
        return
    for number in (1, 2):
        results.add(Count("readers", f"system calls of {number} reader{'s' * (number > 1)}, 10000 decisions each",
                          system_calls(store, number, 10_000, place / "trace")))


def marked(store: str, decisions: int) -> None:
    """Decide so often, between two marks among the system calls."""
    loops = core.load().Loops(store)
    loops.take(core.load().Workload(population.some(decisions, 1000), int(time.time())))
    # The first opens what there is to open.
    loops.decide()
    os.path.exists(BEGIN)
    loops.decide()
    os.path.exists(END)
    os._exit(0)


def system_calls(store: Path, number: int, decisions: int, trace: Path) -> dict[str, int | float]:
    """All system calls, and those that wait for a lock (futex), of so many readers between their marks."""
    figures.run(["strace", "-f", "-qq", "-o", trace, sys.executable, "-c", TRACED, HERE, store, number, decisions])
    counting: set[str] = set()
    found: dict[str, int | float] = {"all": 0, "futex": 0, "marks": 0}
    for line in trace.read_text().splitlines():
        process, _, call = line.partition(" ")
        if BEGIN in call:
            counting.add(process)
        elif END in call:
            counting.discard(process)
            found["marks"] += 1
        # Lines that begin so tell of signals and ends.
        elif process in counting and call.lstrip()[:3] not in ("---", "+++"):
            found["all"] += 1
            found["futex"] += "futex(" in call
    if found.pop("marks") != number:
        raise SystemExit(f"bench: not every reader came to its end: {trace.read_text()[-300:]}")
    return found


def promotions(loops: Any, number: int, first: int) -> float:
    """Seconds of so many promotions: strangers that were recorded before, and come back."""
    now = int(time.time())
    work = core.load().Workload(population.strangers(number, first), now - 1000)
    loops.take(work)
    loops.decide()
    work.at(now)
    seconds: float = loops.decide()
    if loops.reasons != {"retry": number}:
        raise SystemExit(f"bench: promotions were decided as {loops.reasons}")
    return seconds


def commit(store: Path, go: Any, done: Any) -> None:
    """A process that promotes without pause while go is 1, waits while it is 0, and ends at -1."""
    loops = core.load().Loops(str(store))
    first = 0
    while go.value >= 0:
        if go.value:
            promotions(loops, 20, first)
            first += 20
            done.value += 20
        else:
            time.sleep(0.001)
    loops.close()


def beside_writer(extent: Extent, results: Results, place: Path) -> None:
    """A reader beside a writer of its store, and beside one of another store, which takes as much of the machine."""
    stores = {name: population.make(place / name, extent.known, retry_window=2**20) for name in ("this", "other")}
    goes = {name: FORK.Value("i", 0) for name in stores}
    dones = {name: FORK.Value("l", 0) for name in stores}
    writers = [FORK.Process(target=commit, args=(path, goes[name], dones[name])) for name, path in stores.items()]
    for writer in writers:
        writer.start()
    try:
        loops = core.load().Loops(str(stores["this"]))
        loops.take(core.load().Workload(population.some(5000, extent.known), int(time.time())))

        def beside(name: str) -> Callable[[], float]:
            def subject() -> float:
                goes[name].value = 1
                before = dones[name].value
                while dones[name].value == before:
                    time.sleep(0.001)
                rate: float = loops.decide_for(extent.reading)
                goes[name].value = 0
                return 1 / rate
            return subject

        base = "a reader beside a writer of another store"
        results.add(*figures.in_turn(
            {"a reader beside a writer of its store": beside("this"), base: beside("other"),
             "a reader and no writer": lambda: 1 / loops.decide_for(extent.reading)}, base, extent.rounds, "writer"))
        loops.close()
    finally:
        for go in goes.values():
            go.value = -1
        for writer in writers:
            writer.join(30)
    results.add(Count("writer", "promotions committed meanwhile", {name: done.value for name, done in dones.items()}))


def writes(extent: Extent, results: Results, place: Path) -> None:
    """Strangers and promotions, by bare LMDB transactions of as many records, with and without a flush of each."""
    store = population.make(place / "writes", extent.known)
    loops = core.load().Loops(str(store))
    bare = {flush: core.load().Bare(str(place / f"bare-{flush}"), flush=flush) for flush in (False, True)}
    first = 0

    def strangers(number: int, flush: bool) -> float:
        nonlocal first
        # What the last ones left unflushed is not theirs.
        loops.flush_strangers(flush)
        one = core.load().Workload(population.strangers(1, first), int(time.time()))
        loops.take(one)
        loops.decide()
        loops.take(core.load().Workload(population.strangers(number, first + 1), int(time.time())))
        first += number + 1
        seconds: float = loops.decide()
        if loops.reasons != {"new": number}:
            raise SystemExit(f"bench: strangers were decided as {loops.reasons}")
        return seconds

    def promoted() -> float:
        nonlocal first
        loops.flush_strangers(False)
        first += extent.flushed
        return promotions(loops, extent.flushed, first - extent.flushed)

    base = "a transaction of 2 records, not flushed"
    results.add(*figures.in_turn({"stranger": lambda: strangers(extent.strangers, False),
                                  base: lambda: bare[False].put(extent.strangers, 2)},
                                 base, extent.rounds, "writes", extent.strangers))
    base = "a transaction of 2 records, flushed"
    results.add(*figures.in_turn({"stranger, were it flushed": lambda: strangers(extent.flushed, True),
                                  base: lambda: bare[True].put(extent.flushed, 2)},
                                 base, extent.rounds, "writes", extent.flushed))
    base = "a transaction of 3 records, flushed"
    results.add(*figures.in_turn({"promotion": promoted, base: lambda: bare[True].put(extent.flushed, 3)},
                                 base, extent.rounds, "writes", extent.flushed))
    results.add(Count("writes", "a second, by one process", {
        "strangers": 1 / median(strangers(extent.strangers, False) / extent.strangers for _ in range(extent.rounds)),
        "strangers, were they flushed": 1 / median(strangers(extent.flushed, True) / extent.flushed
                                                   for _ in range(extent.rounds)),
        "promotions": 1 / median(promoted() / extent.flushed for _ in range(extent.rounds))}))
    loops.close()


def main() -> None:
    """Measure."""
    arguments = figures.parser(__doc__ or "").parse_args()
    results = Results(arguments, SECTIONS)
    extent = Extent(arguments.profile)
    if results.wants("steps"):
        cases.run(HERE / "steps.py", results)
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        parts = {"python": python, "readers": readers, "writer": beside_writer, "writes": writes}
        for section, measure in parts.items():
            if results.wants(section):
                measure(extent, results, Path(name))
    results.write()


if __name__ == "__main__":
    main()
