"""What clients may cost: slow ones, half requests, garbage, many at once, ever more bytes, replies nobody reads."""

import os
import resource
import socket
import struct
import time

import pytest

from conftest import full_pipe
from serving import PATIENCE, answers, hook, policy, until

BROKEN = {
    "a line without an equals sign": (b"GET / HTTP/1.1\n", "a line without '='"),
    "no request named": (b"client_address=192.0.2.1\n\n", "neither request=smtpd_access_policy"),
    "another request": (b"request=other\n\n", "neither request=smtpd_access_policy"),
    "an empty line alone": (b"\n", "neither request=smtpd_access_policy"),
    "a plain line of two fields": (b"check\t192.0.2.1\ta@example.org\n", "a plain request of other fields"),
    "a plain line of five fields": (b"check\t1\t2\t3\t4\t5\n", "a plain request of other fields"),
    "a time that is no number": (hook(now="-1"), "a time that is no number"),
    "a time of somebody who may not say it": (hook(now="1000000000"), "a time over another socket"),
    "a line of a megabyte": (b"sender=" + b"a" * (1 << 20), "longer than 65536 bytes"),
    "a plain line of a megabyte": (b"check\t" + b"a" * (1 << 20), "longer than 65536 bytes"),
    "a megabyte of short lines": (b"a=b\n" * (1 << 18), "longer than 65536 bytes"),
    "a whole request of a megabyte": (policy(helo_name="a" * (1 << 20)), "longer than 65536 bytes"),
    "noise": (bytes(range(128, 256)) * 40 + b"\n", "a line without '='"),
}


@pytest.mark.parametrize("sent", BROKEN)
def test_what_is_no_request_ends_the_connection_and_is_logged_once(serve, sent):
    server = serve(workers=1)
    client = server.client("tcp")
    good = server.client("tcp")
    data, expected = BROKEN[sent]
    try:
        client.send(data)
    except (BrokenPipeError, ConnectionResetError):
        # It did not wait for the end of that.
        pass
    assert client.reply() is None
    line, = until(lambda: server.said("connection closed"), "it says so")
    assert expected in line
    assert good.ask(policy()).startswith("action=DEFER")
    server.stop()
    assert len(server.said("connection closed")) == 1


def test_values_may_be_long_and_of_any_bytes(serve):
    client = serve("on_error=defer").client()
    request = policy(helo_name="x" * 20_000, ccert_subject="=" * 10_000, instance="i" * 5000)
    assert client.ask(request).startswith("action=DEFER_IF_PERMIT greylisted")
    raw = policy(sender="SENDER").replace(b"SENDER", bytes(set(range(1, 256)) - {10, 13}) + b"@example.org")
    assert client.ask(raw).startswith("action=DEFER_IF_PERMIT greylisted")
    assert client.ask(policy(sender="nul\0@example.org")).startswith("action=DEFER_IF_PERMIT 4.3.0")


def test_connections_that_do_nothing_are_closed(serve):
    server = serve(workers=1, config='idle = "1s"')
    idle, half, busy = server.client(), server.client(), server.client()
    half.send(policy()[:-1])
    end = time.monotonic() + PATIENCE
    while not (idle.closed() and half.closed()):
        assert time.monotonic() < end, "idle connections stay"
        assert busy.ask(policy()).startswith("action=")
    assert busy.ask(policy()).startswith("action=")


def test_who_sends_a_byte_now_and_then_is_closed_all_the_same(serve):
    server = serve(workers=1, config='idle = "1s"')
    client = server.client()
    request = policy(helo_name="a" * 50_000)
    end = time.monotonic() + PATIENCE
    sent = 0
    while not client.closed() and sent < len(request):
        assert time.monotonic() < end, "it may go on for ever"
        try:
            client.send(request[sent:sent + 1])
        except (BrokenPipeError, ConnectionResetError):
            break
        sent += 1
        time.sleep(0.01)
    assert sent < len(request)


def test_who_never_reads_does_not_hold_up_others_and_goes(serve):
    server = serve(workers=1, config='idle = "1s"')
    client = server.client("tcp")
    client.socket.setblocking(False)
    requests = policy() * 200
    end = time.monotonic() + PATIENCE
    gone = False
    while not gone:
        assert time.monotonic() < end, "it is served for ever"
        try:
            if client.socket.send(requests) == 0:
                gone = True
        except BlockingIOError:
            assert server.ask(policy()).startswith("action=")
        except (BrokenPipeError, ConnectionResetError):
            gone = True
    assert server.ask(policy()).startswith("action=")


def test_there_are_only_as_many_connections_as_may_be(serve):
    server = serve(workers=1, config="max_connections = 5")
    clients = [server.client() for _ in range(5)]
    assert all(client.ask(policy()).startswith("action=") for client in clients)
    # The sixth is not refused; it waits until there is room.
    waiting = server.client()
    waiting.send(policy())
    assert clients[0].ask(policy()).startswith("action=")
    assert not waiting.closed()
    clients[0].close()
    assert waiting.reply().startswith("action=")


def test_ten_thousand_connections(serve):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = 10_000
    if hard != resource.RLIM_INFINITY and hard < number + 200:
        pytest.skip(f"this user may have {hard} files open")
    # The server raises its own.
    server = serve(workers=2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number + 200 if soft != resource.RLIM_INFINITY and soft < number + 200
                                                else soft, hard))
    ends = []
    try:
        for _ in range(number):
            end = socket.socket(socket.AF_UNIX)
            ends.append(end)
            # Blocking, as Postfix connects: with a timeout of Python's, a full backlog would be an error.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", PATIENCE, 0))
            end.connect(server.place)
            end.settimeout(PATIENCE)
        request = policy()
        for end in ends:
            end.sendall(request)
        for end in ends:
            assert end.recv(4096).startswith(b"action=DEFER_IF_PERMIT"), "one of them is not answered"
    finally:
        for end in ends:
            end.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert server.ask(policy()).startswith("action=")


def test_nobody_waits_for_who_reads_the_log(serve):
    """Standard error is a pipe that takes nothing more."""
    reader, writer = full_pipe()
    try:
        server = serve(ready=False, workers=1, stderr=writer)
        until(lambda: answers(server.place), "it listens")
        client = server.client()
        number = 3000
        for i in range(number):
            assert client.ask(policy(sender=f"a@s{i}.example")).startswith("action=")
        # Once it is read again, it is told how many lines are missing.
        os.set_blocking(reader, False)
        got = b""
        end = time.monotonic() + PATIENCE
        while b"lines of the log were lost" not in got:
            assert time.monotonic() < end, got[-500:]
            try:
                got += os.read(reader, 65536)
            except BlockingIOError:
                assert client.ask(policy()).startswith("action=")
        assert all(line.startswith((b"fastgrey: ", b"x")) for line in got.splitlines())
        assert server.stop() == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_lines_of_several_workers_do_not_mix(serve):
    server = serve(workers=3)
    clients = [server.client() for _ in range(12)]
    for i in range(200):
        for number, client in enumerate(clients):
            client.send(policy(sender=f"a{i}x{number}@example.org", recipient="b" * 300 + "@example.net"))
        assert all(client.reply().startswith("action=") for client in clients)
    server.stop()
    lines = server.said("client=")
    assert len(lines) == 200 * 12
    assert all(line.startswith("fastgrey: ") and line.count("fastgrey: ") == 1 and "key=" in line for line in lines)
