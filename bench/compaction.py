"""What a compaction costs beside `cat`: reading the same file and writing as much as the result, with the same flush.

    bench/compaction.py [--known N] [--rounds N] [--promotions N]

Half of the known triplets are expired. In a round the compaction of a fresh copy of the store and `cat` take turns,
with the files in the page cache for both. Printed are the median and the range of the ratios over the rounds: with
every record compared (--verify copy), and with the independent reader's walk as well (--verify full, the default).

Then promotions, each timed in a process that has the store open: first alone, then while compactions follow one
another.
"""

import argparse
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

import lmdb

import fastgrey
from fastgrey import compaction

FASTGREY = Path(sys.executable).parent / "fastgrey"
# A transaction of hooks brings few records; this many at once leave a file that is not much fuller.
BATCH = 1000
SEED = 1


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


def compact(store: Path, verify: str) -> tuple[float, dict[str, object], int, int]:
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


def against_cat(arguments: argparse.Namespace, place: Path) -> None:
    """Print the ratios, and what an entry takes."""
    master = place / "master"
    fill(master, arguments.known)
    ratios: dict[str, list[float]] = {verify: [] for verify in compaction.VERIFY}
    times: dict[str, list[float]] = {name: [] for name in ("cat", *compaction.VERIFY)}
    peak = own = 0
    for _ in range(arguments.rounds):
        for verify in compaction.VERIFY:
            store = place / "store"
            shutil.copytree(master, store, symlinks=True)
            os.sync()
            data = store / "passed.000001" / "data.mdb"
            before = data.stat().st_size
            taken, done, reached, mine = compact(store, verify)
            size = (store / "passed.000002" / "data.mdb").stat().st_size
            if (done["alive"], done["expired"]) != (arguments.known // 2, arguments.known - arguments.known // 2):
                raise SystemExit(f"bench: {done}")
            base = cat(data, size, place / "copy")
            times["cat"].append(base)
            times[verify].append(taken)
            ratios[verify].append(taken / base)
            peak, own = max(peak, reached), max(own, mine)
            steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in done["steps"].items())
            print(f"  {verify}: {taken:.2f} s, cat {base:.2f} s; {steps}", flush=True)
            shutil.rmtree(store)
    alive = arguments.known // 2
    print(f"{before} bytes with {arguments.known} entries ({before / arguments.known:.1f} each), {size} bytes with "
          f"{alive} after ({size / alive:.1f} each)")
    print(f"{'':26}{'ratio':>7}{'range':>15}   median time, for orientation only")
    for verify in reversed(compaction.VERIFY):
        print(f"compaction, --verify {verify:5}{median(ratios[verify]):7.2f}{min(ratios[verify]):9.2f}-"
              f"{max(ratios[verify]):.2f}   {median(times[verify]):.2f} s")
    print(f"{'cat':26}{1:7.2f}{'':15}   {median(times['cat']):.2f} s")
    print(f"peak memory: {own >> 20} MiB of its own, {peak >> 20} MiB with pages of the files")
    shutil.rmtree(master)


def promote(store: Path, number: int, pause: float) -> list[float]:
    """Milliseconds of so many promotions, one after the other."""
    taken = []
    with fastgrey.open(store) as opened:
        for index in range(number):
            request = {"client": "192.0.2.1", "sender": "a@example.org",
                       "recipient": f"{os.getpid()}-{time.monotonic_ns()}-{index}@example.net"}
            opened.check(**request)
            started = time.perf_counter()
            verdict = opened.check(**request)
            taken.append((time.perf_counter() - started) * 1000)
            if verdict.reason != "retry":
                raise SystemExit(f"bench: {verdict}")
            time.sleep(pause)
    return taken


def blocked(arguments: argparse.Namespace, place: Path) -> None:
    """Print how long promotions take while nothing else happens, and while compactions follow one another."""
    store = place / "store"
    fill(store, arguments.known)
    nothing_else = {"delay": 0, "allow_client_after": 0, "allow_domain_after": 0, "pool_hops": 0}
    settings = fastgrey.settings.defaults() | nothing_else
    with fastgrey.open(store) as opened:
        opened.configure(list(settings.values()))
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        alone = pool.apply(promote, (store, arguments.promotions, arguments.pause))
        work = pool.apply_async(promote, (store, arguments.promotions, arguments.pause))
        compactions, locked = 0, []
        while not work.ready():
            _, done, _, _ = compact(store, "full")
            compactions += 1
            locked.append(done["locked"] * 1000)
        during = work.get()
    with fastgrey.open(store) as opened:
        earned = opened.known()["triplet"] - arguments.known // 2
    if earned != 2 * arguments.promotions:
        raise SystemExit(f"bench: {earned} of {2 * arguments.promotions} promotions are there")
    print(f"{arguments.promotions} promotions, one after the other, {arguments.pause * 1000:.0f} ms between them, in ms")
    print(f"{'':34}{'median':>8}{'99.9th':>9}{'most':>9}")
    for name, times in (("alone", alone), (f"during {compactions} compactions", during)):
        high = quantiles(times, n=1000)[-1] if len(times) > 1 else times[0]
        print(f"{name:34}{median(times):8.2f}{min(high, max(times)):9.2f}{max(times):9.2f}")
    print(f"{'the write lock was held for':34}{median(locked):8.2f}{'':9}{max(locked):9.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--known", type=int, default=1_000_000, help="known triplets, half of them expired")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--promotions", type=int, default=2000, help="promotions timed, alone and during compactions")
    parser.add_argument("--pause", type=float, default=0.002, help="seconds between two promotions")
    parser.add_argument("--directory", type=Path, help="where the stores are made (default: that for temporary files)")
    arguments = parser.parse_args()
    print(f"{arguments.rounds} rounds, {arguments.known} known triplets, {time.strftime('%Y-%m-%d')}, "
          f"{os.uname().release}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-", dir=arguments.directory) as name:
        against_cat(arguments, Path(name))
        blocked(arguments, Path(name))


if __name__ == "__main__":
    main()
