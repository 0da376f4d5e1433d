"""The lock of compaction, which rollback and restore hold too: whoever makes a new generation does it alone."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import directory, inside, last_run
from .errors import CompactionError, RunningError

# Descriptors of locks that this process holds. A child would hold on to them after this process has died.
_locks: set[int] = set()


def _forget_locks() -> None:
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the lock of compaction. The kernel frees it when its holder dies. RunningError, CompactionError."""
    lock = root / last_run.LOCK
    try:
        with directory.shared_files():
            descriptor = inside.opened(lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise CompactionError(f"cannot lock {lock}: {error.strerror}; run this as root or as the owner of the store, "
                              "on a file system that can be written to") from None
    _locks.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            # Closing would not do where another thread has just forked and not yet executed.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        raise RunningError(f"another compaction of {root} is running; wait for it") from None
    finally:
        _locks.discard(descriptor)
        os.close(descriptor)
