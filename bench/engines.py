"""Engines that hold records for several machines: a real server of each, decisions on it, and the least that the same
client can ask of it.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import Format
from valkey.asyncio import Valkey
from valkey.asyncio.connection import Connection

from fastgrey._core import Store
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.postgresql import BYTEA, CONNECTIONS, INT8
from fastgrey.shared.postgresql_lanes import execute, prepare
from fastgrey.shared.valkey_link import Link
from peers.questions import Questions, Request, known

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from shared import postgres_server, redis_server  # noqa: E402

# Nothing here is about being late.
TIMEOUT = 60.0
# Of the engine.
SPACE = "bench"
# Triplets that are made known at once.
CROWD = 32
# Records that are read.
KNOWN = 1000
GET = "SELECT record FROM bare WHERE key = $1"
SET = "INSERT INTO bare VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET record = excluded.record"
Asking = Callable[[int], Awaitable[object]]


class BareValkey:
    """Keys and records, asked a record at a time by the client as it comes, which takes a connection of its
    pool for each that asks."""

    def __init__(self) -> None:
        self._keys = [os.urandom(17) for _ in range(KNOWN)]

    async def open(self, url: str) -> None:
        """Connect, and make what is read."""
        await self._connect(url)
        for key in self._keys:
            await self._set(key)

    async def _connect(self, url: str) -> None:
        self._client = Valkey.from_url(url.replace("redis://", "valkey://"))

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def _get(self, key: bytes) -> object:
        return await self._client.get(key)

    async def _set(self, key: bytes) -> None:
        assert await self._client.set(key, bytes(8), ex=172_800)

    async def get(self, number: int) -> None:
        """A record that is there."""
        assert await self._get(self._keys[number % KNOWN]) is not None

    async def get_and_set(self, number: int) -> None:
        """A record that is not there, and then is."""
        key = os.urandom(17)
        assert await self._get(key) is None
        await self._set(key)


class TogetherValkey(BareValkey):
    """The same over one connection, on which what is asked at the same time goes out together, as the engine has it."""

    async def _connect(self, url: str) -> None:
        host, _, port = url.rpartition("/")[2].partition(":")
        connection = Connection(host=host, port=int(port), socket_timeout=None)
        await connection.connect()
        self._link = Link(connection, TIMEOUT)

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()

    async def _get(self, key: bytes) -> object:
        return await self._link.ask(b"GET", key)

    async def _set(self, key: bytes) -> None:
        assert await self._link.ask(b"SET", key, bytes(8), b"EX", 172_800) == b"OK"


class BarePostgresql:
    """A table of keys and records, asked a row at a time over a few connections."""

    def __init__(self) -> None:
        self._free: asyncio.LifoQueue[psycopg.AsyncConnection[Any]] = asyncio.LifoQueue()
        self._all: list[psycopg.AsyncConnection[Any]] = []
        self._keys = [os.urandom(17) for _ in range(KNOWN)]

    async def open(self, url: str) -> None:
        for _ in range(CONNECTIONS):
            connection = await psycopg.AsyncConnection.connect(url, autocommit=True,
                                                               options="-c synchronous_commit=off")
            if not self._all:
                await connection.execute("CREATE TABLE bare (key bytea PRIMARY KEY, record bigint NOT NULL)")
            self._all.append(connection)
            await prepare(connection, b"get", GET, [BYTEA])
            await prepare(connection, b"set", SET, [BYTEA, INT8])
            self._free.put_nowait(connection)
        for key in self._keys:
            await self._run(b"set", key, bytes(8))
        await connection.execute("ANALYZE bare")

    async def close(self) -> None:
        for connection in self._all:
            await connection.close()

    async def _run(self, name: bytes, *values: bytes) -> int:
        """Rows found."""
        connection = await self._free.get()
        try:
            return (await execute(connection, name, values, Format.BINARY)).ntuples
        finally:
            self._free.put_nowait(connection)

    async def get(self, number: int) -> None:
        assert await self._run(b"get", self._keys[number % KNOWN])

    async def get_and_set(self, number: int) -> None:
        key = os.urandom(17)
        assert not await self._run(b"get", key)
        await self._run(b"set", key, number.to_bytes(8, "big"))


class Kind(NamedTuple):
    """An engine that can be measured."""

    name: str
    # Its server, which runs and has a url.
    server: Callable[[], AbstractContextManager[Any]]
    # By name; the first is the baseline.
    bares: dict[str, Callable[[], BarePostgresql | BareValkey]]
    # Where its programs are looked for, and how Debian calls the package.
    programs: Callable[[], object]
    package: str
    # What is not comparable.
    note: str

    def missing(self) -> str:
        """What keeps it from being measured here; empty where nothing does."""
        return "" if self.programs() else f"not installed: {self.package}"


@contextlib.contextmanager
def _postgresql() -> Iterator[postgres_server.Server]:
    with postgres_server.directory() as place:
        server = postgres_server.Server(place)
        try:
            server.make()
            server.set(fsync="on")
            yield server.start()
        finally:
            server.end()


KINDS = (
    Kind("Valkey", lambda: redis_server.server(appendonly="yes"),
         {"bare": BareValkey, "bare, asked together": TogetherValkey},
         lambda: any(map(shutil.which, redis_server.PROGRAMS)), "redis-server",
         "a server with a log that is flushed once a second; a bare read is GET and a bare write SET, of one record, "
         "where a decision reads up to nine in one MGET, and compares and writes what a stranger leaves in one script; "
         "the client takes a connection of its pool for each that asks, the engine sends what is asked at the same time "
         "together over one, and so does the second bare one"),
    Kind("PostgreSQL", _postgresql, {"bare": BarePostgresql},
         lambda: list(Path("/").glob(postgres_server.PROGRAMS[1:])), "postgresql",
         "a server that flushes what was earned at once, and strangers and the bare writes later; a bare read is a "
         "prepared SELECT of one row by its key and a bare write an INSERT of one, over as many connections as the "
         "engine has, which puts what is asked at the same time into one statement"),
)


async def crowd(asking: Asking, callers: int, each: int) -> float:
    """Seconds for so many, by so many callers, each of which asks when it has its answer."""
    numbers = iter(range(each))

    async def caller() -> None:
        for number in numbers:
            await asking(number)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - started


class Decisions:
    """Checks of known senders and of strangers by a Greylist, in this process; every verdict is checked."""

    def __init__(self, store: Store, engine: Any, questions: Questions) -> None:
        self._greylist = Greylist(store, engine)
        self._questions = questions

    async def introduce(self, entries: int) -> None:
        """Make so many triplets known, as strangers that came again in time have left them."""
        start = int(time.time()) - 4000
        for now in (start, start + 400):
            await crowd(lambda number: self._greylist.check(**known(number)._asdict(), now=now), CROWD, entries)

    async def seconds(self, kind: str, callers: int, number: int) -> float:
        """Of so many questions of that kind, by so many callers at once."""
        lines = [line.split() for line in self._questions.lines(kind, number)]

        async def ask(place: int) -> None:
            due, *request = lines[place]
            verdict = await self._greylist.check(**Request(*request)._asdict())
            if verdict.action != due:
                raise SystemExit(f"bench: {due} was due: {verdict} for {request}")

        return await crowd(ask, callers, number)
