"""The engines that the conformance suite runs against, each a line of ENGINES."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from fastgrey.shared.embedded import Embedded
from fastgrey.shared.open import engine_from_url
from shared import postgres_server, redis_server

NUMBERS = itertools.count(1)
# Nothing here is about being late, and the machine may be busy.
TIMEOUT = 60.0


@contextmanager
def by_url(server: Callable) -> Iterator[Callable]:
    """Engines on a real server: one for a store (of a machine), in a name space of its own unless one is named."""
    with server() as running:
        def make(store, space=None):
            return engine_from_url(running.url, name=space or new_space(), timeout=TIMEOUT)

        make.url = running.url
        yield make


@contextmanager
def embedded() -> Iterator[Callable]:
    """The store's own table."""
    def make(store, space=None):
        return Embedded(store)

    make.url = None
    yield make


def new_space() -> str:
    """A name space that no other test uses."""
    return f"fastgrey_test_{next(NUMBERS)}"


ENGINES = {
    "valkey": partial(by_url, redis_server.server),
    "valkey by sentinel": partial(by_url, redis_server.watched),
    "valkey cluster": partial(by_url, redis_server.cluster),
    "postgresql": partial(by_url, postgres_server.server),
    "embedded": embedded,
}
