"""The directories by which stores are opened (core/view.pxi), where one was left over of a process that was killed."""

import os
import re
import stat
import time
from contextlib import suppress

# Where core/view.pxi makes them.
PLACES = ("/dev/shm", "/tmp", "/var/tmp")
# One is there for a moment, or for as long as another process holds up whoever opens the store.
OLD = 3600

_NAME = re.compile(r"fastgrey\.[0-9A-Za-z]{6}")
_LINKS = ("data.mdb", "lock.mdb")


def remove_old() -> None:
    """Remove those older than OLD seconds, as far as this user may. What holds anything else stays."""
    for place in PLACES:
        with suppress(OSError):
            for name in filter(_NAME.fullmatch, os.listdir(place)):
                with suppress(OSError):
                    _remove_old(os.path.join(place, name))


def _remove_old(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if time.time() - os.fstat(descriptor).st_mtime < OLD or not set(os.listdir(descriptor)) <= set(_LINKS):
            return
        for name in _LINKS:
            with suppress(FileNotFoundError):
                if stat.S_ISLNK(os.lstat(name, dir_fd=descriptor).st_mode):
                    os.unlink(name, dir_fd=descriptor)
        os.rmdir(path)
    finally:
        os.close(descriptor)
