"""What the processes of a server count: a page of memory that they share, made before the fork, with a row for each.

A row has one writer, so nobody waits for anybody. Whoever reads sees numbers that may be a moment old, never half of
one: they are words of eight bytes. A process that takes the place of another counts on where that one ended.
"""

import mmap
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastgrey._core import TOOK_BOUNDS

# How requests come: Postfix's protocol, a hook's exchange (as which IndiMail's datagrams are asked too), the plain line.
# What becomes of them.
KINDS = ("postfix", "hook", "plain")
RESULTS = ("accept", "defer", "reject", "skip")
# Who had the records of a decision; error: nobody, and on_error decided.
SOURCES = ("engine", "local", "error")
NANOSECONDS = 1_000_000_000
# Upper bounds of the histogram of how long decisions take, in seconds.
BOUNDS = tuple(bound / NANOSECONDS for bound in TOOK_BOUNDS)

# Cells of a row. Those before CONNECTIONS are of the process, and begin anew with the next one.
PID, BEAT, OPEN, QUEUE, ACCEPTING, CONNECTIONS, FULL, BROKEN, TIMEOUTS, ENGINE_ERRORS, RESTARTS, TOOK = range(12)
_NEXT = 12
REQUESTS = {pair: _NEXT + i for i, pair in enumerate((kind, result) for kind in KINDS for result in RESULTS)}
DECISIONS = {source: _NEXT + len(REQUESTS) + i for i, source in enumerate(SOURCES)}
BUCKETS = _NEXT + len(REQUESTS) + len(DECISIONS)
CELLS = BUCKETS + len(BOUNDS) + 1
# Of the master: workers that shall run, and rows that were ever used.
WANTED, USED = CELLS, CELLS + 1
# A row fills whole lines of the processor's cache, of eight words.
ROW = -(-(USED + 1) // 8) * 8
WORD = 8
# Workers that run and what keeps an engine, and as many that a reload replaces.
ROWS = 2 * 257


class Row:
    """The cells of one process. TOOK is in nanoseconds, BEAT in those of the clock that never steps."""

    __slots__ = ("base", "cells")

    def __init__(self, cells: memoryview):
        self.cells = cells
        self.base: Sequence[int] = ()

    def begin(self) -> None:
        """This process has the row from now on."""
        self.end()
        self.base = self.cells.tolist()
        self.cells[PID] = os.getpid()
        self.beat()

    def end(self) -> None:
        """Nobody has the row. Called by whoever saw the process end."""
        for cell in range(CONNECTIONS):
            self.cells[cell] = 0

    def beat(self) -> None:
        """This process gets round to what it has to do. Called every second."""
        self.cells[BEAT] = time.monotonic_ns()

    def add(self, cell: int, number: int = 1) -> None:
        """Count."""
        self.cells[cell] += number

    def set(self, cell: int, number: int) -> None:
        """Say how many there are."""
        self.cells[cell] = number

    def reach(self, cell: int, number: int) -> None:
        """Say how many this process counted."""
        self.cells[cell] = self.base[cell] + number

    def tallied(self, tally: Mapping[str, Any], alone: int | None) -> None:
        """What Connections.tally gave. alone: decisions without the engine, None where there is none."""
        for pair, number in tally["requests"].items():
            self.reach(REQUESTS[pair], number)
        for cell, number in ((BROKEN, tally["broken"]), (TIMEOUTS, tally["timeouts"]), (TOOK, tally["took_sum"]),
                             *enumerate(tally["took"], BUCKETS)):
            self.reach(cell, number)
        made, failed = sum(tally["took"]), tally["failed"]
        local = made - failed if alone is None else min(alone, made - failed)
        for source, number in (("error", failed), ("local", local), ("engine", made - failed - local)):
            self.reach(DECISIONS[source], number)

    def silence(self) -> float:
        """Seconds since the process last got round to what it has to do."""
        return max(0, time.monotonic_ns() - int(self.cells[BEAT])) / NANOSECONDS


def unseen() -> Row:
    """A row of nobody who answers mail: it is not counted among the workers."""
    return Row(memoryview(bytearray(ROW * WORD)).cast("Q"))


class Board:
    """The page: the row of the master, and one for each worker. Made by the master before it forks."""

    def __init__(self) -> None:
        words = memoryview(mmap.mmap(-1, (ROWS + 1) * ROW * WORD)).cast("Q")
        self.master, *self.workers = (Row(words[start:start + ROW]) for start in range(0, len(words), ROW))

    def claim(self) -> Row:
        """A row that nobody has, for a worker that the master is about to fork; where reloads came so fast that all are
        had, one that nobody sees."""
        place, row = next(((place, row) for place, row in enumerate(self.workers, 1) if not row.cells[PID]),
                          (0, unseen()))
        row.begin()
        self.master.set(USED, max(place, int(self.master.cells[USED])))
        return row

    def total(self, cell: int) -> int:
        """The sum of a cell over all rows."""
        return int(self.master.cells[cell]) + sum(int(row.cells[cell]) for row in self.used())

    def running(self) -> int:
        """Workers that are there."""
        return sum(row.cells[PID] != 0 for row in self.used())

    def silent(self, patience: float) -> str | None:
        """In a few words what does not run, or did not get round to anything for so many seconds; None where all do."""
        running, wanted = self.running(), int(self.master.cells[WANTED])
        if running < wanted:
            return f"{running} of {wanted} workers run"
        for row in (self.master, *self.used()):
            if row.cells[PID] and row.silence() > patience:
                name = "the master" if row is self.master else f"worker {row.cells[PID]}"
                return f"{name} did nothing for {row.silence():.0f} seconds"
        return None

    def used(self) -> list[Row]:
        return self.workers[:int(self.master.cells[USED])]
