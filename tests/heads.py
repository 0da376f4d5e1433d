"""The head of a generation, changed by an LMDB that is not the program's own."""

import struct

import lmdb

from fastgrey import manifest

SUM = 512


def checksum(head):
    """Of a head, from docs/format.md."""
    return struct.pack("=Q", int(manifest.checksum(head[:SUM])[16:], 16))


def overwrite(generation, offset, data):
    """Put data into the stored head at the offset, and its checksum (docs/format.md)."""
    with lmdb.open(str(generation), max_dbs=8) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(db=meta, write=True) as txn:
            head = txn.get(b"head")
            head = head[:offset] + data + head[offset + len(data):]
            txn.put(b"head", head[:SUM] + checksum(head))
