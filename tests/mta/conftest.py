"""Real mail servers that ask a real policy server."""

import contextlib

import pytest

from exim import Exim
from postfix import Postfix
from sites import asking, serving


@pytest.fixture
def path(place):
    """Where a test makes its store."""
    return place / "store"


@pytest.fixture
def server(path, place, make_store):
    """Start a policy server on the store of the test, made with these settings where there is none."""
    with contextlib.ExitStack() as ends:

        def start(*settings, **options):
            if not path.exists():
                make_store(*settings)
            return ends.enter_context(serving(place, **options))

        yield start


@pytest.fixture
def postfix(place):
    """Start a Postfix with lines of main.cf, which name the server where the documents have it."""
    with contextlib.ExitStack() as ends:
        yield lambda snippet, server: ends.enter_context(asking(Postfix, place, snippet, server))


@pytest.fixture
def exim(place):
    """Start an Exim with lines of an ACL, likewise."""
    with contextlib.ExitStack() as ends:
        yield lambda snippet, server: ends.enter_context(asking(Exim, place, snippet, server))
