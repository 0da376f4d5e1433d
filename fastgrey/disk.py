"""The file system under a store: its kind, and what a setting comes to that goes by its size. The hook finds a number
in the store and asks nobody."""

import os
import re
from contextlib import suppress
from pathlib import Path

from .settings import BY_DISK

# Bytes of pending: this share of the file system, within these bounds.
SHARE = 32
LEAST = 16 << 20
MOST = 4 << 30
# LMDB needs locks and shared maps that network file systems do not have (lmdb.h, Caveats).
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "coda", "ceph", "glusterfs", "lustre",
                        "beegfs", "gpfs", "orangefs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs",
                        "fuse.rclone", "fuse.davfs2", "fuse.curlftpfs", "fuse.juicefs"}
MOUNTS = Path("/proc/self/mounts")


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


def mounted(path: Path) -> tuple[str, str]:
    """Where the file system of path, which need not be there yet, is mounted, and its kind (fstab(5)); empty where
    /proc does not tell."""
    best, kind = "/", ""
    real = os.path.realpath(path) + "/"
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return best, kind
    for line in lines:
        # Blanks in names are written as octal numbers.
        place, name = (re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word) for word in line.split()[1:3])
        if real.startswith(place.rstrip("/") + "/") and len(place) >= len(best):
            best, kind = place, name
    return best, kind
