"""Clients that hang up, and processes that die, at any point: nothing runs on or is half done, the next is fine."""

import os
import signal

import lmdb.verify
import pytest

import aging
from conftest import write_lock_held
from tcpserver import wait_until

SENDER, RECIPIENT = "a@example.org", "b@example.net"


@pytest.fixture
def server(make_store, store_group, serve):
    """A server that defers strangers."""
    make_store("pool_hops=0", group=store_group)
    return serve()


@pytest.fixture(params=["drop", "close"])
def leave(request):
    """The two ways in which a client goes: with a reset or in order."""
    return lambda session: getattr(session, request.param)()


@pytest.fixture
def assert_all_is_well(path, pending_path):
    """No session is left, both tables are sound, and the next client is served: deferred, then taken."""

    def check(server, *already, sender="next@other.example"):
        assert wait_until(lambda: not server.processes())
        before = server.messages()
        for place in (path / "passed.000001", pending_path):
            if place.exists():
                lmdb.verify.verify(str(place))
        with server.session() as client:
            assert client.mail(sender, RECIPIENT) == ["451"]
        aging.age(path, pending_path, 301)
        with server.session() as client:
            assert client.mail(sender, RECIPIENT) == ["250"]
        assert server.verdicts() == [*already, "defer new", "accept retry"]
        assert len(server.messages()) == len(before) + 1

    return check


def test_after_rcpt(server, leave, assert_all_is_well):
    client = server.session()
    client.say(f"MAIL FROM:<{SENDER}>")
    assert client.say(f"RCPT TO:<{RECIPIENT}>")[0][:3] == "451"
    leave(client)
    assert_all_is_well(server, "defer new")


@pytest.mark.parametrize("point", ["before any of it", "in a line", "before the dot", "in the dot"])
def test_within_data(server, leave, run_fastgrey, point, assert_all_is_well):
    """Nothing of the message is kept: its client will send it again."""
    assert run_fastgrey("pass", "127.0.0.1", SENDER, RECIPIENT).returncode == 0
    client = server.session()
    assert [reply[:3] for reply in client.say(f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>", "DATA")] == [
        "250", "250", "354"]
    client.send_raw({"before any of it": b"", "in a line": b"Subject: a\r\nx", "before the dot": b"x\r\n",
                     "in the dot": b"x\r\n.\r"}[point])
    leave(client)
    assert wait_until(lambda: not server.processes())
    assert server.messages() == []
    assert_all_is_well(server, "accept known-triplet")


@pytest.mark.parametrize("part", ["", "RC", "RCPT TO:<b@example.net", "RCPT TO:<b@example.net>\r"])
def test_in_the_middle_of_a_command(server, leave, part, assert_all_is_well):
    """Half a command is not carried out: no check is made."""
    client = server.session()
    client.say(f"MAIL FROM:<{SENDER}>")
    client.send_raw(part.encode())
    leave(client)
    assert_all_is_well(server)


def test_with_commands_not_answered(server, leave, assert_all_is_well):
    """Whole commands were sent and the client has gone: they may be carried out, and no more than once each."""
    client = server.session()
    client.send(f"MAIL FROM:<{SENDER}>", *[f"RCPT TO:<{RECIPIENT}>"] * 5)
    leave(client)
    assert wait_until(lambda: not server.processes())
    assert len(server.log()) <= 5
    assert_all_is_well(server, *server.verdicts())


def waits(server):
    """Whether the hook runs and sleeps, as it does where it waits for a lock."""
    return [process for process in server.processes() if b"qmail-checkenv" in command(process)]


def command(process):
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def begin_a_check_that_waits(server):
    """A client whose check has begun and waits for the store's write lock; it is in the middle of another command."""
    client = server.session()
    client.send(f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>", "NOOP")
    client.send_raw(b"RCPT TO:<half@exam")
    assert wait_until(lambda: waits(server))
    return client


def test_while_the_checker_runs(server, leave, pending_path, assert_all_is_well):
    """The check goes on to its end, and what it records stands: the client's retry counts from here."""
    server.session().mail("first@other.example", RECIPIENT)
    server.hang_up()
    with write_lock_held(pending_path) as holder:
        client = begin_a_check_that_waits(server)
        leave(client)
        holder.communicate()
        assert wait_until(lambda: not server.processes())
    (partition,) = aging.records(pending_path).values()
    assert len(partition) == 2
    assert_all_is_well(server, "defer new", "defer new")


def test_while_a_checker_hangs(serve, leave, make_store, store_group, checker):
    make_store(group=store_group)
    server = serve(CHECKENV=checker("exec sleep 600"), CHECKENV_TIMEOUT=1)
    client = server.session()
    client.send(f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>")
    assert wait_until(lambda: [process for process in server.processes() if b"sleep" in command(process)])
    leave(client)
    assert wait_until(lambda: not server.processes())
    assert len(server.log()) == 1
    assert server.messages() == []


@pytest.mark.parametrize("victim", ["session", "checker", "both"])
def test_killed_while_the_checker_runs(server, pending_path, victim, assert_all_is_well):
    """Whoever is killed, the lock is free, the tables are sound, and the other one ends by itself."""
    server.session().mail("first@other.example", RECIPIENT)
    server.hang_up()
    with write_lock_held(pending_path) as holder:
        client = begin_a_check_that_waits(server)
        hooks = waits(server)
        for process in server.processes():
            if victim == "both" or (process in hooks) == (victim == "checker"):
                os.kill(process, signal.SIGKILL)
        if victim == "checker":
            assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "250"]
            client.close()
        holder.communicate()
        assert wait_until(lambda: not server.processes())
    lines = server.log()
    assert len(lines) == 1 + (victim != "both")
    if victim == "checker":
        assert "signal 9" in lines[1]
    lmdb.verify.verify(str(pending_path))
    with server.session() as session:
        assert session.mail("next@other.example", RECIPIENT) == ["451"]
