"""The store's own table as an engine: of one machine, and the place where decisions go on while another is away."""

import asyncio
from collections.abc import Sequence

from fastgrey._core import Store, fetch_slots, store_secret, swap_slots
from fastgrey.errors import EngineError, StoreError

from .engine import Slot, Write
from .merging import KNOWN, Spans, count_of


class Embedded:
    """Records in LMDB: what is known in the generation in force, flushed; what waits in pending, not flushed."""

    def __init__(self, store: Store):
        self.store = store
        self.name = f"lmdb:{store.path}"

    async def open(self) -> None:
        """Nothing: the store is open."""

    async def close(self) -> None:
        """Nothing: the store is closed by whoever opened it."""

    async def secret(self, own: bytes) -> bytes:
        """That of the store."""
        return store_secret(self.store)

    async def fetch(self, slots: Sequence[Slot]) -> list[int]:
        """The records of the slots, 0 for each that is not there."""
        try:
            return fetch_slots(self.store, slots)
        except StoreError as error:
            raise EngineError(str(error)) from None

    async def swap(self, slots: Sequence[Slot], writes: Sequence[Write]) -> bool:
        """Write all of it where every old record is still what it was, else nothing. A new record of 0 removes."""
        try:
            if all(slots[write.index][0] not in KNOWN for write in writes):
                return swap_slots(self.store, slots, writes)
            # It waits for the disk.
            return await asyncio.to_thread(swap_slots, self.store, slots, writes)
        except StoreError as error:
            raise EngineError(str(error)) from None

    async def upkeep(self, now: int) -> None:
        """Drop the partitions of pending that expired."""
        try:
            self.store.drop_expired(now)
        except StoreError as error:
            raise EngineError(str(error)) from None


def merge(store: Store, slots: Sequence[Slot], records: Sequence[int]) -> None:
    """Put records into the store's own table, each joined with what is there, known ones in one durable transaction.
    StoreError."""
    spans = Spans.of(store)
    while True:
        there = fetch_slots(store, slots)
        # What was forgotten elsewhere goes.
        new = [0 if kind in KNOWN and not count_of(whole) else whole
               for (kind, _), whole in zip(slots, map(spans.joined, (kind for kind, _ in slots), there, records),
                                           strict=True)]
        writes = [(i, old, record, 0) for i, (old, record) in enumerate(zip(there, new, strict=True)) if old != record]
        if not writes or swap_slots(store, slots, writes):
            return
