"""Statistics: the facts about a store that stats shows, whoever draws them."""

import time
from pathlib import Path
from typing import Any

from . import _core, directory, last_run, policy, settings, times

# Seconds of each period, by the ring of snapshots that tells it (docs/format.md).
PERIODS = {"minute": 60, "hour": 3600, "day": 86_400}
MODULUS = 1 << 32


def collect(path: str) -> dict[str, Any]:
    """Everything there is to know about the store at path, as JSON has it. Raises StoreError.

    What comes from the page of counters is empty or None where that page is missing or unusable.
    """
    with directory.open_store(path) as store:
        head = store.head()
        counters = store.counters()
        partitions = store.partitions()
        known = store.known()
        in_force = policy.in_force(store)
    # After the counters were read: a snapshot that is newer than now would not be used.
    now = int(time.time())
    root = Path(path)
    values = settings.by_name(head["settings"])
    return {
        "store": path,
        "time": times.rfc3339(now),
        "format": head["version"],
        "generation": head["generation"],
        "made": times.rfc3339(head["made"]),
        "settings": settings.show(values),
        "counting_since": times.rfc3339(counters["made"]) if counters else None,
        "verdicts": counters["verdicts"] if counters else {},
        "recent": {name: recent(counters, name, now) if counters else {} for name in PERIODS},
        "strangers": strangers(counters) if counters else None,
        "events": counters["events"] if counters else {},
        "known": known,
        "policy": {"number": in_force.number,
                   "applied": times.rfc3339(in_force.applied) if in_force.number else None},
        "rules": [rule.facts() | {"hits": hits} for rule, hits in in_force.counted()],
        "pending": [{"from": times.rfc3339(p["start"]), "until": times.rfc3339(p["start"] + p["length"]),
                     "part": p["part"], "records": p["records"]} for p in partitions],
        "compaction": compaction(root),
        "bytes": {
            "in force": directory.size_on_disk(root / head["generation"]),
            "pending": directory.size_on_disk(root / f"pending.{directory.boot_id()}"),
            "all": directory.size_on_disk(root),
        },
        "pending_size": values["pending_size"],
    }


def compaction(root: Path) -> dict[str, Any] | None:
    """What the last compaction says of itself (last_run.LastRun), times in RFC 3339; None where there was none."""
    last = last_run.read(root)
    if last is None:
        return None
    shown = {name: None if (value := getattr(last, name)) is None else times.rfc3339(value)
             for name in ("began", "ended", "succeeded")}
    return last.facts() | shown


def recent(counters: "_core._Counters", name: str, now: int) -> dict[str, int]:
    """Checks by action and reason within the last minute, hour or day before the Unix time now, without zeros.

    Exact to one interval of the ring: checks are missing that fall into the first interval of the period, where that
    began before the period did.
    """
    best: list[int] = []
    for stamp, totals in counters["snapshots"][name]:
        if now - PERIODS[name] <= stamp <= now:
            since = [_grown(then, total) for then, total in zip(totals, counters["totals"], strict=True)]
            # The largest is that of the snapshot taken first, also where a clock stepped back or a hook was late.
            best = max(best, since, key=sum)
    return {f"{action} {reason}": number
            for (action, reason), number in zip(_core.VERDICTS, best, strict=False) if number}


def _grown(then: int, total: int) -> int:
    """What a total has grown by, where only its low 32 bits are kept.

    After a power cut the file may hold a snapshot that is newer than the totals: nothing has grown then.
    """
    grown = (total - then) % MODULUS
    return grown if grown < MODULUS // 2 else 0


def strangers(counters: "_core._Counters") -> dict[str, Any]:
    """How many strangers there were, how many of them came back in time, and how long those waited.

    share: of 1; None without strangers. Above 1 where strangers came back that came before counting began. median_wait:
    seconds, to the width of its bucket; None where nobody came back. waits: numbers by upper bound in seconds, the
    last one without a bound.
    """
    seen, back = counters["events"]["strangers"], counters["events"]["promoted"]
    return {
        "seen": seen,
        "came_back": back,
        "share": round(back / seen, 4) if seen else None,
        "median_wait": median(_core.WAIT_BOUNDS, counters["waits"]),
        "waits": {"bounds": list(_core.WAIT_BOUNDS), "counts": counters["waits"], "seconds": counters["wait_seconds"]},
    }


def median(bounds: tuple[int, ...], counts: list[int]) -> float | None:
    """The median of what a histogram counted: half of the values are not above it. None where nothing was counted.

    The values of a bucket are taken to be spread evenly, so it is wrong by the width of its bucket at most. In the last
    bucket, which has no upper bound, it is the lower one.
    """
    half = sum(counts) / 2
    lower = below = 0
    for upper, number in zip(bounds, counts, strict=False):
        if number and below + number >= half:
            return round(lower + (upper - lower) * (half - below) / number, 1)
        lower, below = upper, below + number
    return float(lower) if counts[-1] else None
