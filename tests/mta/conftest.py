"""Real mail servers that ask a real policy server."""

import contextlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import FASTGREY
from exim import Exim
from mailing import free_port
from postfix import Postfix
from tcpserver import wait_until

# Where the documents have the server listen.
DOCUMENTED = "127.0.0.1:10045"


class Greylister:
    """A `fastgrey serve` on a store, at the addresses given."""

    def __init__(self, store, log, *listen):
        self._store = store
        self._log = log
        self._listen = listen
        self.start()

    def start(self):
        """Start it, again where it was stopped."""
        begun = self.log().count("serving")
        options = [option for address in self._listen for option in ("--listen", address)]
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen([FASTGREY, "serve", "--store", self._store, *options], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})
        wait_until(lambda: self.process.poll() is not None or self.log().count("serving") > begun)
        assert self.process.poll() is None, self.log()

    def stop(self):
        """End it as a supervisor does."""
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(timeout=60) == 0, self.log()

    def log(self):
        """What it said."""
        return self._log.read_text() if self._log.exists() else ""

    def verdicts(self):
        """Action and reason of each decision that it logged, in order."""
        return re.findall(r"^fastgrey: ((?:accept|defer|reject) [\w-]+)", self.log(), re.MULTILINE)


@pytest.fixture
def place():
    """A directory into which every user may look."""
    with tempfile.TemporaryDirectory(prefix="fastgrey-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture
def path(place):
    """Where a test makes its store."""
    return place / "store"


@pytest.fixture
def server(path, place, make_store):
    """Start a policy server on a new store with these settings, on a free port where listen names no address."""
    with contextlib.ExitStack() as ends:

        def start(*settings, listen=None):
            if not path.exists():
                make_store(*settings)
            for left in reversed(range(5)):
                address = listen or f"tcp:127.0.0.1:{free_port()}"
                try:
                    made = Greylister(path, place / f"serve{left}", address)
                    break
                except AssertionError:
                    # Somebody else was quicker to take the port.
                    if listen or not left:
                        raise
            made.at = address.partition(":")[2]
            ends.callback(made.stop)
            return made

        yield start


def _starting(kind, place):
    with contextlib.ExitStack() as ends:

        def start(snippet, server):
            assert DOCUMENTED in snippet
            home = place / kind.__name__
            home.mkdir(mode=0o755)
            made = kind(home, snippet.replace(DOCUMENTED, server.at))
            ends.callback(made.stop)
            return made

        yield start


@pytest.fixture
def postfix(place):
    """Start a Postfix with lines of main.cf, which name the server where the documents have it."""
    yield from _starting(Postfix, place)


@pytest.fixture
def exim(place):
    """Start an Exim with lines of an ACL, likewise."""
    yield from _starting(Exim, place)
