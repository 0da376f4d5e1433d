"""What the processes of a server count: a page of memory that they share, made before the fork, with a row for each.

A row has one writer, so nobody waits for anybody. Whoever reads sees numbers that may be a moment old, never half of
one: they are words of eight bytes. A process that takes the place of another counts on where that one ended.
"""

import mmap
import os
import time
from bisect import bisect_left
from collections.abc import Iterable

# How requests come, and what becomes of them.
KINDS = ("postfix", "hook", "plain", "indimail")
RESULTS = ("accept", "defer", "reject", "skip")
# Who had the records of a decision; error: nobody, and on_error decided.
SOURCES = ("engine", "local", "error")
# Upper bounds of the histogram of how long decisions take, in seconds; one bucket more is for what is above them.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# Cells of a row. Those before CONNECTIONS are of the process, and begin anew with the next one.
PID, BEAT, OPEN, BACKLOG, QUEUE, CONNECTIONS, REFUSED, BROKEN, TIMEOUTS, ENGINE_ERRORS, RESTARTS, SECONDS = range(12)
_NEXT = 12
REQUESTS = {pair: _NEXT + i for i, pair in enumerate((kind, result) for kind in KINDS for result in RESULTS)}
DECISIONS = {source: _NEXT + len(REQUESTS) + i for i, source in enumerate(SOURCES)}
BUCKETS = _NEXT + len(REQUESTS) + len(DECISIONS)
# A row fills whole lines of the processor's cache, of eight words.
ROW = -(-(BUCKETS + len(BOUNDS) + 1) // 8) * 8
WORD = 8
NANOSECONDS = 1_000_000_000


class Row:
    """The cells of one process. SECONDS is in nanoseconds, BEAT in those of the clock that never steps."""

    __slots__ = ("cells",)

    def __init__(self, cells: memoryview):
        self.cells = cells

    def begin(self) -> None:
        """This process has the row from now on."""
        self.end()
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

    def decided(self, source: str, seconds: float) -> None:
        """A decision on the records of one of SOURCES, and how long it took."""
        self.cells[DECISIONS[source]] += 1
        self.cells[SECONDS] += max(0, int(seconds * NANOSECONDS))
        self.cells[BUCKETS + bisect_left(BOUNDS, seconds)] += 1

    def silence(self) -> float | None:
        """Seconds since the process last got round to what it has to do; None where there is no process."""
        if not self.cells[PID]:
            return None
        return max(0, time.monotonic_ns() - int(self.cells[BEAT])) / NANOSECONDS


class Board:
    """The page: the row of the master, and one for each worker. Made by the master before it forks."""

    def __init__(self, workers: int):
        words = memoryview(mmap.mmap(-1, (workers + 1) * ROW * WORD)).cast("Q")
        rows = [Row(words[start:start + ROW]) for start in range(0, len(words), ROW)]
        self.master = rows[0]
        self.workers = rows[1:]

    def total(self, cell: int) -> int:
        """The sum of a cell over all rows."""
        return sum(int(row.cells[cell]) for row in self._rows())

    def running(self) -> int:
        """Workers that are there."""
        return sum(row.cells[PID] != 0 for row in self.workers)

    def silent(self, patience: float) -> str | None:
        """In a few words which process is not there, or did not get round to anything for so many seconds."""
        for name, row in zip(["the master", *(f"worker {i}" for i in range(1, len(self.workers) + 1))], self._rows(),
                             strict=True):
            silence = row.silence()
            if silence is None:
                return f"{name} does not run"
            if silence > patience:
                return f"{name} did nothing for {silence:.0f} seconds"
        return None

    def _rows(self) -> Iterable[Row]:
        return [self.master, *self.workers]
