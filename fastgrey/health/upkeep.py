"""Compaction: when it was last and how it ended, what a killed one left, pending of earlier boots."""

import os
import shlex
import sys
import time
from collections.abc import Iterator

from .. import _core, directory, last_run, times
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


def put_aside(place: Place) -> Iterator[Finding]:
    """Generations that were found damaged when another took their place."""
    for path in sorted(place.root.glob(f"{directory.ASIDE}*")):
        yield doubt(f"{path.name} was found damaged and put aside, {bytes_shown(directory.size_on_disk(path))}",
                    layout.remove(path))


def last_run_failed(place: Place) -> Iterator[Finding]:
    """What the last compaction says of itself."""
    last = last_run.read(place.root)
    if last is not None and last.result in ("failed", "killed"):
        when = times.date_and_distance(last.ended or last.began, int(time.time()))
        yield doubt(f"the last compaction {last.result}, {when}" + (f": {last.why}" if last.why else ""),
                    place.run("compact"))


def last_compaction(place: Place, store: _core.Store) -> Iterator[Finding]:
    """When one last succeeded. Without its word the link tells, which is as old as the generation in force."""
    last = last_run.read(place.root)
    succeeded = last.succeeded if last is not None else None
    if succeeded is None:
        succeeded = int((place.root / "current").lstat().st_mtime)
    age = max(0, int(time.time()) - succeeded)
    when = f"last compaction {times.span(age)} ago"
    if store.head()["generation"] == directory.generation_name(1):
        when = f"no compaction in {times.span(age)}"
    elif last is not None and last.result == "declined":
        when += ", which found that none was needed"
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
    """The process that holds the lock of compaction, 0 for one that this container cannot see."""
    return last_run.holder(place.root)


def _daily(place: Place) -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "fastgrey")
    program = beside if os.access(beside, os.X_OK) else "fastgrey"
    command = shlex.join([program, "compact", "--if-needed", "--store", os.path.abspath(place.root)])
    if place.user is not None and place.user.uid != 0:
        # Root need not read what others may write.
        command = f"setpriv --reuid={place.user.uid} --regid={place.user.groups[0]} --clear-groups {command}"
    return f"a line for /etc/cron.d/fastgrey: 17 4 * * * root {command}"
