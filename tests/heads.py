"""The head of a generation, changed by an LMDB that is not the program's own."""

import lmdb


def overwrite(generation, offset, data):
    """Put data into the stored head at the offset (docs/format.md)."""
    with lmdb.open(str(generation), max_dbs=8) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(db=meta, write=True) as txn:
            head = txn.get(b"head")
            txn.put(b"head", head[:offset] + data + head[offset + len(data):])
