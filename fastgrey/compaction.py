"""Compaction: what is alive goes into a new packed generation, the rest is dropped, while hooks go on."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from . import directory
from ._core import Copy, Store
from .errors import CompactionError

BATCH = 20_000

Progress = Callable[[str, int, int], None]


@dataclass
class Summary:
    """What a compaction did. Sizes are bytes on disk."""

    generation: int
    alive: int
    expired: int
    touched: int
    partitions_dropped: int
    size_before: int
    size_after: int
    seconds: float

    def as_dict(self) -> dict[str, int | float]:
        """The same as a dictionary, for JSON."""
        return asdict(self)


def compact(path: str, now: int | None = None, progress: Progress | None = None) -> Summary:
    """Write a new generation of the store at path, verify it and put it in force; clean up behind it.

    now: Unix seconds by which records expire, None for the clock. progress: called with the step ('copy' or
    'verify'), the records done and their total. Raises CompactionError where another compaction runs or this one
    cannot finish, StoreError where there is no usable store; the generation in force then is what it was.
    """
    root = Path(path)
    moment = int(time.time()) if now is None else now
    started = time.monotonic()
    with directory.open_store(path) as store, _alone(root), store._alone():
        try:
            summary = _compact(root, store, moment, progress or (lambda step, done, total: None))
        except OSError as error:
            raise CompactionError(f"cannot compact {root}: {error.filename or root}: {error.strerror}; "
                                  "the generation in force is unchanged") from None
    summary.seconds = time.monotonic() - started
    return summary


def foretell(path: str, now: int | None = None) -> dict[str, int]:
    """What a compaction would keep and drop: numbers of records alive and expired. Writes nothing."""
    moment = int(time.time()) if now is None else now
    with directory.open_store(path) as store:
        alive = sum(store.alive(moment).values())
        return {"alive": alive, "expired": sum(store.known().values()) - alive}


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the lock of compaction. The kernel frees it when its holder dies."""
    try:
        with directory.shared_files():
            descriptor = os.open(root / "compaction.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    except OSError as error:
        raise CompactionError(f"cannot lock {root / 'compaction.lock'}: {error.strerror}; "
                              "run this as root or as the owner of the store") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CompactionError(f"another compaction of {root} is running; wait for it") from None
    finally:
        os.close(descriptor)


def _compact(root: Path, store: Store, now: int, progress: Progress) -> Summary:
    old = directory.current_number(root)
    number = old + 1
    _remove_leftovers(root, old)
    size_before = directory.size_on_disk(root / directory.generation_name(old))
    target = root / directory.generation_name(number)
    with directory.shared_files():
        target.mkdir()
    try:
        copy = Copy(store, str(target), number, now)
        _each(copy.copy, "copy", copy.total(), progress)
        alive, expired = copy.rewind()
        _each(copy.compare, "verify", copy.total(), progress)
        directory.flush_directory(target)
        touched = copy.finish(lambda: directory.swap(root, target.name))
    except BaseException:
        if directory.current_number(root) != number:
            directory.remove(target)
        raise
    dropped = store.drop_expired(now)
    _remove_leftovers(root, number)
    return Summary(number, alive, expired, touched, dropped, size_before, directory.size_on_disk(target), 0.0)


def _each(step: Callable[[int], int], name: str, total: int, progress: Progress) -> None:
    done = 0
    progress(name, done, total)
    while seen := step(BATCH):
        done += seen
        progress(name, done, total)


def _remove_leftovers(root: Path, current: int) -> None:
    """What a killed compaction left, generations before the one to go back to, and pending of earlier boots."""
    keep = f"pending.{directory.boot_id()}"
    for path in [*directory.leftovers(root, current), *root.glob("pending.*")]:
        if path.name != keep:
            directory.remove(path)
