"""The store as a directory: is everything there, and of the right kind, without opening anything."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .. import directory
from ..errors import StoreError
from .finding import Finding, Place, Trouble, doubt, good, run, wrong
from .table import Table, read_table, regular_file

RESTORE = ("restore the store from a backup with: fastgrey restore FILE, or move it away and make a new one; senders then "
           "wait once more")
# LMDB's header of a lock file, and some slots.
LEAST_LOCK_FILE = 4096
AS_ROOT = "run this as root, or as a user in the group of the store"


def store(place: Place) -> Iterator[Finding]:
    """The generation in force."""
    name, table = generation(place)
    yield good(f"{place.root}: {name} is in force, {table.size} bytes")


def strangers(place: Place) -> Iterator[Finding]:
    """Pending of this boot."""
    if (table := pending(place)) is not None:
        yield good(f"{pending_path(place).name} holds what strangers left, {table.size} bytes")


def generation(place: Place) -> tuple[str, Table]:
    """Name and table of the generation in force. Trouble, StoreError or OSError where it cannot be opened."""
    path = place.root / directory.generation_name(current(place))
    if not path.is_dir() or path.is_symlink():
        raise Trouble(wrong(f"current points to {path.name}, which is no directory", RESTORE))
    table = read_table(path, RESTORE)
    _lock_file(place, path)
    _rights(path)
    return path.name, table


def pending(place: Place) -> Table | None:
    """The table of pending, None where there is none yet. Trouble or OSError where it cannot be opened."""
    path = pending_path(place)
    remedy = remove(path)
    if not os.path.lexists(path):
        return None
    if not path.is_dir() or path.is_symlink():
        raise Trouble(wrong(f"{path} is no directory", remedy))
    table = read_table(path, remedy)
    _lock_file(place, path)
    _rights(path)
    return table


def root_status(place: Place) -> os.stat_result:
    """The directory of the store; Trouble where there is none."""
    try:
        status = place.root.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Trouble(wrong(f"there is no directory {place.root}", place.run("init"))) from None
    if not stat.S_ISDIR(status.st_mode):
        raise Trouble(wrong(f"there is no directory {place.root}: it is something else", "name another with --store"))
    return status


def current(place: Place) -> int:
    """The number that the link names. Trouble where it is gone: init would begin anew and remove what there is."""
    root_status(place)
    try:
        return directory.current_number(place.root)
    except StoreError as error:
        what = str(error).partition("; ")[0]
    link, there = place.root / "current", directory.generations(place.root)
    if os.path.lexists(link):
        raise Trouble(wrong(what, f"move it away: it should be a symbolic link to one of {_names(there)}"
                            if there else RESTORE))
    if not there:
        raise Trouble(wrong(what, place.run("init")))
    if len(there) == 1:
        raise Trouble(wrong(what, run("ln", "-s", directory.generation_name(there[0]), str(link))))
    raise Trouble(wrong(what, f"link it to the one that was in force, {_names(there)}; fastgrey init would remove all"))


def pending_path(place: Place) -> Path:
    """Where the strangers of this boot are."""
    return place.root / f"pending.{directory.boot_id()}"


def remove(path: Path) -> str:
    """The remedy for what the next check makes anew."""
    return run("rm", "-r", str(path))


def _names(numbers: list[int]) -> str:
    return " or ".join(directory.generation_name(number) for number in numbers[-2:])


def _lock_file(place: Place, path: Path) -> None:
    """Opening makes a missing or cut lock file anew; doctor changes nothing."""
    file = path / "lock.mdb"
    try:
        status = file.stat()
        made_anew = stat.S_ISREG(status.st_mode) and status.st_size < LEAST_LOCK_FILE
    except OSError as error:
        made_anew = isinstance(error, FileNotFoundError)
    if made_anew:
        raise Trouble(doubt(f"{file} is missing or cut short, so what is in the table was not looked at; the next "
                            "check makes it anew", place.run("stats")))
    regular_file(file, remove(file))


def _rights(path: Path) -> None:
    # A file system for reading only is told by itself, and a table for reading opens there.
    for name, want in (("data.mdb", os.R_OK), ("lock.mdb", os.R_OK | os.W_OK)):
        if not os.access(path / name, want) and not _read_only(path):
            raise Trouble(doubt(f"what is in {path} was not looked at: no right to use {name}", AS_ROOT))


def _read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
