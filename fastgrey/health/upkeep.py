"""Compaction: when it was last, what waits for it, what a killed one left, pending of earlier boots."""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .. import _core, directory, times
from ..sizes import bytes_shown
from . import layout
from .finding import Finding, Place, doubt, good

DAY = 86400
OLD = 7 * DAY
# With fewer records a compaction saves nothing worth a warning.
TRIVIAL = 1000
# More are not counted through.
COUNTABLE = 1_000_000


def leftovers(place: Place) -> Iterator[Finding]:
    """Generations that nobody needs, and pending of earlier boots."""
    if (pid := running(place)) is not None:
        yield good(f"a compaction is running, as process {pid}")
        return
    paths = directory.leftovers(place.root, layout.current(place))
    own = f"pending.{directory.boot_id()}"
    for path in [*paths, *sorted(path for path in place.root.glob("pending.*") if path.name != own)]:
        kind = "an earlier boot" if path.name.startswith("pending.") else "a killed compaction"
        yield doubt(f"{path.name} is left over of {kind}, {bytes_shown(directory.size_on_disk(path))}",
                    place.run("compact"))


def last_compaction(place: Place, store: _core.Store) -> Iterator[Finding]:
    """The link is as old as the generation in force."""
    age = max(0, int(time.time() - (place.root / "current").lstat().st_mtime))
    when = f"last compaction {times.span(age)} ago"
    if store.head()["generation"] == directory.generation_name(1):
        when = f"no compaction in {times.span(age)}"
    known = sum(store.known().values())
    what = f"{when}, {known} known records"
    if known <= COUNTABLE:
        what += f", {known - sum(store.alive(int(time.time())).values())} of them expired"
    yield doubt(what, _daily(place)) if age > OLD and known >= TRIVIAL else good(what)


def noting(place: Place, store: _core.Store) -> Iterator[Finding]:
    """Since a compaction that was killed, writers note what they touch."""
    if store.head()["noting"] and running(place) is None:
        yield doubt("a compaction was killed, and writers go on taking notes for it", place.run("compact"))


def running(place: Place) -> int | None:
    """The process that holds the lock of compaction, 0 for one that this container cannot see.

    Trying the lock could turn away one that begins.
    """
    try:
        number = (place.root / "compaction.lock").stat().st_ino
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    return next((int(fields[4]) for fields in held
                 if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(number)), None)


def _daily(place: Place) -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "fastgrey")
    program = beside if os.access(beside, os.X_OK) else "fastgrey"
    command = shlex.join([program, "compact", "--store", os.path.abspath(place.root)])
    return f"a line for /etc/cron.d/fastgrey: 17 4 * * * root {command}"
