"""What a machine knows by itself: for decisions while the engine is away, and for what the engine has forgotten."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from fastgrey._core import Store, fetch_slots, swap_slots
from fastgrey.errors import StoreError

from .embedded import merge
from .engine import Slot, Write
from .journal import SIZE, FullError, Journal
from .merging import KNOWN, Spans, count_of

# Records that wait to be written to the journal, as copies for the local table; more are left out.
COPIES_MAX = 10_000
# Of so many keys is remembered that they were copied, so that the same sender is not copied with every mail.
REMEMBERED = 50_000
BATCH = 1000


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
        self._copying: Future[None] | None = None

    def open(self) -> None:
        """Open the journal. StoreError."""
        self.journal.open()
        # One thread: what it writes comes in the order in which it was earned.
        self._thread = ThreadPoolExecutor(1, "fastgrey-journal")

    async def close(self) -> None:
        """Write what waits, and close the journal."""
        if self._thread is not None:
            await asyncio.wrap_future(self._thread.submit(self._write_copies))
            self._thread.shutdown()
            self._thread = None
        self.journal.close()

    def fetch(self, slots: Sequence[Slot]) -> tuple[list[int], list[bool]]:
        """The records of the slots as this machine knows them, 0 for nothing, and whether the engine lacks each of them.
        StoreError."""
        records = fetch_slots(self.store, slots)
        try:
            over = self.journal.look(slots)
        except sqlite3.Error:
            over = {}
        owed = [False] * len(slots)
        for i, slot in enumerate(slots):
            if slot in over:
                records[i], owed[i] = over[slot]
            if slot in self._waiting:
                records[i] = self.spans.joined(slot[0], records[i], self._waiting[slot])
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

    async def write(self, slots: Sequence[Slot], view: View, writes: Sequence[Write], gains: bool) -> bool:
        """Write to the journal what a decision on a view says, and what the engine lacks of it, where what this machine
        knew still stands; whether it does. gains: the decision promotes. StoreError."""
        if not writes and not view.lacking:
            return True
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, slots, view, writes, gains)

    def _write(self, slots: Sequence[Slot], view: View, writes: Sequence[Write], gains: bool) -> bool:
        self._write_copies()
        earned = gains and any(slots[write.index][0] in KNOWN for write in writes)
        new = {i: view.together[i] for i in view.lacking} | {write.index: write.new for write in writes}
        try:
            if not earned and self.journal.crowded():
                raise FullError
            with self.journal.change(durable=earned) as change:
                over = change.look(slots)
                there = fetch_slots(self.store, slots)
                if any(over.get(slots[i], (there[i],))[0] != view.mine[i] for i in new):
                    return False
                more = {write.index for write in writes if slots[write.index][0] == "hops"
                        or (gains and slots[write.index][0] in KNOWN)}
                for i, record in new.items():
                    change.owe(slots[i], record, int(i in more))
        except (sqlite3.Error, FullError):
            # The local table has it at least, and the engine learns it when the mail comes again.
            self.not_kept += len(new)
            merge(self.store, [slots[i] for i in new], list(new.values()))
        return True

    def copy(self, slots: Sequence[Slot], records: Sequence[int], writes: Sequence[Write]) -> None:
        """Keep what the engine had, and what was written to it: strangers in the local table at once, for that costs no
        flush, and what is known by way of the journal."""
        new = {write.index: write.new for write in writes}
        waiting: list[tuple[int, int, int, int]] = []
        known: dict[Slot, int] = {}
        for i, slot in enumerate(slots):
            record = new.get(i, records[i])
            if slot[0] in KNOWN and record:
                known[slot] = record
            elif i in new:
                waiting.append((i, 0, record, 0))
        with suppress(StoreError):
            if waiting:
                there = fetch_slots(self.store, slots)
                swap_slots(self.store, slots, [(i, there[i], record, 0) for i, _, record, _ in waiting])
            self._copy_known(known)

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
            if wanted == there or not (there or count_of(record)):
                continue
            if len(self._waiting) >= COPIES_MAX:
                self.left_out += 1
            else:
                self._waiting[slot] = wanted
        if self._waiting and self._copying is None and self._thread is not None:
            self._copying = self._thread.submit(self._write_copies)

    def _write_copies(self) -> None:
        """All that wait, and those that come meanwhile."""
        while self._waiting:
            batch = dict(islice(list(self._waiting.items()), BATCH))
            try:
                with self.journal.change(durable=False) as change:
                    for slot, record in batch.items():
                        change.copy(slot, record)
            except (sqlite3.Error, FullError):
                self.left_out += len(batch)
            for slot, record in batch.items():
                # Another thread may have put a later one there.
                if self._waiting.get(slot) == record:
                    del self._waiting[slot]
        self._copying = None
