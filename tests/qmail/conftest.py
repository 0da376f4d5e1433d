"""A mail server as qmail is one: tcpserver, the unprivileged user, smtpd.c with contrib/qmail/checkenv.c, the store."""

import contextlib
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import HOOK
from fastgrey.shipped import shipped
from machine import public_place
from smtp import Session
from tcpserver import GROUP, TcpServer

SMTPD = Path(__file__).with_name("smtpd.c")
STRICT = ("-O2", "-g", "-Wall", "-Wextra", "-Werror")


class Message(NamedTuple):
    """A message that the server took, with its envelope."""

    sender: str
    recipients: list[str]
    text: str


class MailServer(TcpServer):
    """A tcpserver with smtpd in it: what its sessions logged and what they took."""

    def __init__(self, program, home, environment, stderr=None, **options):
        self.home = home
        self._spool = home / "spool"
        self._log = home / f"log{len(list(home.glob('log*')))}"
        self._sessions = []
        with open(self._log, "wb") as errors:
            super().__init__(program, home, environment | {"SPOOL": str(self._spool)}, stderr or errors, **options)

    def session(self, source=None):
        """A raw client, closed at the end of the test."""
        self._sessions.append(Session(self, source))
        return self._sessions[-1]

    def hang_up(self):
        """Close all clients."""
        for session in self._sessions:
            session.close()

    def log(self):
        """The lines that were logged. A checker writes its own before the client has its reply."""
        return self._log.read_bytes().decode("ascii").split("\n")[:-1]

    def verdicts(self):
        """The action and reason of each line of the log, in order; every line must be the hook's."""
        assert all(line.startswith("fastgrey: ") for line in self.log()), self.log()
        return [" ".join(line.split()[1:3]) for line in self.log()]

    def messages(self):
        """The messages taken, in the order of their names; there may be nothing else in the spool."""
        found = []
        for file in sorted(self._spool.iterdir()):
            assert not file.name.startswith("."), file
            envelope, _, text = file.read_bytes().decode("latin-1").partition("\0\0")
            sender, *recipients = envelope.split("\0")
            assert [field[0] for field in (sender, *recipients)] == ["F", *"T" * len(recipients)]
            found.append(Message(sender[1:], [recipient[1:] for recipient in recipients], text))
        return found

    def envelopes(self):
        """Who gets what: the messages taken, counted by sender and recipients."""
        return Counter((message.sender, *message.recipients) for message in self.messages())


@contextlib.contextmanager
def compiled(*options):
    """Make the server, with the very checkenv.c that goes into qmail."""
    checkenv = shipped("qmail/checkenv.c")
    with public_place() as place:
        program = place / "smtpd"
        subprocess.run(["gcc", *STRICT, *options, "-I", checkenv.parent, SMTPD, checkenv, "-o", program], check=True)
        yield program


@pytest.fixture(scope="session")
def smtpd():
    """The program that speaks SMTP."""
    with compiled() as program:
        yield program


@pytest.fixture(scope="session")
def hasty_smtpd():
    """The same, with little patience for a client that says nothing."""
    with compiled("-DTIMEOUT_MS=200") as program:
        yield program


@pytest.fixture(scope="session")
def careful_smtpd():
    """The same, but it ends with a word where it reads or writes what it must not."""
    with compiled("-fsanitize=address,undefined", "-fno-sanitize-recover=all") as program:
        yield program


@pytest.fixture
def path(place):
    """Where a test makes its store."""
    return place / "store"


@pytest.fixture
def store_group():
    """The group of a store that the sessions can use; None where they are of this very user."""
    return GROUP if os.geteuid() == 0 else None


@pytest.fixture
def home(place):
    """What stands for /var/qmail: the checker in bin, a spool for everybody."""
    home = place / "qmail"
    (home / "bin").mkdir(parents=True)
    (home / "spool").mkdir()
    (home / "spool").chmod(0o777)
    shutil.copy(HOOK, home / "bin")
    return home


@pytest.fixture
def checker(home):
    """Put a shell script where checkers are; gives its path."""

    def write(script, name="checker", mode=0o755):
        file = home / "bin" / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(mode)
        return file

    return write


@pytest.fixture
def serve(home, smtpd, path):
    """Start a mail server; variables of its environment by name, None for without. At the end nothing may be left."""
    servers = []

    def start(program=smtpd, address="127.0.0.1", rules=None, limit=40, stderr=None, **variables):
        variables = {"PATH": os.environ["PATH"], "FASTGREY_STORE": path, "CHECKENV": ""} | variables
        environment = {name: str(value) for name, value in variables.items() if value is not None}
        servers.append(MailServer(program, home, environment, stderr, address=address, rules=rules, limit=limit))
        return servers[-1]

    yield start
    for server in servers:
        server.hang_up()
    assert [server.end() for server in servers] == [[] for _ in servers]
