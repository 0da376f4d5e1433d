"""The file system under the store, and whether it has room for what is to come."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .. import _core, directory, disk, policy, settings
from ..sizes import bytes_shown
from . import layout
from .finding import Finding, Place, doubt, good, run, wrong

# A compaction makes a directory with two files and a link; a new boot makes a directory with two files.
INODES = 8
# What the first pages of a new table take beside what is copied.
NEW_TABLE = 64 << 10
MEGABYTE = 1 << 20


def file_system(place: Place) -> Iterator[Finding]:
    """Its kind, whether it can be written to, and its inodes."""
    layout.root_status(place)
    root, (mount, kind) = place.root, disk.mounted(place.root)
    found = os.statvfs(root)
    if kind in disk.NETWORK_FILE_SYSTEMS:
        yield wrong(f"{root} is on {kind}", "LMDB needs a local file system: move the store")
    if found.f_flag & os.ST_RDONLY:
        yield wrong(f"the file system of {root} is mounted for reading only", run("mount", "-o", "remount,rw", mount))
    # Some file systems have no bound on inodes and say 0.
    if found.f_files and found.f_favail < INODES:
        yield wrong(f"{found.f_favail} inodes are free below {root}, a compaction and a new boot take {INODES}",
                    f"remove files below {mount}")
    yield good(f"{bytes_shown(_free(root))} free on {kind or 'its file system'}")


def growth(place: Place, store: _core.Store) -> Iterator[Finding]:
    """A compaction needs a copy of what is in force, pending may grow to its bound."""
    name, passed = layout.generation(place)
    bound = settings.by_name(store.head()["settings"])["pending_size"]
    taken = directory.size_on_disk(layout.pending_path(place))
    yield good(f"{name}: {bytes_shown(passed.used)} of {bytes_shown(passed.size)} used, "
               f"a map of {bytes_shown(passed.map)}; pending: {bytes_shown(taken)} of at most {bytes_shown(bound)}")
    free, copy, more = _free(place.root), passed.used + NEW_TABLE, max(0, bound - taken)
    mount = disk.mounted(place.root)[0]
    if free < copy:
        yield wrong(f"{bytes_shown(free)} are free and a compaction takes {bytes_shown(copy)}", f"make room on {mount}")
    elif free < copy + more:
        yield doubt(f"{bytes_shown(free)} are free: pending may take {bytes_shown(more)} more and a compaction "
                    f"{bytes_shown(copy)}", _lower(place, store, taken + free - copy) or f"make room on {mount}")


def outgrown(place: Place, store: _core.Store) -> Iterator[Finding]:
    """A file of pending larger than its bound, as from before that was lowered: what is in it keeps to the bound."""
    bound = settings.by_name(store.head()["settings"])["pending_size"]
    path = layout.pending_path(place)
    with suppress(FileNotFoundError):
        size = (path / "data.mdb").stat().st_size
        if size > bound:
            yield doubt(f"pending has a file of {bytes_shown(size)} and may have {bytes_shown(bound)}: it grew before "
                        "pending_size was lowered, or in one flood after the other; it goes with the next boot",
                        "where the room is needed at once, stop whatever checks mail, then "
                        f"{layout.remove(path)}; who waits then waits once more")


def _lower(place: Place, store: _core.Store, fitting: int) -> str | None:
    """The remedy that is a bound of so many bytes at most; None where that would be too low a one."""
    if fitting // MEGABYTE * MEGABYTE < settings.BY_NAME["pending_size"].least:
        return None
    size = f"{fitting // MEGABYTE}M"
    if policy.in_force(store).files:
        return policy.change(store, f'set pending_size = "{size}"')
    return place.run("init", "--set", f"pending_size={size}")


def _free(root: Path) -> int:
    """Bytes that an ordinary user may still write, which is what the hook is."""
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize
