"""The connections of a worker without the worker: what is decided elsewhere, when it comes late."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time

import pytest

from fastgrey import directory
from fastgrey._core import Case, Connections
from serving import PATIENCE, hook

NOW = 1_000_000_000


@pytest.fixture
def store(make_store):
    with directory.open_store(str(make_store("on_error=defer"))) as store:
        yield store


@contextlib.contextmanager
def _connections(store, elsewhere, log=-1):
    """Without a log, whose lines then nobody reads."""
    connections = Connections(store, most=4, defer_text=(b"later", None), reject_text=b"no", trace=b"", version=b"0",
                              first_recipient=False, elsewhere=elsewhere, log=log, log_blocks=False)
    try:
        yield connections
    finally:
        connections.close()


@contextlib.contextmanager
def _client(connections):
    ours, its = socket.socketpair()
    with ours:
        assert connections.add(its.detach(), own=True)
        ours.settimeout(PATIENCE)
        yield ours


def _served(connections, client):
    """What the client gets next."""
    end = time.monotonic() + PATIENCE
    while not select.select([client], [], [], 0)[0]:
        assert time.monotonic() < end, "there is no answer"
        connections.serve(0.01)
    return client.recv(4096).decode()


def _asked(connections):
    connections.serve(PATIENCE)
    (ticket, request), = connections.asked()
    return ticket, request


def _give_up(connections, client):
    """Answer what waits as if it had waited for too long."""
    connections.expire(PATIENCE, PATIENCE, -0.001)
    assert client.recv(4096).startswith(b"verdict=defer error 0")


def test_a_late_decision_is_not_taken_for_that_of_the_next_request(store):
    with _connections(store, elsewhere=True) as connections, _client(connections) as client:
        client.send(hook(client="no address"))
        late, request = _asked(connections)
        case = Case(store, **request)
        _give_up(connections, client)
        client.send(hook())
        ticket, request = _asked(connections)
        connections.answer(late, case)
        assert connections.waiting == 1 and not select.select([client], [], [], 0)[0]
        case = Case(store, **request)
        case.judge([0] * len(case.slots))
        connections.answer(ticket, case)
        assert client.recv(4096).startswith(b"verdict=defer new 300")


def test_what_is_given_up_before_anybody_heard_of_it_takes_no_room(store):
    """There is room for one request of each connection."""
    with _connections(store, elsewhere=True) as connections, _client(connections) as client:
        number = 20
        client.send(hook() * number)
        connections.serve(PATIENCE)
        for _ in range(number - 1):
            _give_up(connections, client)
        (ticket, _), = connections.asked()
        connections.answer(ticket, Case(store, client="no address", sender="", recipient=""))
        assert client.recv(4096).startswith(b"verdict=defer error") and connections.waiting == 0
        assert connections.asked() == []


def test_a_late_promotion_is_not_taken_for_that_of_the_next_request(store, path):
    with _connections(store, elsewhere=False) as connections, _client(connections) as client:
        for sender in ("a@example.org", "b@example.com"):
            client.send(hook(sender=sender, now=NOW))
            assert _served(connections, client).startswith("verdict=defer new")
        # So far it is nobody who would write what comes now.
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connections.begin_scribe(ours.detach())
        client.send(hook(sender="a@example.org", now=NOW + 400))
        connections.serve(0.01)
        assert connections.waiting == 1
        _give_up(connections, client)
        client.send(hook(sender="b@example.com", now=NOW + 500))
        connections.serve(0.01)
        assert connections.waiting == 1
        scribe = subprocess.Popen([sys.executable, "-m", "fastgrey.serve.scribe", path, "text"], stdin=its.fileno())
        its.close()
        answer = _served(connections, client)
        assert answer.startswith("verdict=accept retry 0") and "waited=500" in answer
        connections.close()
        assert scribe.wait(PATIENCE) == 0


def test_the_log_is_written_while_all_is_decided_elsewhere(store):
    """Every round of the server then ends in somebody being wanted."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with _connections(store, elsewhere=True, log=writer) as connections, _client(connections) as client:
        end = time.monotonic() + PATIENCE
        while not select.select([reader], [], [], 0)[0]:
            assert time.monotonic() < end, "nothing is written"
            client.send(hook(client="no address"))
            ticket, request = _asked(connections)
            connections.answer(ticket, Case(store, **request))
            assert client.recv(4096).startswith(b"verdict=defer error")
        assert os.read(reader, 4096).startswith(b"fastgrey: defer error")
    os.close(reader)
    os.close(writer)


def test_a_log_that_nobody_reads_any_more_is_given_up(store):
    """Full as it was when its reader went, it is never writable again."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    connections = Connections(store, most=1, defer_text=(b"later", None), reject_text=b"no", trace=b"", version=b"0",
                              first_recipient=False, elsewhere=True, log=writer, log_blocks=True)
    connections.say(b"fastgrey: something")
    assert not connections.flush()
    os.close(reader)
    assert connections.flush()
    connections.close()
    os.close(writer)
