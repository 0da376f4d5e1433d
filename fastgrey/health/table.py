"""What the first pages of an LMDB environment tell, read without LMDB, which a damaged file could end."""

import os
import stat
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from .. import inside
from .finding import Trouble, wrong

# LMDB 0.9: two meta pages. Each has a page header with its flags at 10; magic and version; address and size of the map;
# two trees (free pages, names) of 48 bytes each with the page size in the first 4 bytes and the root in the last 8; the
# number of the last page used and of the transaction.
META = struct.Struct("=10xH4xIIQQI36xQ40xQQQ")
META_FLAG = 0x08
MAGIC = 0xBEEFC0DE
DATA_VERSION = 1
NO_PAGE = (1 << 64) - 1
# Pages that one transaction both took and gave up at the end of the file need not be in it.
UNWRITTEN_PAGES = 16


class Meta(NamedTuple):
    """A meta page, in the order of META."""

    flags: int
    magic: int
    version: int
    address: int
    map: int
    page: int
    free_root: int
    names_root: int
    last: int
    transaction: int


class Table(NamedTuple):
    """An environment: bytes used by its pages, of its file and of its map."""

    used: int
    size: int
    map: int


def read_table(directory: Path, remedy: str) -> Table:
    """The table in directory. Trouble, with the remedy, where it is none or cut short."""
    file = directory / "data.mdb"
    size = regular_file(file, remedy).st_size
    descriptor = inside.opened(file, os.O_RDONLY)
    try:
        first = _meta(file, os.pread(descriptor, META.size, 0), size, remedy)
        second = _meta(file, os.pread(descriptor, META.size, first.page), size, remedy)
        # Looked at last: a writer may be making the file longer.
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    meta = max(first, second, key=lambda meta: meta.transaction)
    used = (meta.last + 1) * first.page
    needed = [used - UNWRITTEN_PAGES * first.page]
    needed += [(root + 1) * first.page for root in (meta.free_root, meta.names_root) if root != NO_PAGE]
    if max(needed) > size:
        raise Trouble(wrong(f"{file} is cut short: it has {size} of {used} bytes", remedy))
    return Table(used, size, meta.map)


def _meta(file: Path, data: bytes, size: int, remedy: str) -> Meta:
    if len(data) < META.size:
        raise Trouble(wrong(f"{file} is cut short: it has {size} bytes, less than an empty table", remedy))
    if _of_other_machine(data):
        raise Trouble(wrong(f"{file} is a table of a machine of another byte order or word size",
                            "move the store away, and make a new one here"))
    meta = Meta(*META.unpack(data))
    if not meta.flags & META_FLAG or meta.magic != MAGIC:
        raise Trouble(wrong(f"{file} is no table of LMDB, or it is damaged", remedy))
    if meta.version != DATA_VERSION:
        raise Trouble(wrong(f"{file} is a table in another format of LMDB ({meta.version} instead of {DATA_VERSION})",
                            "use the fastgrey that made it, or make a new store"))
    if not 256 <= meta.page <= 65536 or meta.page & meta.page - 1:
        raise Trouble(wrong(f"{file} is damaged: pages of {meta.page} bytes", remedy))
    return meta


def _of_other_machine(data: bytes) -> bool:
    """Whether LMDB's number stands where, or as, it would for another word size or byte order."""
    order = "<>"[sys.byteorder == "little"]
    own = struct.calcsize("P") + 8
    numbers = {(place, sign): struct.unpack_from(f"{sign}I", data, place)[0] for place in (12, 16) for sign in ("=", order)}
    del numbers[own, "="]
    return MAGIC in numbers.values()


def regular_file(file: Path, remedy: str) -> os.stat_result:
    """Its status; Trouble where it is missing, or no file. Opening a pipe would wait for ever."""
    try:
        status = file.lstat()
    except FileNotFoundError:
        raise Trouble(wrong(f"there is no {file}", remedy)) from None
    except PermissionError:
        raise
    except OSError as error:
        raise Trouble(wrong(f"{file}: {error.strerror}", remedy)) from None
    if not stat.S_ISREG(status.st_mode):
        raise Trouble(wrong(f"{file} is no regular file", remedy))
    return status
