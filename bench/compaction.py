"""What a compaction costs, and what it costs those who want to write meanwhile.

Sections: compaction (half of the known triplets are expired; in a round the compaction of a fresh copy of the store and
`cat` take turns; with every record compared, --verify copy, and with the independent reader's walk as well, --verify
full, the default); blocked (promotions, each timed in a process that has the store open: first alone, then while
compactions follow one another).
"""

import json
import multiprocessing
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import lmdb

import fastgrey
import figures
from fastgrey import compaction
from figures import Count, Results

FASTGREY = Path(sys.executable).parent / "fastgrey"
SECTIONS = ("compaction", "blocked")
# A transaction of hooks brings few records; this many at once leave a file that is not much fuller.
BATCH = 1000
SEED = 1
# Seconds between two promotions.
PAUSE = 0.002


class Extent(NamedTuple):
    """How much is measured."""

    # Known triplets, half of them expired.
    known: int
    rounds: int
    # Timed alone, and again during compactions.
    promotions: int


EXTENTS = {"smoke": Extent(4000, 2, 30), "quick": Extent(100_000, 3, 300), "full": Extent(10**7, 5, 5000)}


def fill(store: Path, known: int) -> None:
    """Known triplets in no order, every second one expired, as hooks leave them."""
    fastgrey.create(store, {})
    now = int(time.time())
    values = [struct.pack("<Q", 1 << 40 | seen) for seen in (now - 1000, now - 40 * 86400)]
    pick = random.Random(SEED)
    # Written through the map: the pages that each transaction gives up are not written to the disk again and again.
    with lmdb.open(str(store / "passed.000001"), max_dbs=8, map_size=1 << 36, sync=False, writemap=True,
                   max_readers=8192) as table:
        triplets = table.open_db(b"triplet")
        for start in range(0, known, BATCH):
            number = min(BATCH, known - start)
            keys = pick.randbytes(16 * number)
            with table.begin(db=triplets, write=True) as txn:
                txn.cursor().putmulti([(keys[16 * i:16 * i + 16], values[i & 1]) for i in range(number)])
        table.sync(True)
        size = (table.info()["last_pgno"] + 1) * table.stat()["psize"]
    os.truncate(store / "passed.000001" / "data.mdb", size)


def cat(source: Path, size: int, target: Path) -> float:
    """Seconds to read the file, and to write and flush so many bytes."""
    started = time.monotonic()
    with target.open("wb") as out:
        subprocess.run(["cat", source], stdout=subprocess.DEVNULL, check=True)
        subprocess.run(["head", "-c", str(size), source], stdout=out, check=True)
        os.fsync(out.fileno())
    taken = time.monotonic() - started
    target.unlink()
    return taken


def compact(store: Path, verify: str) -> tuple[float, dict[str, Any], int, int]:
    """Seconds, the summary, and the peak of all memory and of that which is not the files' own, in bytes."""
    started = time.monotonic()
    process = subprocess.Popen([FASTGREY, "compact", "--json", "--store", store, "--verify", verify],
                               stdout=subprocess.PIPE, text=True)
    own = 0
    assert process.stdout is not None
    with process.stdout as output:
        lines = []
        for line in output:
            lines.append(line)
            own = max(own, anonymous(process.pid))
    if process.wait() != 0:
        raise SystemExit("bench: the compaction failed")
    taken = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    return taken, json.loads(lines[-1]), peak, own


def anonymous(pid: int) -> int:
    """Bytes of a process's memory that belong to no file (proc(5)), 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


def against_cat(extent: Extent, results: Results, place: Path) -> None:
    """The ratios, and what an entry takes."""
    master = place / "master"
    fill(master, extent.known)
    seconds: dict[str, list[float]] = {f"compaction, --verify {verify}": [] for verify in compaction.VERIFY}
    bases: dict[str, list[float]] = {name: [] for name in seconds}
    steps: dict[str, dict[str, float]] = {}
    peak = own = 0
    for _ in range(extent.rounds):
        for verify, name in zip(compaction.VERIFY, seconds, strict=True):
            store = place / "store"
            shutil.copytree(master, store, symlinks=True)
            os.sync()
            data = store / "passed.000001" / "data.mdb"
            before = data.stat().st_size
            spent, done, reached, mine = compact(store, verify)
            size = (store / "passed.000002" / "data.mdb").stat().st_size
            if (done["alive"], done["expired"]) != (extent.known // 2, extent.known - extent.known // 2):
                raise SystemExit(f"bench: {done}")
            bases[name].append(cat(data, size, place / "copy"))
            seconds[name].append(spent)
            steps[name] = done["steps"]
            peak, own = max(peak, reached), max(own, mine)
            shutil.rmtree(store)
    note = "cat reads the same file and writes as much as the result, with the same flush; files in the page cache"
    for name, taken in seconds.items():
        results.add(*figures.figures_of({name: taken, "cat": bases[name]}, "cat", "compaction", notes={name: note}))
        results.add(Count("compaction", f"{name}: seconds of the last round", dict(steps[name])))
    alive = extent.known // 2
    results.add(Count("compaction", f"{extent.known} entries, half of them expired", {
        "bytes before": before, "bytes an entry before": before / extent.known, "bytes after": size,
        "bytes an entry after": size / alive, "peak of its own memory": own, "peak with pages of the files": peak}))
    shutil.rmtree(master)


def promote(store: Path, number: int, pause: float) -> list[float]:
    """Seconds of so many promotions, one after the other."""
    taken = []
    with fastgrey.open(store) as opened:
        for index in range(number):
            recipient = f"{os.getpid()}-{time.monotonic_ns()}-{index}@example.net"
            opened.check(client="192.0.2.1", sender="a@example.org", recipient=recipient)
            started = time.perf_counter()
            verdict = opened.check(client="192.0.2.1", sender="a@example.org", recipient=recipient)
            taken.append(time.perf_counter() - started)
            if verdict.reason != "retry":
                raise SystemExit(f"bench: {verdict}")
            time.sleep(pause)
    return taken


def blocked(extent: Extent, results: Results, place: Path) -> None:
    """How long promotions take while nothing else happens, and while compactions follow one another."""
    store = place / "store"
    fill(store, extent.known)
    nothing_else = {"delay": 0, "allow_client_after": 0, "allow_domain_after": 0, "pool_hops": 0}
    with fastgrey.open(store) as opened:
        opened.configure(list((fastgrey.settings.by_name(opened.head()["settings"]) | nothing_else).values()))
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        alone = pool.apply(promote, (store, extent.promotions, PAUSE))
        work = pool.apply_async(promote, (store, extent.promotions, PAUSE))
        compactions, locked = 0, []
        while not work.ready():
            _, done, _, _ = compact(store, "full")
            compactions += 1
            locked.append(done["locked"])
        during = work.get()
    with fastgrey.open(store) as opened:
        earned = opened.known()["triplet"] - extent.known // 2
    if earned != 2 * extent.promotions:
        raise SystemExit(f"bench: {earned} of {2 * extent.promotions} promotions are there")
    for name, times in (("alone", alone), (f"during {compactions} compactions", during)):
        high = quantiles(times, n=1000)[-1] if len(times) > 1 else times[0]
        results.add(Count("blocked", f"seconds of {extent.promotions} promotions, {name}", {
            "median": median(times), "99.9th": min(high, max(times)), "most": max(times)}))
    results.add(Count("blocked", "seconds that the write lock was held",
                      {"median": median(locked), "most": max(locked)}))


def main() -> None:
    """Measure."""
    parser = figures.parser(__doc__)
    parser.add_argument("--directory", type=Path, help="where the stores are made (default: that for temporary files)")
    arguments = parser.parse_args()
    results = Results(arguments, SECTIONS)
    extent = EXTENTS[results.profile]
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-", dir=arguments.directory) as name:
        place = Path(name)
        if results.wants("compaction"):
            against_cat(extent, results, place)
        if results.wants("blocked"):
            blocked(extent, results, place)
    results.write()


if __name__ == "__main__":
    main()
