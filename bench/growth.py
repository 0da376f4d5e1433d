"""What grows with the table: a look-up and a decision, bytes on disk, memory of a hook, compaction, expiry.

Sections: growth (figures: look-up and decision at each size, by the same at the smallest); sizes (counts: one for each
size, and the slopes of their lines where both axes are logarithmic: 0 does not grow, 1 grows as the table does).
"""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import core
import fastgrey
import figures
import population
from execs import HOOK
from fastgrey import settings
from figures import Count, Results
from in_process import power

SECTIONS = ("growth", "sizes")
HERE = Path(__file__).parent
FASTGREY = Path(sys.executable).parent / "fastgrey"
# Requests of a round; the same come again only after so many rounds that they have left the caches.
EACH, CHUNKS = 2000, 100
SLOPES = ("seconds of a look-up", "bytes", "bytes as hooks leave them", "resident bytes of a hook",
          "seconds to compact", "seconds to expire strangers")


class Extent:
    """How much is measured."""

    def __init__(self, profile: str) -> None:
        self.known = {"smoke": [100, 1000], "quick": [10**4, 10**5, 10**6],
                      "full": [10**4, 10**5, 10**6, 10**7]}[profile]
        self.rounds = {"smoke": 3, "quick": 20, "full": 60}[profile]


def looked_up(extent: Extent, results: Results, stores: Mapping[int, Path]) -> None:
    """A bare mdb_get, a look-up and a decision of known triplets at random, by the same in the smallest table."""
    tables = {}
    for known, path in stores.items():
        loops = core.load().Loops(str(path))
        loops.only_triplets(True)
        tables[known] = loops, chunks_of(known, CHUNKS)

    def subject(known: int, step: str) -> Callable[[], float]:
        loops, chunks = tables[known]
        rounds = 0

        def one() -> float:
            nonlocal rounds
            loops.take(chunks[rounds % CHUNKS])
            rounds += 1
            seconds: float = getattr(loops, step)()
            return seconds
        return one

    for step, name in (("get", "mdb_get of a ready key"), ("look", "look-up"), ("decide", "decision, known triplet")):
        subjects = {f"{name}, {power(known)} known": subject(known, step) for known in stores}
        results.add(*figures.in_turn(subjects, next(iter(subjects)), extent.rounds, "growth", EACH))
    for loops, _ in tables.values():
        loops.close()


def chunks_of(known: int, number: int) -> list[Any]:
    """So many workloads of EACH requests."""
    requests, now = population.some(EACH * number, known), int(time.time())
    return [core.load().Workload(requests[start:start + EACH], now) for start in range(0, len(requests), EACH)]


def look_up(store: Path, known: int) -> float:
    """Seconds of a look-up, the median of ten times EACH."""
    loops = core.load().Loops(str(store))
    taken: list[float] = []
    for chunk in chunks_of(known, 10):
        loops.take(chunk)
        taken.append(loops.look() / EACH)
    loops.close()
    return median(taken)


def hook_memory(store: Path, known: int, launcher: Path) -> dict[str, int]:
    """Peak of resident memory in bytes and page faults of the hook, for a known sender."""
    client, sender, recipient = (text.decode() for text in population.some(1, known, "known-domain")[0])
    environment = {"FASTGREY_STORE": str(store), "TCPREMOTEIP": client}
    # The first may meet what is not in memory yet.
    for _ in range(2):
        done = figures.run([launcher, HOOK, sender, recipient], env=environment)
    if "accept known-domain" not in done.stderr:
        raise SystemExit(f"bench: {done.stderr}")
    resident, faults, _ = map(int, done.stdout.split())
    return {"resident bytes of a hook": resident << 10, "page faults of a hook": faults}


def compacted(store: Path, known: int) -> dict[str, float]:
    """Seconds of the steps of a compaction, half of the triplets expired."""
    done = json.loads(figures.run([FASTGREY, "compact", "--json", "--store", store, "--verify", "copy"])
                      .stdout.splitlines()[-1])
    if done["expired"] != known // 2:
        raise SystemExit(f"bench: {done}")
    return {"seconds to compact": sum(done["steps"].values())}


def expired(store: Path, strangers: int) -> dict[str, float]:
    """Seconds until as many strangers are dropped that have expired."""
    start = 1_700_000_000
    fastgrey.create(store, {"pending_size": settings.BY_NAME["pending_size"].most})
    core.load().fill_pending(str(store), strangers, start)
    with fastgrey.open(store) as opened:
        started = time.monotonic()
        dropped = opened.drop_expired(start + 10**6)
        seconds = time.monotonic() - started
        if dropped != 1 or opened.partitions():
            raise SystemExit(f"bench: {dropped} partitions dropped")
    return {"seconds to expire strangers": seconds}


def sizes(results: Results, stores: Mapping[int, Path], place: Path) -> None:
    """A count for each size, then the slopes."""
    launcher = place / "memory"
    figures.run(["cc", "-O2", "-static", HERE / "memory.c", "-o", launcher])
    found: dict[int, dict[str, int | float]] = {}
    for known, path in stores.items():
        loose = population.make(place / f"loose-{known}", known, packed=False, expired=2)
        found[known] = {
            "known": known,
            "seconds of a look-up": look_up(path, known),
            "bytes": data_bytes(path),
            "bytes as hooks leave them": data_bytes(loose),
            **hook_memory(path, known, launcher),
            **compacted(loose, known),
            **expired(place / f"strangers-{known}", known),
        }
        figures.run(["rm", "-rf", loose, place / f"strangers-{known}"])
        results.add(Count("sizes", f"{power(known)} known triplets, and as many strangers", found[known]))
    results.add(Count("sizes", "slopes", {name: slope({known: one[name] for known, one in found.items()})
                                          for name in SLOPES}))


def data_bytes(store: Path) -> int:
    """The size of the table in force."""
    return (store / os.readlink(store / "current") / "data.mdb").stat().st_size


def slope(values: Mapping[int, float]) -> float:
    """Of the straight line through the points where both axes are logarithmic, by least squares."""
    points = [(math.log(x), math.log(y)) for x, y in values.items()]
    middle_x, middle_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    rise: float = sum((x - middle_x) * (y - middle_y) for x, y in points)
    run: float = sum((x - middle_x) ** 2 for x, _ in points)
    return rise / run


def main() -> None:
    """Measure."""
    arguments = figures.parser(__doc__ or "").parse_args()
    results = Results(arguments, SECTIONS)
    extent = Extent(arguments.profile)
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        place = Path(name)
        stores = {known: population.make(place / f"known-{known}", known) for known in extent.known}
        if results.wants("growth"):
            looked_up(extent, results, stores)
        if results.wants("sizes"):
            sizes(results, stores, place)
    results.write()


if __name__ == "__main__":
    main()
