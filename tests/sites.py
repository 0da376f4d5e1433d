"""A mail server that asks a policy server, both real."""

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
from typing import NamedTuple

import fastgrey
from chapters import snippet
from conftest import FASTGREY
from exim import Exim
from machine import public_place
from mailing import come_back
from ports import free_port
from postfix import Postfix
from serving import children
from tcpserver import wait_until

# Where the documents have the server listen, and how it is told that.
DOCUMENTED = "127.0.0.1:10045"
LISTENING = snippet("postfix.md", "fastgrey.toml").replace(DOCUMENTED, "127.0.0.1:PORT")


class Greylister:
    """A `fastgrey serve` in a folder, on the store there. at: where it listens, as mail servers name it."""

    def __init__(self, place, config, workers=1):
        (place / "serve.toml").write_text(f"{config}workers = {workers}\n")
        self._log = place / "serve.log"
        self._command = [FASTGREY, "serve", "--store", place / "store", "--config", place / "serve.toml"]
        (self.at,) = re.findall(r'^listen = \["\w+:([^"]*)"\]$', config, re.MULTILINE)
        self.start()

    def start(self):
        """Start it, again where it was stopped."""
        begun = self.log().count("fastgrey: serving ")
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            env={"PATH": os.environ["PATH"]})
        try:
            wait_until(lambda: self.process.poll() is not None or self.log().count("fastgrey: serving ") > begun)
            assert self.process.poll() is None, self.log()
        except BaseException:
            # Nobody has it yet who would end it.
            self.process.kill()
            self.process.wait()
            raise

    def stop(self):
        """End it as a supervisor does."""
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(timeout=60) == 0, self.log()

    def restart(self):
        """End it and start it again."""
        self.stop()
        self.start()

    def reload(self):
        """Have it read its configuration again; until the workers are new ones."""
        before = set(children(self.process.pid))
        self.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: (now := children(self.process.pid)) and not before & set(now)), self.log()
        assert self.process.poll() is None, self.log()

    def log(self):
        """What it said."""
        return self._log.read_text() if self._log.exists() else ""

    def verdicts(self, number, domain=""):
        """Action and reason of each decision that it logged on mail from a domain, in order, as soon as there are so
        many; all of them."""
        wait_until(lambda: len(self._decisions(domain)) >= number)
        found = [" ".join(decision) for decision in self._decisions(domain)]
        assert len(found) == number, self.log()
        return found

    def logs(self, pattern):
        """Whether a line like this comes into its log."""
        return wait_until(lambda: re.search(pattern, self.log(), re.MULTILINE)) is not None

    def _decisions(self, domain):
        line = rf"^fastgrey: (accept|defer|reject) ([\w-]+) .* sender=\S*{domain} "
        return re.findall(line, self.log(), re.MULTILINE)


@contextlib.contextmanager
def serving(place, config=LISTENING, **options):
    """A policy server with this [serve]; PORT in it is one that is free."""
    kind = socket.SOCK_DGRAM if "udp:" in config else socket.SOCK_STREAM
    for left in reversed(range(5)):
        try:
            made = Greylister(place, config.replace("PORT", str(free_port(kind))), **options)
            break
        except AssertionError:
            # Somebody else was quicker to take the port.
            if not left:
                raise
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def asking(kind, place, snippet, server):
    """A mail server, Postfix or Exim, with a snippet of the documents; the server, None for none, is where it listens
    in the place of the documented one."""
    if server is not None:
        assert DOCUMENTED in snippet
        snippet = snippet.replace(DOCUMENTED, server.at)
    home = place / kind.__name__
    home.mkdir(mode=0o755)
    made = kind(home, snippet)
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Site(NamedTuple):
    """A mail server, the policy server that it asks, and a sender domain that nobody else uses."""

    mx: Postfix | Exim
    greylister: Greylister
    domain: str

    def verdicts(self, number):
        """Those on mail from the domain, as Greylister.verdicts."""
        return self.greylister.verdicts(number, self.domain)

    def defers_and_takes(self, local, **options):
        """A sender of the domain with this local part waits, and is taken as a retry."""
        recipient = f"{self.domain}@example.net"
        assert come_back(self.mx, f"{local}@{self.domain}", recipient, **options)[0] == ["450"]
        (message,) = self.delivered(1)
        assert message.recipient == recipient
        assert self.greylister.logs(rf"^fastgrey: accept retry client=127.0.0.1 sender=\S+ recipient={recipient} ")

    def delivered(self, number):
        """The messages from the domain that were delivered, in order."""
        return self.mx.delivered(number, self.domain)


@contextlib.contextmanager
def common_site(kind, snippet):
    """What the tests of a module share where they differ in nothing but their mail; makes a Site of a name."""
    with public_place() as place:
        fastgrey.create(place / "store", fastgrey.settings.parse_assignments(
            ("delay=1s", "allow_client_after=0", "pool_hops=0")))
        with serving(place) as greylister, asking(kind, place, snippet, greylister) as mx:
            count = itertools.count()
            yield lambda: Site(mx, greylister, f"{'abcdefghijklmnopqrstuvwxyz'[next(count)]}.example")
