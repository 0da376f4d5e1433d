"""A connection to PostgreSQL and the queue before it: what is asked while a statement runs goes into the next one, all
of it together. So a busy server sends fewer and larger statements, and waits for one flush where many wrote."""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import errors, generators
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

from fastgrey.errors import EngineError

from .postgresql_faults import lost

Connection = psycopg.AsyncConnection[Any]
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

# Seconds between two attempts to connect: the first, and the longest after it failed again and again.
PAUSE, PAUSE_MAX = 0.05, 1.0


class Work(Generic[Asked, Answer]):
    """One thing asked, and the future that its caller waits for."""

    __slots__ = ("again", "answer", "asked", "keys")

    def __init__(self, asked: Asked, keys: frozenset[bytes], answer: asyncio.Future[Answer]):
        self.asked = asked
        # What it writes: no statement has two that write the same.
        self.keys = keys
        self.answer = answer
        # Whether it was sent over a connection that was lost.
        self.again = False


class Lane(Generic[Asked, Answer]):
    """One connection, kept open, over which one kind of statement goes."""

    def __init__(self, name: str, connect: Callable[[], Awaitable[Connection]],
                 run: Callable[[Connection, Sequence[Asked]], Awaitable[Sequence[Answer]]],
                 explain: Callable[[psycopg.Error], str], most: int, timeout: float):
        """run: answers of as many things asked, most of them at a time; explain: an error as one line; timeout: seconds
        within which a caller has an answer or an EngineError."""
        self.name = name
        self._connect = connect
        self._run = run
        self._explain = explain
        self._most = most
        self._timeout = timeout
        self._queue: deque[Work[Asked, Answer]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._busy = False
        # Why there is no connection, once it is known.
        self._trouble: str | None = f"{name}: not open; call open() first"

    async def start(self) -> None:
        """Connect, and begin to answer. EngineError."""
        self._connection = await self._connect()
        self._trouble = None
        self._task = asyncio.get_running_loop().create_task(self._answer_all())

    async def stop(self) -> None:
        """Disconnect; what is still asked ends with EngineError."""
        task, self._task = self._task, None
        self._trouble = f"{self.name}: closed"
        if task is None:
            return
        if self._busy and self._connection is not None:
            # A cancelled statement would be waited for.
            hang_up(self._connection)
        else:
            task.cancel()
        self._wake.set()
        await asyncio.wait([task])
        self._fail(self._trouble)

    async def ask(self, asked: Asked, keys: frozenset[bytes] = frozenset()) -> Answer:
        """The answer, or EngineError."""
        if self._trouble is not None:
            raise EngineError(self._trouble)
        work: Work[Asked, Answer] = Work(asked, keys, asyncio.get_running_loop().create_future())
        self._queue.append(work)
        self._wake.set()
        try:
            async with asyncio.timeout(self._timeout):
                return await work.answer
        except TimeoutError:
            raise EngineError(f"{self.name}: no answer within {self._timeout:g} seconds; see whether the server is "
                              "reachable, and what holds locks there: select * from pg_stat_activity") from None

    async def _answer_all(self) -> None:
        try:
            while self._task is not None:
                if self._connection is None:
                    self._connection = await self._connected()
                try:
                    await self._answer_over(self._connection)
                finally:
                    connection, self._connection = self._connection, None
                    await connection.close()
        except BaseException:
            # Nobody answers any more.
            self._trouble = self._trouble or f"{self.name}: closed"
            self._fail(self._trouble)
            raise

    async def _connected(self) -> Connection:
        """A new connection, tried for until there is one. While there is none, whoever asks is told why at once."""
        pause = PAUSE
        while True:
            try:
                connection = await self._connect()
            except EngineError as error:
                self._trouble = str(error)
                self._fail(self._trouble)
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX)
            else:
                self._trouble = None
                return connection

    async def _answer_over(self, connection: Connection) -> None:
        """Answer until the connection is lost."""
        while self._task is not None:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
            if (taken := self._take()) and not await self._answer(connection, taken):
                return

    def _take(self) -> list[Work[Asked, Answer]]:
        """What goes into the next statement, in the order in which it was asked."""
        taken: list[Work[Asked, Answer]] = []
        keys: set[bytes] = set()
        while self._queue and len(taken) < self._most:
            work = self._queue[0]
            if not work.answer.done():
                if not keys.isdisjoint(work.keys):
                    break
                keys |= work.keys
                taken.append(work)
            self._queue.popleft()
        return taken

    async def _answer(self, connection: Connection, taken: list[Work[Asked, Answer]]) -> bool:
        """Whether the connection can be used further."""
        guard = asyncio.get_running_loop().call_later(2 * self._timeout, hang_up, connection)
        self._busy = True
        try:
            answers = await self._run(connection, [work.asked for work in taken])
        except psycopg.Error as error:
            if not lost(error, connection.broken or connection.closed):
                self._fail_all(taken, self._explain(error))
                return True
            # A connection that was idle may have been lost long ago: that is no reason to let anybody down.
            self._fail_all([work for work in taken if work.again], self._explain(error))
            for work in reversed(taken):
                work.again = True
                if not work.answer.done():
                    self._queue.appendleft(work)
            return False
        except Exception as error:
            # A mistake of ours: whoever asked has it, and the state of the connection is anybody's guess.
            for work in taken:
                if not work.answer.done():
                    work.answer.set_exception(error)
            return False
        finally:
            self._busy = False
            guard.cancel()
        for work, answer in zip(taken, answers, strict=True):
            if not work.answer.done():
                work.answer.set_result(answer)
        return True

    def _fail(self, why: str) -> None:
        self._fail_all(list(self._queue), why)
        self._queue.clear()

    @staticmethod
    def _fail_all(works: list[Work[Asked, Answer]], why: str) -> None:
        for work in works:
            if not work.answer.done():
                work.answer.set_exception(EngineError(why))


async def prepare(connection: Connection, name: bytes, statement: str, types: Sequence[int]) -> None:
    """Prepare a statement for execute. types: of its values, numbers of pg_type. psycopg.Error."""
    connection.pgconn.send_prepare(name, statement.encode(), types)
    await _result(connection)


async def execute(connection: Connection, name: bytes, values: Sequence[bytes], answer: Format) -> PGresult:
    """Run what was prepared under this name with these values, in the server's own form. psycopg.Error.

    A cursor would look at every value and every type in Python anew, which takes longer than the server does.
    """
    connection.pgconn.send_query_prepared(name, values, [Format.BINARY] * len(values), answer)
    return await _result(connection)


async def _result(connection: Connection) -> PGresult:
    results: list[PGresult] = await connection.wait(generators.execute(connection.pgconn))
    for result in results:
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise errors.error_from_result(result)
    return results[-1]


def hang_up(connection: Connection) -> None:
    """Let whatever waits for the server see the connection end, also where the server does not answer any more."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
