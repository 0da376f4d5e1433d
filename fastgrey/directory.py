"""The store as a directory: making it, opening it, its generations, and what is left over of older ones.

docs/format.md names every file. The order of the steps below is what makes a kill between any two of them harmless.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import disk, inside, settings as settings_
from ._core import Store, counters_page, create_generation, read_counters
from .errors import StoreError

DEFAULT_STORE = "/var/lib/fastgrey"
GENERATION = re.compile(r"passed\.([0-9]{6,})")
# What the head of a generation can hold, and of the one after it.
NUMBER_MAX = (1 << 64) - 2
SECRET_SIZE = 192
FILES = ("stats", "stats.new", "current", "current.new", "compaction.lock", "compaction.status",
         "compaction.status.new", "serve.sock")
# What a directory is called while it is removed.
GONE = ".gone"
# Where a generation goes that was found damaged when another took its place.
ASIDE = "damaged."

# LMDB forbids one process to have an environment open twice, so a store opened twice is one object.
_open_stores: dict[tuple[int, int], Store] = {}


def default_store() -> str:
    """The path of the store where none is named: FASTGREY_STORE, else /var/lib/fastgrey."""
    return os.environ.get("FASTGREY_STORE") or DEFAULT_STORE


def open_store(path: str | os.PathLike[str] | None = None) -> Store:
    """Open the store at path (default: FASTGREY_STORE, else /var/lib/fastgrey).

    Returns a Store, which is also a context manager. After a fork the child opens the store anew. Raises StoreError.
    """
    name = os.fspath(path if path is not None else default_store())
    try:
        status = os.stat(name)
    except OSError as error:
        raise StoreError(f"cannot open the store {name}: {error.strerror}; make one with: fastgrey init") from None
    key = (status.st_dev, status.st_ino)
    store = _open_stores.get(key)
    if store is not None and store.is_open:
        store._share()
        return store
    refuse_other_than_file(Path(name) / "current" / "data.mdb")
    store = _open_stores[key] = Store(name)
    return store


def create(path: str | os.PathLike[str], settings: dict[str, int] | None = None, group: int | None = None) -> None:
    """Make an empty store at path, its files shared with the group id where one is given.

    settings: stored numbers by name; what is missing gets its default. Raises StoreError, also where there is one.
    """
    root = Path(path)
    values = disk.settled(settings_.defaults() | (settings or {}), root)

    def fill(generation: Path) -> bool:
        create_generation(str(generation), 1, os.urandom(SECRET_SIZE), int(time.time()), list(values.values()))
        return bool(values["on_error"])

    try:
        make(root, group, fill)
    except OSError as error:
        raise StoreError(f"cannot make the store {root}: {error.filename or root}: {error.strerror}; name a directory "
                         "that this user may make, on a disk with room") from None


def make(root: Path, group: int | None, fill: Callable[[Path], bool]) -> None:
    """Make a store whose first generation, an empty directory, fill makes; it returns whether on_error is to defer.
    Raises StoreError where there is one, and on a network file system; OSError."""
    kind = disk.mounted(root)[1]
    if kind in disk.NETWORK_FILE_SYSTEMS:
        raise StoreError(f"{root} is on {kind}, a network file system, whose locks and maps LMDB cannot use; name a "
                         "directory on a local one")
    missing = [place for place in (root, *root.parents) if not place.exists()]
    root.parent.mkdir(parents=True, exist_ok=True)
    with shared_files():
        made = root in missing
        root.mkdir(exist_ok=True)
        if os.path.lexists(root / "current"):
            raise StoreError(f"there is a store at {root} already; remove it first, or change it with: fastgrey apply")
        foreign = [name.name for name in root.iterdir() if not is_ours(name.name)]
        if foreign:
            raise StoreError(f"{root} holds other files ({foreign[0]}); name an empty or a new directory")
        with inside.folder(root) as descriptor:
            if group is not None:
                os.fchown(descriptor, -1, group)
            # Set-group-id: what root's compaction makes belongs to the group of the hook's user.
            os.fchmod(descriptor, 0o2770)
        _empty(root)
        try:
            generation = root / generation_name(1)
            generation.mkdir()
            defer_on_error = fill(generation)
            if not (root / "stats").exists() or read_counters(str(root / "stats")) is None:
                make_counters(root, defer_on_error)
            flush_generation(generation)
            for place in missing:
                # Who may only make something in a directory, and not read it, cannot flush it.
                with suppress(PermissionError):
                    flush_directory(place.parent)
            swap(root, generation.name)
        except BaseException:
            if not os.path.lexists(root / "current"):
                _empty(root)
                if made:
                    root.rmdir()
            raise


def _empty(root: Path) -> None:
    for leftover in root.iterdir():
        remove(leftover)


@contextmanager
def shared_files() -> Iterator[None]:
    """Files made within are for the store's user and group, whatever mask this process came with."""
    mask = os.umask(0o007)
    try:
        yield
    finally:
        os.umask(mask)


def make_counters(root: Path, defer_on_error: bool) -> None:
    """Put a page of counters, all zero, in place of whatever is there, durably."""
    if (root / "stats").is_dir():
        raise StoreError(f"{root / 'stats'} is a directory; remove it, and run this again")
    write_flushed(root / "stats.new", counters_page(defer_on_error))
    os.replace(root / "stats.new", root / "stats")
    flush_directory(root)


def is_ours(name: str) -> bool:
    """Whether a store may have an entry of this name."""
    return name in (*FILES, "journal") or name.startswith(("passed.", "pending.", "hits.", ASIDE))


def generation_name(number: int) -> str:
    """The directory of a generation."""
    return f"passed.{number:06d}"


def number_of(name: str) -> int:
    """The number of the generation with this directory."""
    return int(name.partition(".")[2])


def generations(root: Path) -> list[int]:
    """Numbers of the generations there are, finished or not, in order."""
    matches = (GENERATION.fullmatch(entry.name) for entry in root.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def leftovers(root: Path, current: int) -> list[Path]:
    """Generations that nobody needs: unfinished ones after the one in force, all but one before it, and those that were
    not removed to the end. These come first: a power cut may leave one under both names, and one remove() takes both."""
    numbers = [n for n in generations(root) if n > current or n < current - 1]
    return [*sorted(root.glob(f"passed.*{GONE}")), *(root / generation_name(n) for n in numbers)]


def current_number(root: Path) -> int:
    """Number of the generation in force; StoreError where the symlink is none of ours."""
    link = root / "current"
    try:
        target = os.readlink(link)
    except OSError as error:
        raise StoreError(f"cannot read {link}: {error.strerror}; make a store with: fastgrey init") from None
    match = GENERATION.fullmatch(target)
    if not match or int(match[1]) > NUMBER_MAX:
        raise StoreError(f"{link} points to {target!r}, which is no generation; ask: fastgrey doctor")
    return int(match[1])


def swap(root: Path, name: str) -> None:
    """Put the generation called name in force, durably: from here on every new opener takes it."""
    new = root / "current.new"
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    os.replace(new, root / "current")
    flush_directory(root)


def write_flushed(path: Path, content: bytes) -> None:
    """Write a file of a store, flushed. The name itself is not. OSError."""
    with shared_files(), open(inside.made(path), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_text(path: Path, text: str) -> None:
    """Write a file of a store, flushed, in place of what is there: by way of NAME.new, so that it is whole at any moment.
    The name itself is not flushed. OSError."""
    new = path.with_name(f"{path.name}.new")
    write_flushed(new, text.encode())
    with inside.folder(path.parent) as place, inside.told_by(path):
        os.replace(new.name, path.name, src_dir_fd=place, dst_dir_fd=place)


def refuse_other_than_file(path: Path) -> None:
    """StoreError where something else stands in place of a data file: LMDB would wait for a pipe for ever."""
    with suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"{path} is no file; ask: fastgrey doctor")


def flush_directory(path: Path) -> None:
    """Flush the names in a directory."""
    with inside.folder(path) as descriptor:
        os.fsync(descriptor)


def flush_generation(path: Path) -> None:
    """Flush the names in the directory of a generation, and its own: before a link names it, which a power cut might
    otherwise keep and what it points to not."""
    flush_directory(path)
    flush_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file, symlink or directory of a store. Who still reads it keeps it until done, and its room on the disk.

    A directory first gets another name: who is about to open it would make one of its files anew.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    gone = path if path.name.endswith(GONE) else path.with_name(path.name + GONE)
    if gone != path:
        if os.path.lexists(gone):
            remove(gone)
        os.replace(path, gone)
    inside.removed(gone)


def boot_id() -> str:
    """Name of this run of the kernel, which names the directory of pending (Linux, random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def size_on_disk(path: Path) -> int:
    """Bytes allocated to the files at or below path; what vanishes meanwhile or cannot be looked at counts as nothing."""
    total = 0
    waiting = [path]
    while waiting:
        entry = waiting.pop()
        with suppress(OSError):
            status = entry.lstat()
            total += status.st_blocks * 512
            if stat.S_ISDIR(status.st_mode):
                waiting += entry.iterdir()
    return total
