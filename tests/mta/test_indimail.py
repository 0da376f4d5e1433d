"""IndiMail's protocol: what is one of its datagrams, and what a client like its qmail-smtpd is told."""

import asyncio
import contextlib
import socket

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fastgrey
from fastgrey.serve import indimail
from fastgrey.serve.indimail import Datagrams, Packet, answer, parse
from fastgrey.verdict import Verdict
from mailing import has_ipv6

CLIENT, SENDER, RECIPIENT = "192.0.2.1", "a@example.org", "b@example.net"
several = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
no_nul = st.binary().map(lambda text: text.replace(b"\0", b""))


def question(client, sender, *recipients):
    """The datagram that qmail-smtpd sends."""
    parts = [b"I" + client, b"F" + sender, *(b"T" + recipient for recipient in recipients)]
    return b"".join(part + b"\0" for part in parts) + b"\0"


@several
@given(client=st.text("0123456789abcdef.:%", min_size=1), sender=no_nul,
       recipients=st.lists(no_nul, min_size=1, unique=True), end=st.booleans())
def test_what_qmail_smtpd_sends(client, sender, recipients, end):
    datagram = question(client.encode(), sender, *recipients)
    assert parse(datagram if end else datagram[:-1]) == Packet(client.encode(), sender, tuple(recipients))


@several
@given(st.one_of(st.binary(), st.lists(st.sampled_from([b"I", b"F", b"T", b"\0", b"192.0.2.1", b"a@b"])).map(b"".join)))
@example(b"I192.0.2.1\0F\0Tb@example.net\0\0")
@example(b"I192.0.2.1\0F\0Tb@example.net\0\0\0")
@example(b"I192.0.2.1\0F\0Tb@example.net\0Tb@example.net\0")
def test_all_else_is_none(datagram):
    """What is one says no more and no less than was read from it."""
    if (packet := parse(datagram)) is not None:
        client, sender, *recipients = datagram.removesuffix(b"\0").removesuffix(b"\0").split(b"\0")
        assert (client, sender) == (b"I" + packet.client, b"F" + packet.sender)
        assert list(dict.fromkeys(recipients)) == [b"T" + recipient for recipient in packet.recipients]


@pytest.mark.parametrize("datagram", [
    b"", b"\0", b"I", b"I\0F\0T\0\0", b"I192.0.2.1\0", b"I192.0.2.1\0Fa\0", b"I192.0.2.1\0Fa\0\0", b"I192.0.2.1\0Tb\0\0",
    b"Fa\0I192.0.2.1\0Tb\0\0", b"I192.0.2.1\0Fa\0Tb", b"I192.0.2.1\0Fa\0Tb\0\0\0", b"I192.0.2.1\0Fa\0Tb\0Fc\0\0",
    b"I192.0.2.1\0Fa\0Tb\0Xc\0\0", b"I192.0.2.1\0Fa\0Tb\0\0\n", b" I192.0.2.1\0Fa\0Tb\0\0", b"I192.0.2.1\nx\0Fa\0Tb\0\0",
    b"I\xff\0Fa\0Tb\0\0", b"check\t192.0.2.1\ta\tb\n", b"\xff" * 65_507,
])
def test_broken(datagram):
    assert parse(datagram) is None


def test_largest():
    recipients = [f"{number:05}".encode() for number in range(9_000)]
    assert parse(question(b"192.0.2.1", b"a@example.org", *recipients)).recipients == tuple(recipients)
    assert parse(question(b"::1", b"", *[b"b"] * 20_000)).recipients == (b"b",)


@pytest.mark.parametrize("verdicts, said", [
    (["accept known-triplet"], b"\1\2"), (["accept known-client", "accept retry"], b"\1\2"), (["accept retry"], b"\1\3"),
    (["accept pool"], b"\1\3"), (["accept allowed"], b"\1\1"), (["accept learn"], b"\1\1"), (["accept error"], b"\1\1"),
    (["defer new"], b"\0\1"), (["defer early"], b"\0\2"), (["defer error"], b"\0\4"), (["reject denied"], b"\0\4"),
    (["accept known-triplet", "defer early", "accept retry"], b"\0\2"), (["accept retry", "reject denied"], b"\0\4"),
])
def test_answers(verdicts, said):
    assert answer([Verdict(*verdict.split(), 0) for verdict in verdicts]) == said


def talk(path, host, client):
    """Run the server of one worker with the store, and what client, a function of a socket connected to it, does."""

    async def both():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with fastgrey.open(path) as store, socket.socket(family, socket.SOCK_DGRAM) as listener:
            listener.bind((host, 0))

            async def decide(client, sender, recipient):
                return store.check(client=client, sender=sender, recipient=recipient)

            server = Datagrams(listener, decide)
            with socket.socket(family, socket.SOCK_DGRAM) as asker:
                asker.settimeout(60)
                asker.connect(listener.getsockname())
                said = await asyncio.to_thread(client, asker)
            await server.stop()
            return said, server.broken

    return asyncio.run(both())


def ask(asker, *packet):
    """The answer to a question."""
    asker.send(question(*(part.encode() for part in packet)))
    return asker.recv(100)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_recipient_is_decided(make_store, path, host):
    """A message is accepted where all of its recipients are, and each that is not is known of for the next attempt."""
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 loopback here")
    make_store("delay=0s", "allow_domain_after=0", "allow_client_after=0", "pool_hops=0")

    def client(asker):
        return [ask(asker, *packet) for packet in (
            (CLIENT, SENDER, "b@example.net", "c@example.net"), (CLIENT, SENDER, "b@example.net", "d@example.net"),
            (CLIENT, SENDER, "b@example.net", "c@example.net", "d@example.net"), (CLIENT, SENDER, "d@example.net"),
            ("2001:db8::1", "", "b@example.net"), ("2001:db8::ffff", "", "b@example.net"))]

    assert talk(path, host, client) == ([b"\0\1", b"\0\1", b"\1\2", b"\1\2", b"\0\1", b"\1\3"], 0)


def test_recipient_named_twice_is_no_retry(make_store, path):
    make_store("delay=0s")
    assert talk(path, "127.0.0.1", lambda asker: ask(asker, CLIENT, SENDER, RECIPIENT, RECIPIENT)) == (b"\0\1", 0)


def test_garbage_is_not_answered_and_harms_nobody(make_store, path):
    make_store("delay=1h")
    garbage = [b"", b"\0", b"\xff" * 65_507, b"I192.0.2.1\0", b"Iunknown\0Fa\0", b"T" * 1000]

    def client(asker):
        for datagram in garbage:
            asker.send(datagram)
        first = ask(asker, CLIENT, SENDER, RECIPIENT)
        with contextlib.suppress(BlockingIOError):
            asker.setblocking(False)
            return first, asker.recv(100)
        return first

    assert talk(path, "127.0.0.1", client) == (b"\0\1", len(garbage))


@pytest.mark.parametrize("on_error, said", [("accept", b"\1\1"), ("defer", b"\0\4")])
@pytest.mark.parametrize("packet", [("unknown", SENDER, RECIPIENT), (CLIENT, "a" * 1001, RECIPIENT),
                                    (CLIENT, SENDER, "b\r\n@example.net")])
def test_what_cannot_be_decided_is_on_error(make_store, path, packet, on_error, said):
    make_store(f"on_error={on_error}")
    assert talk(path, "127.0.0.1", lambda asker: ask(asker, *packet)) == (said, 0)


def test_more_than_a_worker_takes_at_once(make_store, path, monkeypatch):
    """What does not fit waits in the socket."""
    monkeypatch.setattr(indimail, "MESSAGES_MAX", 2)
    make_store("delay=0s", "allow_domain_after=0", "allow_client_after=0", "pool_hops=0")

    def client(asker):
        for _ in range(2):
            for number in range(40):
                asker.send(question(b"192.0.2.1", b"a@example.org", f"b{number}@example.net".encode()))
            yield [asker.recv(100) for _ in range(40)]

    assert talk(path, "127.0.0.1", lambda asker: list(client(asker))) == ([[b"\0\1"] * 40, [b"\1\3"] * 40], 0)


def test_stop_answers_what_was_taken_and_leaves_the_rest(make_store, path):
    """Two workers at one socket: what one has not taken when it stops, the other answers."""
    make_store("delay=1h")

    async def both():
        with fastgrey.open(path) as store, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            listener.bind(("127.0.0.1", 0))
            asker.settimeout(60)
            asker.connect(listener.getsockname())
            going_on = asyncio.Event()

            async def decide(client, sender, recipient):
                await going_on.wait()
                return store.check(client=client, sender=sender, recipient=recipient)

            first = Datagrams(listener, decide)
            asker.send(question(b"192.0.2.1", b"a@example.org", b"taken@example.net"))
            while not first._tasks:
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(first.stop())
            await asyncio.sleep(0)
            asker.send(question(b"192.0.2.1", b"a@example.org", b"left@example.net"))
            going_on.set()
            await stopping
            assert await asyncio.to_thread(asker.recv, 100) == b"\0\1"
            second = Datagrams(listener, decide)
            assert await asyncio.to_thread(asker.recv, 100) == b"\0\1"
            await second.stop()

    asyncio.run(both())
