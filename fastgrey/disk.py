"""What a setting comes to where it goes by the disk. The hook finds a number in the store and asks nobody."""

import os
from contextlib import suppress
from pathlib import Path

from .settings import BY_DISK

# Bytes of pending: this share of the file system, within these bounds.
SHARE = 32
LEAST = 16 << 20
MOST = 4 << 30


def settled(values: dict[str, int], path: str | os.PathLike[str]) -> dict[str, int]:
    """The settings by name as a store at path keeps them: where one says 'disk', by its file system as it is now.

    path need not be there yet.
    """
    if values["pending_size"] != BY_DISK:
        return values
    return values | {"pending_size": pending_size(_file_system_size(Path(path)))}


def pending_size(disk: int) -> int:
    """Bytes that pending may take on a file system of disk bytes: the power of two in a 32nd, from 16M to 4G.

    A power of two, so that it stays what it is when the file system grows by a little.
    """
    return max(LEAST, min(MOST, 1 << (disk // SHARE).bit_length() >> 1))


def _file_system_size(path: Path) -> int:
    for place in (path.absolute(), *path.absolute().parents):
        # What is wrong with the path is told by whoever opens or makes the store.
        with suppress(OSError):
            found = os.statvfs(place)
            return found.f_blocks * found.f_frsize
    return 0
