"""The page of counters by docs/format.md alone: read and written by a struct module that knows nothing of fastgrey."""

import struct
from typing import NamedTuple

SIZE = 4096
# Name: offset, slots, seconds from one to the next.
RINGS = {"minute": (472, 8, 10), "hour": (1048, 13, 300), "day": (1984, 25, 3600)}
SNAPSHOT = struct.Struct("=q16I")
PERIODS = {"minute": 60, "hour": 3600, "day": 86_400}


class Page(NamedTuple):
    """What a page says. totals, events and waits without zeros, by index."""

    magic: bytes
    version: int
    deferring: int
    totals: dict
    events: dict
    waits: dict
    made: int


def read(file):
    """The page, less its rings."""
    content = file.read_bytes()
    assert len(content) == SIZE
    numbers = struct.unpack_from("=57Q", content, 16)
    parts = [{index: number for index, number in enumerate(part) if number}
             for part in (numbers[:16], numbers[16:32], numbers[32:])]
    return Page(*struct.unpack_from("=8sII", content), *parts, *struct.unpack_from("=q", content, 3784))


def slots(file):
    """Every slot of every ring: name, index, stamp, totals."""
    content = file.read_bytes()
    return [(name, index, *unpack(SNAPSHOT.unpack_from(content, offset + index * SNAPSHOT.size)))
            for name, (offset, number, _) in RINGS.items() for index in range(number)]


def unpack(fields):
    """Stamp and totals of a slot."""
    stamp, *totals = fields
    return stamp, totals


def stamp_all(file, stamp):
    """Give every slot this stamp."""
    with open(file, "r+b", buffering=0) as page:
        for offset, number, _ in RINGS.values():
            for index in range(number):
                page.seek(offset + index * SNAPSHOT.size)
                page.write(struct.pack("=q", stamp))
