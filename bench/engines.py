"""Engines that hold records for several machines: a real server of each, decisions on it, and the least that the same
client can ask of it.
"""

import asyncio
import contextlib
import itertools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from valkey.asyncio.connection import Connection

from fastgrey._core import Store
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.open import NAME, engine_from_url
from fastgrey.shared.valkey_link import Link
from peers.questions import Request, known, new
from postgresql import KNOWN, Bare, crowd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from shared import postgres_server, redis_server  # noqa: E402

# Nothing here is about being late.
TIMEOUT = 60.0


class BareValkey:
    """Keys and records, asked one at a time over the connection that the engine shares as well."""

    def __init__(self) -> None:
        self._keys = [os.urandom(17) for _ in range(KNOWN)]

    async def open(self, url: str) -> None:
        host, _, port = url.rpartition("/")[2].partition(":")
        connection = Connection(host=host, port=int(port), socket_timeout=None)
        await connection.connect()
        self._link = Link(connection, TIMEOUT)
        for key in self._keys:
            await self._set(key)

    async def close(self) -> None:
        await self._link.close()

    async def _set(self, key: bytes) -> None:
        assert await self._link.ask(b"SET", key, bytes(8), b"EX", 172_800) == b"OK"

    async def get(self, number: int) -> None:
        assert await self._link.ask(b"GET", self._keys[number % KNOWN]) is not None

    async def get_and_set(self, number: int) -> None:
        key = os.urandom(17)
        assert await self._link.ask(b"GET", key) is None
        await self._set(key)


class Kind(NamedTuple):
    """An engine that can be measured."""

    name: str
    # Its server, running, with a url; what it is started with makes it keep what it is told as it would in earnest.
    server: Callable[[], AbstractContextManager[Any]]
    bare: type[Bare] | type[BareValkey]
    here: Callable[[], bool]
    # Which package it is in, and what is not comparable.
    package: str
    note: str


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
