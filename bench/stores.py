"""Stores to measure with: so many known records, as a compaction leaves them, and some that are there to be asked for.

Records that nobody asks for are written past the core, sorted, and make 10^7 known triplets in ten seconds.
"""

import random
import struct
import time
from pathlib import Path

import lmdb

import fastgrey
from fastgrey._core import Store

SEED = 1
BATCH = 50_000
# A quarter as many clients as triplets and half as many domains, in LMDB's order of its tables.
SHARES = {"client": 4, "domain": 2, "triplet": 1}
# The same question is never the only one: so many senders are known, a page of a large table for each.
SENDERS = 200
RECIPIENT = "b@example.net"
# Each of the senders was promoted from an address of its own, so that none of these is a known client.
NETWORK = "10.0.0"
KNOWN_CLIENT = "192.0.2.1"


def made(store: Path, known: int, settings: dict[str, int] | None = None, askable: bool = True) -> Path:
    """A new store with so many known triplets beside those that can be asked for; its path."""
    # No record is refreshed while it is measured.
    fastgrey.create(store, {"refresh": 10**7, **(settings or {})})
    if known:
        fill(store, known)
    if askable:
        introduce(store)
    return store


def fill(store: Path, known: int, seen: int = 0) -> None:
    """Records under keys that are spread evenly, last seen `seen` or 1000 seconds ago: full pages in order."""
    record = struct.pack("<Q", 1 << 40 | (seen or int(time.time()) - 1000))
    pick = random.Random(SEED)
    # A map that is no larger than a store which grew to this size would have.
    room = 1 << max(20, (80 * known).bit_length())
    with lmdb.open(str(store / "passed.000001"), max_dbs=8, map_size=room, sync=False, writemap=True,
                   max_readers=8192) as table:
        for kind, share in SHARES.items():
            with table.begin(db=table.open_db(kind.encode()), write=True) as txn:
                number = known // share
                step = (1 << 64) // max(1, number)
                for start in range(0, number, BATCH):
                    tails = pick.randbytes(8 * BATCH)
                    txn.cursor().putmulti([
                        (struct.pack(">Q", index * step) + tails[(index - start) * 8:(index - start) * 8 + 8], record)
                        for index in range(start, min(start + BATCH, number))], append=True)
        table.sync(True)
        size = (table.info()["last_pgno"] + 1) * table.stat()["psize"]
    # Written through the map, the file has the size of the map.
    with (store / "passed.000001" / "data.mdb").open("r+b") as data:
        data.truncate(size)


def introduce(store: Path) -> None:
    """Let SENDERS domains become known, and one client; `sender(n)` from `client(n)` is then a known domain."""
    start = int(time.time()) - 4000
    # Flushing would take most of the time and change nothing of what is measured.
    with Store(str(store), throw_away=True) as opened:
        for step in (0, 400):
            for number in range(SENDERS):
                opened.check(client=client(number), sender=sender(number), recipient=RECIPIENT, now=start + step)
            for number in range(6):
                opened.check(client=KNOWN_CLIENT, sender=f"a@of{'abcdef'[number]}.example", recipient=RECIPIENT,
                             now=start + step)


def client(number: int) -> str:
    """The address that the known sender with that number comes from."""
    return f"{NETWORK}.{number + 1}"


def sender(number: int) -> str:
    """The address of that known sender."""
    return f"a@h{number}.example"
