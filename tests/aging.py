"""Let time pass for a store at rest: every time in it moves back, so that the real clock finds it older."""

import struct

import lmdb

TIME_MASK = (1 << 40) - 1
KINDS = (b"client", b"domain", b"triplet", b"pair")


def age(path, pending_path, seconds):
    """Make every record of the store seconds older. Nothing may have the store open meanwhile."""
    _age(path / (path / "current").readlink(), seconds, lambda name: name in KINDS)
    if pending_path.exists():
        _age(pending_path, seconds, lambda name: name.startswith(b"2."))


def records(directory, wanted=lambda name: True):
    """All records of an environment by database name, read by an LMDB that is not the program's own."""
    with lmdb.open(str(directory), max_dbs=200, readonly=True) as environment:
        found = {}
        for name in _names(environment, wanted):
            handle = environment.open_db(name)
            with environment.begin(db=handle) as txn:
                found[name.decode()] = dict(txn.cursor())
        return found


def unpack(value):
    """Time and count of a record."""
    (number,) = struct.unpack("<Q", value)
    return number & TIME_MASK, number >> 40


def pack(time, count):
    """A record."""
    return struct.pack("<Q", count << 40 | time)


def _names(environment, wanted):
    with environment.begin() as txn:
        return [name for name, _ in txn.cursor() if wanted(name)]


def _age(directory, seconds, wanted):
    with lmdb.open(str(directory), max_dbs=200, map_size=1 << 28) as environment:
        for name in _names(environment, wanted):
            handle = environment.open_db(name)
            with environment.begin(db=handle, write=True) as txn:
                for key, value in list(txn.cursor()):
                    time, count = unpack(value)
                    txn.put(key, pack(max(0, time - seconds), count))
