"""Clocks that have leapt ahead: under such a clock a compaction would expire what it never gives back."""

from pathlib import Path

from . import _core, last_run, settings, times

DAY = 86_400
SAMPLE = 10_000


def leapt(store: _core.Store, now: int) -> str | None:
    """Why the clock may be wrong that says now (Unix seconds), in one line; None where nothing tells against it.

    A store in use was compacted within the lifetime of its records, or has records that live and were last seen in the
    earlier half of it. Where records would expire and neither holds, a compaction would drop all but the latest: either
    mail stood still for that long or the clock leapt, however many came under the wrong clock since. A clock that
    stands behind expires nothing.
    """
    lifetime = settings.by_name(store.head()["settings"])["lifetime"]
    # The link is as old as the last generation. One that was declined since had no doubt either.
    told = last_run.read(Path(store.path))
    last = max(int((Path(store.path) / "current").lstat().st_mtime), told.succeeded or 0 if told else 0)
    # Where all records are of the last day or two, nothing tells a leap from a weekend, and little can be lost.
    if now - last <= lifetime or lifetime < 2 * DAY:
        return None
    # Of each table the first by key, and keys are hashes: a fair sample.
    looked, living = _core.count_after(store, False, now - lifetime - 1, SAMPLE)
    if living == looked or living > _core.count_after(store, False, now - lifetime // 2, SAMPLE)[1]:
        return None
    return (f"the clock says {times.date(now)}, {times.span(now - last)} after the last compaction or the making of "
            f"the store, and of the known records only those seen in the last {times.span(lifetime // 2)} are alive; all "
            "from before would expire")
