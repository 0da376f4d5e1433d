"""Looks at the store and the engine, now and then, by a thread of their own: whoever asks gets what the last one saw.

A store whose locks a stopped process holds would otherwise hold up everybody who asks.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

from fastgrey import directory, statistics
from fastgrey.errors import FastgreyError
from fastgrey.shared.engine import Engine
from fastgrey.shared.journal import Journal

# Seconds from one look to the next; how old the last one may be.
INTERVAL = 1.0
STALE = 15.0
# The facts for metrics: so often at most, and never more than this share of the time.
FACTS_INTERVAL = 10.0
FACTS_SHARE = 0.05
# What an engine is asked for: a record that nobody has.
NOTHING = ("client", bytes(16))


class Watch:
    """What is known of a store and its engine. engine: makes one, None where the store has its records itself.
    fallback: the local table stands in for the engine."""

    def __init__(self, path: str, engine: Callable[[], Engine] | None = None, fallback: bool = False):
        self.path = path
        self.fallback = fallback
        self._make_engine = engine
        self._engine: Engine | None = None
        self._looked: float | None = None
        self._store_fault: str | None = None
        self._engine_fault: str | None = None
        self._facts: dict[str, Any] | None = None
        self._facts_at = 0.0
        self._facts_due = 0.0
        # Records that the engine lacks, by the journal of this machine; None where there is none.
        self.backlog: int | None = None

    def start(self) -> None:
        """Look from now on, for as long as this process runs."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def ready(self) -> tuple[bool, str]:
        """Whether decisions can be made, and why in one line."""
        if self._looked is None:
            return False, "the store was not looked at yet"
        age = time.monotonic() - self._looked
        if age > STALE:
            return False, f"a look at the store {self.path} and its engine takes {age:.0f} seconds by now"
        if self._store_fault is not None:
            return False, self._store_fault
        if self._engine_fault is None:
            return True, "ready"
        if self.fallback:
            return True, f"ready, on the local table: {self._engine_fault}"
        return False, self._engine_fault

    @property
    def facts(self) -> tuple[dict[str, Any] | None, float]:
        """What statistics.collect gave last, and how many seconds ago; None where it gave nothing yet."""
        return self._facts, time.monotonic() - self._facts_at

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while True:
                self._store_fault = self._look_at_store()
                self._engine_fault = runner.run(self._look_at_engine())
                self._looked = time.monotonic()
                if self._store_fault is None and self._looked >= self._facts_due:
                    self._collect()
                time.sleep(INTERVAL)

    def _look_at_store(self) -> str | None:
        try:
            with directory.open_store(self.path) as store:
                store.head()
        except (FastgreyError, OSError) as error:
            return str(error)
        return None

    async def _look_at_engine(self) -> str | None:
        if self._make_engine is None:
            return None
        try:
            if self._engine is None:
                engine = self._make_engine()
                await engine.open()
                self._engine = engine
            await self._engine.fetch([NOTHING])
        except FastgreyError as error:
            await self._give_up()
            return str(error)
        return None

    async def _give_up(self) -> None:
        """Begin anew the next time: whatever a connection was left in, it is not gone on from."""
        engine, self._engine = self._engine, None
        if engine is not None:
            try:
                await engine.close()
            except FastgreyError:
                pass

    def _collect(self) -> None:
        began = time.monotonic()
        try:
            self._facts = statistics.collect(self.path)
            self._facts_at = time.monotonic()
            self.backlog = self._owed()
        except (FastgreyError, OSError) as error:
            self._store_fault = str(error)
        except sqlite3.Error:
            # Whoever writes it says what is wrong with it.
            self.backlog = None
        took = time.monotonic() - began
        self._facts_due = began + max(FACTS_INTERVAL, took / FACTS_SHARE)

    def _owed(self) -> int | None:
        journal = Journal(self.path)
        if self._make_engine is None or not journal.path.is_dir():
            return None
        journal.open()
        try:
            return journal.numbers()[0]
        finally:
            journal.close()
