"""What a decision costs on records in PostgreSQL, beside the least that one could ask the same server through the same
client and in the same way: one prepared SELECT of a row, and for a stranger an INSERT after it.

The server is a real one of its own, with its flushes; of strangers and of the bare INSERT they are not waited for. All
in one process, with as many connections as a worker of the policy server keeps.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import figures
from figures import Count, Results

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import psycopg
from psycopg.pq import Format
from shared import postgres_server

from fastgrey import replay, settings
from fastgrey.shared.engine import Write
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.postgresql import BYTEA, CONNECTIONS, INT8, Postgresql
from fastgrey.shared.postgresql_lanes import execute, prepare

SECTIONS = ("postgresql", "postgresql sizes")
CALLERS = (1, 8, 32)
KNOWN = 1000
GET = "SELECT record FROM bare WHERE key = $1"
SET = "INSERT INTO bare VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET record = excluded.record"
Asking = Callable[[int], Awaitable[object]]


class Extent:
    """How much is measured."""

    def __init__(self, profile: str) -> None:
        self.rounds = {"smoke": 3, "quick": 5, "full": 15}[profile]
        self.each = {"smoke": 50, "quick": 1000, "full": 5000}[profile]
        self.records = {"smoke": 1000, "quick": 100_000, "full": 1_000_000}[profile]


class Bare:
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
    """Checks of known senders and of strangers."""

    def __init__(self, greylist: Greylist) -> None:
        self._greylist = greylist
        self._now = int(time.time())
        self._strangers = 0

    def _request(self, kind: str, number: int, **more: int) -> dict[str, Any]:
        return {"client": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
                "sender": f"someone@{kind}{number}.example", "recipient": "user@example.net", "now": self._now, **more}

    async def learn(self) -> None:
        """Let there be known senders."""
        async def twice(number: int) -> None:
            await self._greylist.check(**self._request("known", number, now=self._now - 600))
            verdict = await self._greylist.check(**self._request("known", number))
            assert verdict.reason == "retry", verdict

        await crowd(twice, max(CALLERS), KNOWN)

    async def known(self, number: int) -> None:
        verdict = await self._greylist.check(**self._request("known", number % KNOWN))
        assert verdict.reason == "known-domain", verdict

    async def new(self, _: int) -> None:
        self._strangers += 1
        verdict = await self._greylist.check(**self._request("new", self._strangers))
        assert verdict.reason == "new", verdict


def rates(results: Results, extent: Extent, runner: asyncio.Runner, bare: Bare, decisions: Decisions) -> None:
    """Decisions beside bare statements."""
    runner.run(decisions.learn())
    for callers in CALLERS:
        for name, subject, baseline, base in (
                ("known sender", decisions.known, "a bare SELECT", bare.get),
                ("stranger", decisions.new, "a bare SELECT and a bare INSERT", bare.get_and_set)):
            def timed(asking: Asking, callers: int = callers) -> Callable[[], float]:
                return lambda: runner.run(crowd(asking, callers, extent.each))

            results.add(*figures.in_turn(
                {f"{name}, {callers} at once": timed(subject), f"{baseline}, {callers} at once": timed(base)},
                f"{baseline}, {callers} at once", extent.rounds, "postgresql", extent.each))


def sizes(results: Results, extent: Extent, url: str, schema: str) -> None:
    """Bytes a record on disk, with its part of the index."""
    with psycopg.connect(url, autocommit=True) as connection:
        partition = connection.execute(f"SELECT name FROM {schema}.partitions() ORDER BY ends DESC LIMIT 1").fetchone()
        assert partition is not None
        for kind, table, letter in (("known", "known", "63"), ("strangers", partition[0], "77")):
            connection.execute(f"TRUNCATE {schema}.{table}")
            connection.execute(
                f"INSERT INTO {schema}.{table} SELECT 1764000000, "
                + ("now()" if kind == "known" else f"to_timestamp((SELECT max(starts) FROM {schema}.partitions()))")
                + f", decode('{letter}' || md5(i::text), 'hex') FROM generate_series(1, {extent.records}) i")
            heap, index = connection.execute(  # type: ignore[misc]
                f"SELECT pg_table_size('{schema}.{table}'), pg_indexes_size('{schema}.{table}')").fetchone()
            results.add(Count("postgresql sizes", f"bytes a record of {kind}",
                              {"table": round(heap / extent.records, 1), "index": round(index / extent.records, 1)}))


async def opened(url: str) -> tuple[Postgresql, Bare]:
    engine, bare = Postgresql(url, timeout=60), Bare()
    await engine.open()
    await bare.open(url)
    return engine, bare


async def closed(engine: Postgresql, bare: Bare) -> None:
    await engine.close()
    await bare.close()


def main() -> None:
    """Measure."""
    arguments = figures.parser(__doc__).parse_args()
    results = Results(arguments, SECTIONS)
    extent = Extent(arguments.profile)
    with postgres_server.directory() as place:
        server = postgres_server.Server(place)
        try:
            server.make()
            server.set(fsync="on")
            server.start()
            with asyncio.Runner() as runner, replay.replay_store(None, settings.defaults()) as store:
                engine, bare = runner.run(opened(server.url))
                try:
                    if results.wants("postgresql"):
                        rates(results, extent, runner, bare, Decisions(Greylist(store, engine)))
                    if results.wants("postgresql sizes"):
                        # A stranger first, for which the partition is made.
                        runner.run(engine.swap([("waiting", bytes(16))], [Write(0, 0, 1, 172860)]))
                        sizes(results, extent, server.url, engine.schema)
                finally:
                    runner.run(closed(engine, bare))
        finally:
            server.end()
    results.write()


if __name__ == "__main__":
    main()
