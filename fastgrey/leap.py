"""Clocks that have leapt ahead: under such a clock a compaction would expire what it never gives back."""

from pathlib import Path

from . import _core, settings, times

DAY = 86_400
SAMPLE = 10_000


def leapt(store: _core.Store, now: int) -> str | None:
    """Why the clock may be wrong that says now (Unix seconds), in one line; None where nothing tells against it.

    A store in use was compacted within the lifetime of its records, or has records that were seen more than a day ago
    and still live. Where records would expire and neither holds, a compaction would drop all but those of the last
    day: either mail stood still for that long or the clock leapt. A clock that stands behind expires nothing.
    """
    lifetime = settings.by_name(store.head()["settings"])["lifetime"]
    # The link is as old as the last compaction, or as the store.
    last = int((Path(store.path) / "current").lstat().st_mtime)
    # Where all records are of the last day or two, nothing tells a leap from a weekend, and little can be lost.
    if now - last <= lifetime or lifetime < 2 * DAY:
        return None
    # Of each table the first by key, and keys are hashes: a fair sample.
    looked, living = _core.count_after(store, False, now - lifetime - 1, SAMPLE)
    if living == looked or living > _core.count_after(store, False, now - DAY, SAMPLE)[1]:
        return None
    return (f"the clock says {times.date(now)}, {times.span(now - last)} after the last compaction or the making of "
            "the store, and no known record was seen between then and the last day; all from before would expire")
