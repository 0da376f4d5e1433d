"""What a service manager hands over and is told: sockets (systemd's own tool does it), READY=1 and its kin."""

import os
import shutil
import signal
import socket
import tempfile
import time

import pytest

from serving import PATIENCE, answers, policy, until


class Manager:
    """The end that a service manager has of NOTIFY_SOCKET."""

    def __init__(self, place):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(place)
        self.socket.settimeout(PATIENCE)

    def told(self, wanted):
        """The next message that has this line, as a dictionary; others before it are passed over."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())
            if wanted in message:
                return message
        raise AssertionError(f"nobody said {wanted}")


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """One that listens at a path or at an abstract address; gives it and what it is called."""
    place = os.path.relpath(tmp_path / "notify") if request.param == "path" else f"@fastgrey-test-{os.getpid()}"
    made = Manager(place.replace("@", "\0", 1) if place.startswith("@") else place)
    yield made, place
    made.socket.close()


def test_a_manager_is_told_how_far_it_is(serve, manager):
    end, place = manager
    server = serve(environment={"NOTIFY_SOCKET": place})
    assert end.told("READY")["STATUS"] == "2 workers"
    assert server.ask(policy()).startswith("action=")
    before = time.monotonic_ns() // 1000
    server.signal(signal.SIGHUP)
    assert int(end.told("RELOADING")["MONOTONIC_USEC"]) >= before
    assert end.told("READY")["READY"] == "1"
    server.configure("idle = true")
    server.signal(signal.SIGHUP)
    end.told("RELOADING")
    end.told("READY")
    server.signal(signal.SIGTERM)
    end.told("STOPPING")
    assert server.stop() == 0


def test_a_watchdog_is_fed(serve, manager):
    end, place = manager
    server = serve(environment={"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "3000000"})
    end.told("WATCHDOG")
    end.told("WATCHDOG")
    server.stop()


def test_a_manager_that_is_gone_is_no_reason_to_end(serve, tmp_path):
    server = serve(environment={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert server.ask(policy()).startswith("action=")


@pytest.fixture
def activate():
    """systemd's tool that opens sockets and runs a command with them at the first connection."""
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        pytest.skip("no systemd-socket-activate; Debian: apt-get install systemd")
    return tool


@pytest.fixture
def place():
    """An absolute path that is short enough for the tool."""
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, "activated.sock")


def test_sockets_that_the_manager_opened_are_served(serve, activate, place, path):
    server = serve(ready=False, wrapper=[activate, "-l", place, "--fdname=policy"])
    until(lambda: answers(place), "the manager listens")
    client = server.client(place)
    assert client.ask(policy()).startswith("action=DEFER")
    server.begun()
    # Its own are there too, and a reload keeps all of them.
    assert server.ask(policy()).startswith("action=")
    before = set(server.processes())
    server.signal(signal.SIGHUP)
    until(lambda: not before & set(server.processes()), "it is reloaded")
    assert server.client(place).ask(policy()).startswith("action=")
    assert server.stop() == 0
    # What the manager made stays the manager's.
    assert os.path.exists(place) and not (path / "serve.sock").exists()


def test_the_manager_may_open_the_hooks_socket(serve, activate, path, make_store):
    make_store()
    place = path.resolve() / "serve.sock"
    if len(str(place)) > 107:
        pytest.skip("the path of the test's store is too long for systemd-socket-activate")
    server = serve(ready=False, wrapper=[activate, "-l", str(place)])
    until(lambda: answers(str(place)), "the manager listens")
    assert server.client(os.path.relpath(place)).ask(policy()).startswith("action=DEFER")
    assert server.stop() == 0
    assert place.exists()


def test_a_socket_that_cannot_be_served_is_refused(serve, activate, place):
    server = serve(ready=False, wrapper=[activate, "--datagram", "-l", place])
    until(lambda: os.path.exists(place), "the manager listens")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.sendto(b"x", place)
    assert server.process.wait(PATIENCE) == 1
    line, = [line for line in server.log().splitlines() if line.startswith("fastgrey: ")]
    assert "descriptor 3 of LISTEN_FDS is no socket that listens" in line
