"""The process of a machine that empties its journal: into the engine when it answers, and into the local table."""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from fastgrey._core import Store
from fastgrey.errors import EngineError, StoreError

from .embedded import merge
from .engine import Engine, Write, agreed, opened
from .journal import SIZE, Journal, Owed
from .merging import Spans

# Records in one round, and exchanges with the engine at once.
ROUND = 500
EXCHANGES = 32
# Seconds between rounds while there is nothing to do, and at most between tries while the engine does not answer.
IDLE = 0.2
MOST = 5.0
# Seconds between the upkeep of the engine and of the local table.
UPKEEP = 300


T = TypeVar("T")


def answered(results: Sequence[T | EngineError]) -> list[T]:
    """What the engine said; EngineError where it did not say something."""
    for result in results:
        if isinstance(result, EngineError):
            raise result
    return [result for result in results if not isinstance(result, EngineError)]


def _say(line: str) -> None:
    print(f"fastgrey: {line}", file=sys.stderr, flush=True)


class Keeper:
    """Writes back to the engine, and copies into the local table. Any number may run; one of them works.

    It is a process of its own: what it writes to the local table is flushed, and meanwhile the store object of that
    process answers nothing.
    """

    def __init__(self, store: Store, engine: Engine, size: int = SIZE, say: Callable[[str], None] = _say,
                 clock: Callable[[], float] = time.time):
        self.store = store
        self.engine = engine
        # What empties a full journal writes to it, and it grows by nothing that it takes from elsewhere.
        self.journal = Journal(store.path, 2 * size)
        self.written_back = 0
        self._say = say
        self._clock = clock
        self._upkept = 0.0
        self._opened = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until stop is set; then the engine is closed. StoreError where the journal cannot be opened."""
        self.journal.open()
        pause = IDLE
        away: str | None = None
        try:
            while not stop.is_set():
                busy = False
                try:
                    if self.journal.lock():
                        busy = self.carry() > 0
                        await self._upkeep()
                        busy = await self.write_back() > 0 or busy
                        self.journal.tidy()
                    pause, away = IDLE, None
                except (EngineError, StoreError, sqlite3.Error) as error:
                    pause = min(pause * 2, MOST)
                    if away is None:
                        self._say(f"what was earned without the engine waits: {error}")
                    away = str(error)
                if not busy:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), pause)
        finally:
            self.journal.close()
            if self._opened:
                await self.engine.close()

    async def _upkeep(self) -> None:
        if not self._opened:
            await opened(self.engine, self.store)
            self._opened = True
        if (moment := time.monotonic()) - self._upkept > UPKEEP or not self._upkept:
            # One that lost everything would take the secret of whichever machine starts next, and refuse this one's.
            await agreed(self.engine, self.store)
            self._upkept = moment
            self.store.drop_expired(int(self._clock()))
            await self.engine.upkeep(int(self._clock()))

    def carry(self) -> int:
        """Put a round of copies into the local table, in one durable transaction; how many there were. StoreError,
        sqlite3.Error."""
        copies = self.journal.copies(ROUND)
        if copies:
            spans, now = Spans.of(self.store), int(self._clock())
            alive = [(slot, record) for slot, record in copies if spans.alive(slot[0], record, now)]
            merge(self.store, [slot for slot, _ in alive], [record for _, record in alive])
            with self.journal.change(durable=False) as change:
                for slot, record in copies:
                    change.copied(slot, record)
        return len(copies)

    async def write_back(self) -> int:
        """Write what the engine lacks to it; how many records. EngineError, StoreError, sqlite3.Error.

        A kill at any moment leaves each record in the journal until it is with the engine. One whose count grows is
        marked with what it will be before it is written: so the next one finds whether it was.
        """
        done = 0
        last: Owed | None = None
        while rows := self.journal.owed(ROUND, last.slot if last else None):
            last = rows[-1]
            done += await self._round(rows)
        self.written_back += done
        return done

    async def _round(self, rows: Sequence[Owed]) -> int:
        spans, now = Spans.of(self.store), int(self._clock())
        there = answered(await self._all(self._fetch, rows))
        new = {row: self._becomes(spans, row, record, now) for row, record in zip(rows, there, strict=True)}
        old = dict(zip(rows, there, strict=True))
        marks = [row for row in rows if row.gains and new[row] != old[row] and row.sent != new[row]]
        if marks:
            with self.journal.change(durable=True) as change:
                for row in marks:
                    change.sending(row, new[row])

        async def swap(row: Owed) -> bool:
            kind = row.slot[0]
            return new[row] == old[row] or await self.engine.swap(
                [row.slot], [Write(0, old[row], new[row], spans.keep(kind, new[row], now))])

        written = await self._all(swap, rows)
        with self.journal.change(durable=False) as change:
            for row, result in zip(rows, written, strict=True):
                if result is True:
                    change.paid(row)
                    if new[row]:
                        change.copy(row.slot, new[row])
                elif result is False and row.gains and not row.sent:
                    # Somebody else was first, and no earlier try is in doubt.
                    change.sending(row, 0)
        return sum(answered(written))

    @staticmethod
    def _becomes(spans: Spans, row: Owed, there: int, now: int) -> int:
        """What the record at the engine is to be; what it is where there is nothing to write."""
        kind = row.slot[0]
        if not spans.alive(kind, row.record, now):
            return there
        if not spans.alive(kind, there, now):
            return row.record
        arrived = row.sent and spans.joined(kind, there, row.sent) == there
        return spans.added(kind, there, row.record, row.gains - row.sent_gains if arrived else row.gains)

    async def _fetch(self, row: Owed) -> int:
        return (await self.engine.fetch([row.slot]))[0]

    @staticmethod
    async def _all(work: Callable[[Owed], Awaitable[T]], rows: Sequence[Owed]) -> list[T | EngineError]:
        """What the engine says to each row, or why it does not; some at a time, one record each, for no two need be in
        the same place of an engine. Once it does not answer it is not asked again."""
        gate = asyncio.Semaphore(EXCHANGES)
        failed: list[EngineError] = []

        async def one(row: Owed) -> T | EngineError:
            async with gate:
                if failed:
                    return failed[0]
                try:
                    return await work(row)
                except EngineError as error:
                    failed.append(error)
                    return error

        return await asyncio.gather(*(one(row) for row in rows))
