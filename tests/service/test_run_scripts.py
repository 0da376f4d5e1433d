"""The run scripts of contrib/run as they are, under the real supervisors, with the real tcpserver and the real hook."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import HOOK
from fastgrey.shipped import CHECKOUT
from machine import needs_root, open_the_way
from ports import free_port
from serving import until
from supervisors import DAEMONTOOLS, RESTART, RUNIT, S6, SECONDS, Supervised, see_shipped

pytestmark = needs_root

SCRIPTS = CHECKOUT / "contrib" / "run"
USER = "nobody"
# Not the user's own.
GROUP = "daemon"
GROUP_NUMBER = 1
SECONDS = 60

# Greets with its process number, and at a line runs the hook as qmail-smtpd would: by exec, told by CHECKENV.
STUB = """#!/bin/sh
echo "220 $$"
read line
"$CHECKENV" a@example.org b@example.net
echo "status $?"
"""


@pytest.fixture(params=[DAEMONTOOLS, RUNIT, S6])
def service(request, tmp_path, make_store):
    """The service directory as it is shipped, with the values that are the test's own; start() runs it."""
    kind = request.param
    open_the_way(tmp_path)
    folder = tmp_path / "scan" / "smtpd"
    shutil.copytree(SCRIPTS / kind, folder)
    stub = tmp_path / "stub-smtpd"
    stub.write_text(STUB)
    stub.chmod(0o755)
    (folder / "env" / "CHECKENV").write_text(f"{shutil.copy(HOOK, tmp_path)}\n")
    (folder / "env" / "FASTGREY_STORE").write_text(f"{make_store(group=GROUP_NUMBER)}\n")
    log = tmp_path / "log"
    log.mkdir()
    os.chown(log, pwd.getpwnam(USER).pw_uid, -1)
    port = free_port()
    environment = {
        "SMTPD": str(stub), "SMTPD_USER": USER,
        "STORE_GROUP": GROUP, "ADDRESS": "127.0.0.1", "PORT": str(port), "RULES": str(tmp_path / "none.cdb"),
        "LOG_USER": USER, "LOG_DIR": str(log),
    }

    supervised = Supervised(kind, folder, environment)

    def written():
        current = log / "current"
        return current.read_text() if current.exists() else ""

    yield SimpleNamespace(kind=kind, folder=folder, port=port, start=supervised.start, stop=supervised.stop, log=written,
                          call=supervised.call, processes=supervised.processes)
    supervised.end()


@contextlib.contextmanager
def connected(port):
    """A connection, as soon as somebody listens: a file to read and write, and the process at the other end."""

    def attempt():
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)

    with until(attempt, "somebody listens") as connection, connection.makefile("rw") as stream:
        code, _, number = stream.readline().strip().partition(" ")
        assert code == "220"
        yield stream, Path("/proc") / number


def ask(stream):
    stream.write("\n")
    stream.flush()
    return stream.readline()


def test_a_mail_is_greylisted_under_supervision(service):
    service.start()
    with connected(service.port) as (stream, process):
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        uid = str(pwd.getpwnam(USER).pw_uid)
        assert status["Uid"].split() == [uid] * 4
        assert status["Gid"].split() == [str(GROUP_NUMBER)] * 4
        assert set(status["Groups"].split()) <= {str(GROUP_NUMBER)}
        limits = (process / "limits").read_text()
        assert "Max data size             16000000 " in limits
        # The hook maps files that grow.
        assert "Max address space         unlimited " in limits
        environment = (process / "environ").read_bytes().split(b"\0")
        assert b"TCPREMOTEIP=127.0.0.1" in environment
        assert not [entry for entry in environment if entry.startswith(b"TCPREMOTEHOST=")]
        assert ask(stream) == "status 111\n"
    until(lambda: "fastgrey: defer new wait=300 client=127.0.0.1 " in service.log(), "the hook's line in the log")
    service.stop()
    until(lambda: not service.processes(), "no process left")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=SECONDS)


def test_restart_by_the_supervisor(service):
    """What was learned is still there, and a connection that is open is not cut."""
    service.start()
    with connected(service.port) as (stream, process):
        servers = {int(line.split()[1]) for line in (process / "status").read_text().splitlines()
                   if line.startswith("PPid:")}
        service.call(RESTART[service.kind])
        until(lambda: not servers & {*service.processes()}, "the server ended")
        with connected(service.port) as (second, _):
            assert ask(second) == "status 111\n"
        assert ask(stream) == "status 111\n"
    until(lambda: "defer early" in service.log(), "the hook's line in the log")
    service.stop()


def test_no_such_group(service):
    """One clear line in the log, and nobody listens."""
    service.start(STORE_GROUP="no-such-group")
    line = "run: there is no group no-such-group; make it with: groupadd"
    until(lambda: line in service.log(), "the line in the log")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=SECONDS)


def test_no_such_user(service):
    service.start(SMTPD_USER="no-such-user")
    until(lambda: "no-such-user" in service.log(), "the line in the log")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=SECONDS)


@pytest.mark.parametrize("kind", [DAEMONTOOLS, RUNIT, S6])
def test_scripts_as_shipped(kind):
    """Their defaults are the names that the pages and install-hook use."""
    see_shipped(SCRIPTS / kind, ("SMTPD:-/var/qmail/bin/qmail-smtpd", "SMTPD_USER:-qmaild", "STORE_GROUP:-fastgrey",
                                 "PORT:-25"), "CHECKENV", "/var/qmail/bin/qmail-checkenv")
