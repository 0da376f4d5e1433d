"""The engines, each started once."""

import asyncio
import contextlib

import pytest

from fastgrey import replay, settings
from shared.engines import ENGINES, new_space


@pytest.fixture(scope="session", params=ENGINES)
def make_engine(request):
    """Makes an engine, given a store and perhaps a name space; for each of the engines that there are."""
    with ENGINES[request.param]() as make:
        yield make


@pytest.fixture
def store():
    """An empty store with default settings."""
    with replay.replay_store(None, settings.defaults()) as store:
        yield store


@pytest.fixture
def space():
    """A name space of the test."""
    return new_space()


@contextlib.asynccontextmanager
async def opened(*engines):
    """These engines, open."""
    try:
        for engine in engines:
            await engine.open()
        yield engines
    finally:
        await asyncio.gather(*(engine.close() for engine in engines))
