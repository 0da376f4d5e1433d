"""What a machine knows by itself: for decisions while the engine is away, and for what the engine has forgotten."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from fastgrey._core import Store, fetch_slots, swap_slots
from fastgrey.errors import StoreError

from .embedded import merge
from .engine import Slot, Write
from .journal import SIZE, FullError, Journal
from .merging import KNOWN, Spans

# Records that wait to be written to the journal, as copies for the local table; more are left out.
COPIES_MAX = 10_000
# Of so many keys is remembered that they were copied, so that the same sender is not copied with every mail.
REMEMBERED = 50_000
BATCH = 200


class View(NamedTuple):
    """Records of a request, as this machine has them, and together with what the engine has. lacking: indices of those
    of which the engine knows less."""

    mine: list[int]
    together: list[int]
    lacking: list[int]


class Standby:
    """The local table and the journal over it. Needs a running event loop; one per process, opened after a fork."""

    def __init__(self, store: Store, size: int = SIZE):
        self.store = store
        self.journal = Journal(store.path, size)
        self.spans = Spans.of(store)
        self._spans_until = 0.0
        # Copies that were left out because too many waited, and records that the journal could not take.
        self.left_out = 0
        self.not_kept = 0
        self._waiting: dict[Slot, int] = {}
        self._remembered: dict[Slot, int] = {}
        self._thread: ThreadPoolExecutor | None = None
        # Whether a run that writes what waits is to begin.
        self._coming = False

    def open(self) -> None:
        """Open the journal. StoreError."""
        self.journal.open()
        # One thread: what it writes comes in the order in which it was earned.
        self._thread = ThreadPoolExecutor(1, "fastgrey-journal")

    @property
    def is_open(self) -> bool:
        """Whether the journal is open."""
        return self._thread is not None

    async def close(self) -> None:
        """Write what waits, and close the journal."""
        if self._thread is not None:
            await asyncio.wrap_future(self._thread.submit(self._write_copies))
            self._thread.shutdown()
            self._thread = None
        self.journal.close()

    def fetch(self, slots: Sequence[Slot]) -> tuple[list[int], list[bool]]:
        """The records of the slots as this machine knows them, 0 for nothing, and whether the engine lacks each of
        them. StoreError."""
        # These first: what is written meanwhile is then found in the journal.
        over = [(slot, record, False) for slot in slots if (record := self._waiting.get(slot))]
        with suppress(sqlite3.Error):
            over += self.journal.look(slots)
        return self._here(slots, over)

    def _here(self, slots: Sequence[Slot], over: Sequence[tuple[Slot, int, bool]]) -> tuple[list[int], list[bool]]:
        """What the local table has, joined with what is over it."""
        records, owed = fetch_slots(self.store, slots), [False] * len(slots)
        for slot, record, lacking in over:
            i = slots.index(slot)
            records[i] = self._spans().joined(slot[0], records[i], record)
            owed[i] = owed[i] or lacking
        return records, owed

    def view(self, slots: Sequence[Slot], theirs: Sequence[int] | None, now: int) -> View:
        """What a decision at the Unix time now is to go by; theirs: what the engine holds, None while it is away.
        StoreError."""
        mine, owed = self.fetch(slots)
        if theirs is None:
            return View(mine, mine, [])
        together = []
        for slot, record, there, lacking in zip(slots, mine, theirs, owed, strict=True):
            kind = slot[0]
            if not self._spans().alive(kind, record, now) or (kind not in KNOWN and there and not lacking):
                together.append(there)
            else:
                together.append(self.spans.joined(kind, there, record))
        return View(mine, together, [i for i, (there, record) in enumerate(zip(theirs, together, strict=True))
                                     if there != record])

    def _spans(self) -> Spans:
        """The settings may be others by now."""
        if (moment := time.monotonic()) > self._spans_until:
            self.spans, self._spans_until = Spans.of(self.store), moment + 1
        return self.spans

    async def write(self, slots: Sequence[Slot], view: View, writes: Sequence[Write], promotes: bool,
                    in_doubt: bool) -> bool:
        """Write to the journal what a decision on a view says, and what the engine lacks of it, where what this machine
        knew still stands; whether it does. in_doubt: the engine may have it already. StoreError."""
        if not writes and not view.lacking:
            return True
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._write, slots, view, writes, promotes, in_doubt)

    def _write(self, slots: Sequence[Slot], view: View, writes: Sequence[Write], promotes: bool,
               in_doubt: bool) -> bool:
        self._write_copies()
        new = {i: view.together[i] for i in view.lacking} | {write.index: write.new for write in writes}
        more = {write.index for write in writes if slots[write.index][0] == "hops"
                or (promotes and slots[write.index][0] in KNOWN)}
        try:
            if not promotes and self.journal.crowded():
                raise FullError
            with self.journal.change(durable=promotes) as change:
                here, _ = self._here(slots, change.look(slots))
                if any(here[i] != view.mine[i] for i in new):
                    return False
                for i, record in new.items():
                    change.owe(slots[i], record, int(i in more), in_doubt)
        except sqlite3.Error:
            # The local table has it at least, and the engine learns it when the mail comes again.
            self.not_kept += len(new)
            merge(self.store, [slots[i] for i in new], list(new.values()))
        return True

    def copy(self, slots: Sequence[Slot], records: Sequence[int], writes: Sequence[Write], stranger: bool) -> None:
        """Keep what the engine had, and what was written to it: of strangers in the local table at once, for that costs
        no flush, and what is known by way of the journal."""
        there = {slot: record for slot, record in zip(slots, records, strict=True) if record}
        there |= {slots[write.index]: write.new for write in writes}
        with suppress(StoreError):
            if stranger:
                self._copy_waiting({slot: record for slot, record in there.items() if slot[0] not in KNOWN})
            self._copy_known({slot: record for slot, record in there.items() if slot[0] in KNOWN})

    def _copy_waiting(self, waiting: dict[Slot, int]) -> None:
        slots = list(waiting)
        there = fetch_slots(self.store, slots)
        # Not joined: what was forgotten, and then began anew, has a later time than it has here.
        writes = [(i, old, waiting[slot], 0) for i, (slot, old) in enumerate(zip(slots, there, strict=True))
                  if waiting[slot] != old]
        if writes:
            swap_slots(self.store, slots, writes)

    def _copy_known(self, known: dict[Slot, int]) -> None:
        fresh = [slot for slot, record in known.items() if self._remembered.get(slot) != record]
        if not fresh:
            return
        for slot, there in zip(fresh, fetch_slots(self.store, fresh), strict=True):
            record = known[slot]
            wanted = self.spans.joined(slot[0], there, record)
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[slot] = record
            if wanted == there:
                continue
            if len(self._waiting) >= COPIES_MAX:
                self.left_out += 1
            else:
                self._waiting[slot] = self.spans.joined(slot[0], self._waiting.get(slot, 0), wanted)
        if self._waiting and not self._coming and self._thread is not None:
            self._coming = True
            self._thread.submit(self._write_copies)

    def _write_copies(self) -> None:
        """All that wait, and those that come meanwhile."""
        # First of all: who comes later begins another.
        self._coming = False
        while self._waiting:
            batch = dict(islice(list(self._waiting.items()), BATCH))
            try:
                with self.journal.change(durable=False) as change:
                    whole = dict(batch)
                    for slot, record, lacking in change.look(list(batch)):
                        if not lacking:
                            whole[slot] = self.spans.joined(slot[0], record, whole[slot])
                    for slot, record in whole.items():
                        change.copy(slot, record)
            except sqlite3.Error:
                self.left_out += len(batch)
            for slot, record in batch.items():
                # Another thread may have put a later one there.
                if self._waiting.get(slot) == record:
                    del self._waiting[slot]
