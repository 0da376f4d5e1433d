"""IndiMail's protocol: what is one of its datagrams, and what a client like its qmail-smtpd is told."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chapters import DOCS, snippet
from fastgrey.serve import indimail
from fastgrey.serve.indimail import Datagrams, Packet, answer, parse
from fastgrey.verdict import Verdict
from mailing import has_ipv6
from serving import children
from tcpserver import wait_until

LISTENING = snippet("indimail.md", "fastgrey.toml")
CLIENT, SENDER, RECIPIENT = "192.0.2.1", "a@example.org", "b@example.net"
several = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
fields = st.binary().map(lambda text: text.replace(b"\0", b"").replace(b"\n", b""))


def question(client, sender, *recipients):
    """The datagram that qmail-smtpd sends."""
    parts = [b"I" + client, b"F" + sender, *(b"T" + recipient for recipient in recipients)]
    return b"".join(part + b"\0" for part in parts) + b"\0"


@several
@given(client=st.text("0123456789abcdef.:%", min_size=1), sender=fields,
       recipients=st.lists(fields, min_size=1, unique=True), end=st.booleans())
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
    b"", b"\0", b"I", b"I\0F\0T\0\0", b"I192.0.2.1\0", b"I192.0.2.1\0Fa\0", b"I192.0.2.1\0Fa\0\0",
    b"I192.0.2.1\0Tb\0\0",
    b"Fa\0I192.0.2.1\0Tb\0\0", b"I192.0.2.1\0Fa\0Tb", b"I192.0.2.1\0Fa\0Tb\0\0\0", b"I192.0.2.1\0Fa\0Tb\0Fc\0\0",
    b"I192.0.2.1\0Fa\0Tb\0Xc\0\0", b"I192.0.2.1\0Fa\0Tb\0\0\n", b"I192.0.2.1\0Fa\0Tb\nc\0\0",
    b" I192.0.2.1\0Fa\0Tb\0\0", b"I192.0.2.1\nx\0Fa\0Tb\0\0",
    b"I\xff\0Fa\0Tb\0\0", b"check\t192.0.2.1\ta\tb\n", b"\xff" * 65_507,
])
def test_broken(datagram):
    assert parse(datagram) is None


def test_largest():
    recipients = [f"{number:05}".encode() for number in range(9_000)]
    assert parse(question(b"192.0.2.1", b"a@example.org", *recipients)).recipients == tuple(recipients)
    assert parse(question(b"::1", b"", *[b"b"] * 20_000)).recipients == (b"b",)


def test_a_datagram_is_not_blown_up():
    """A long sender stands in the request for each recipient."""
    packet = parse(question(b"::1", b"a" * 30_000, *(b"%d" % i for i in range(5000))))
    tracemalloc.start()
    assert sum(map(len, packet.requests)) > 5000 * 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("verdicts, said", [
    (["accept known-triplet"], b"\1\2"), (["accept known-client", "accept retry"], b"\1\2"),
    (["accept retry"], b"\1\3"), (["accept pool"], b"\1\3"), (["accept allowed"], b"\1\1"),
    (["accept learn"], b"\1\1"), (["accept error"], b"\1\1"),
    (["defer new"], b"\0\1"), (["defer early"], b"\0\2"), (["defer error"], b"\0\4"), (["reject denied"], b"\0\4"),
    (["accept known-triplet", "defer early", "accept retry"], b"\0\2"), (["accept retry", "reject denied"], b"\0\4"),
])
def test_answers(verdicts, said):
    assert answer([Verdict(*verdict.split(), 0) for verdict in verdicts]) == said


def ask(asker, *packet):
    """The answer to a question."""
    asker.send(question(*(part.encode() for part in packet)))
    return asker.recv(100)


@contextlib.contextmanager
def asking(host, port):
    """A socket connected to the server, as qmail-smtpd has it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(60)
        asker.connect((host, port))
        yield asker


@pytest.fixture
def ask_server(server):
    """A socket connected to a server on a new store with these settings, as the document has it but for the port."""
    with contextlib.ExitStack() as ends:

        def begin(*settings, host="127.0.0.1", **options):
            name = f"[{host}]" if ":" in host else host
            made = server(*settings, config=LISTENING.replace("127.0.0.1:1999", f"{name}:PORT"), **options)
            return made, ends.enter_context(asking(host, int(made.at.rpartition(":")[2])))

        yield begin


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_recipient_is_decided(ask_server, host):
    """A message is accepted where all of its recipients are, and each that is not is known of for the next attempt."""
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 loopback here")
    greylister, asker = ask_server("delay=0s", "allow_domain_after=0", "allow_client_after=0", "pool_hops=0", host=host)
    assert [ask(asker, *packet) for packet in (
        (CLIENT, SENDER, "b@example.net", "c@example.net"), (CLIENT, SENDER, "b@example.net", "d@example.net"),
        (CLIENT, SENDER, "b@example.net", "c@example.net", "d@example.net"), (CLIENT, SENDER, "d@example.net"),
        ("2001:db8::1", "", "b@example.net"), ("2001:db8::ffff", "", "b@example.net"),
    )] == [b"\0\1", b"\0\1", b"\1\2", b"\1\2", b"\0\1", b"\1\3"]
    assert greylister.verdicts(10) == [
        "defer new", "defer new", "accept retry", "defer new", "accept known-triplet", "accept retry", "accept retry",
        "accept known-triplet", "defer new", "accept retry"]


def test_by_hand(ask_server):
    """What the document has people type, in bash."""
    greylister, _ = ask_server()
    (line,) = [line.strip() for line in (DOCS / "indimail.md").read_text().splitlines() if "/dev/udp/" in line]
    port = greylister.at.rpartition(":")[2]
    done = subprocess.run(["bash", "-c", line.replace("/1999", f"/{port}")], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", "1"]
    assert greylister.logs("^fastgrey: defer new .* client=198.51.100.9 sender=a@example.org recipient=you@")


def test_recipient_named_twice_is_no_retry(ask_server):
    greylister, asker = ask_server("delay=0s")
    assert ask(asker, CLIENT, SENDER, RECIPIENT, RECIPIENT) == b"\0\1"
    assert greylister.verdicts(1) == ["defer new"]


def test_garbage_is_not_answered_and_harms_nobody(ask_server):
    greylister, asker = ask_server("delay=1h")
    for datagram in (b"", b"\0", b"\xff" * 65_507, b"I192.0.2.1\0", b"Iunknown\0Fa\0", b"T" * 1000,
                     b"I192.0.2.1\0F\nrecipient=b\0Tb\0\0"):
        asker.send(datagram)
    assert ask(asker, CLIENT, SENDER, RECIPIENT) == b"\0\1"
    asker.setblocking(False)
    with pytest.raises(BlockingIOError):
        asker.recv(100)
    assert greylister.verdicts(1) == ["defer new"]
    assert greylister.log().count("none of IndiMail's") == 1


@pytest.mark.parametrize("on_error, said", [("accept", b"\1\1"), ("defer", b"\0\4")])
def test_what_cannot_be_decided_is_on_error(ask_server, on_error, said):
    _, asker = ask_server(f"on_error={on_error}")
    for packet in (("unknown", SENDER, RECIPIENT), (CLIENT, "a" * 1001, RECIPIENT), (CLIENT, SENDER, "b\r@c")):
        assert ask(asker, *packet) == said


def test_denied_is_refused(ask_server, config, run_fastgrey, make_store):
    make_store()
    config('deny_senders = ["bad.example"]\n')
    assert run_fastgrey("apply").returncode == 0
    _, asker = ask_server()
    assert ask(asker, CLIENT, "a@bad.example", RECIPIENT) == b"\0\4"


def test_many_recipients(ask_server):
    """As many as a datagram holds; what is asked and said about them is more than a socket takes."""
    greylister, asker = ask_server("delay=0s", "allow_domain_after=0", "allow_client_after=0", "pool_hops=0")
    recipients = [f"{number:05}" for number in range(9_000)]
    assert ask(asker, CLIENT, SENDER, *recipients) == b"\0\1"
    assert ask(asker, CLIENT, SENDER, recipients[0], recipients[-1]) == b"\1\3"


def test_nothing_is_lost_by_a_reload(ask_server):
    """Workers read one socket: what the old ones leave the new ones answer."""
    greylister, asker = ask_server("delay=1h", workers=2)
    done, count = threading.Event(), 0

    def reload():
        for _ in range(2):
            greylister.reload()
        done.set()

    reloading = threading.Thread(target=reload)
    reloading.start()
    while not done.is_set() or count <= 10:
        assert ask(asker, CLIENT, SENDER, f"{count}@example.net") == b"\0\1"
        count += 1
    reloading.join()


def test_what_has_come_is_answered_before_the_end(ask_server):
    greylister, asker = ask_server("delay=1h")
    (worker,) = children(greylister.process.pid)
    messages = 50
    os.kill(worker, signal.SIGSTOP)
    try:
        # One that has not stopped yet would take the other signal first.
        assert wait_until(lambda: status(worker, "State").startswith("T"))
        for number in range(messages):
            asker.send(question(b"192.0.2.1", b"a@example.org", f"{number}@example.net".encode()))
        greylister.process.terminate()
        assert wait_until(lambda: int(status(worker, "ShdPnd"), 16) >> (signal.SIGTERM - 1) & 1)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert [asker.recv(100) for _ in range(messages)] == [b"\0\1"] * messages
    greylister.process.wait(60)
    assert greylister.verdicts(messages) == ["defer new"] * messages


def status(pid, name):
    """A line of a process's status (proc(5))."""
    (value,) = re.findall(rf"^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return value


def test_decided_elsewhere_and_stopped(monkeypatch):
    """More than a worker takes at once waits in the socket; what was taken is answered when it stops, the rest by the
    next worker."""
    monkeypatch.setattr(indimail, "MESSAGES_MAX", 2)

    async def run():
        loop = asyncio.get_running_loop()
        waiting = []

        def connect():
            ours, its = socket.socketpair()
            ours.setblocking(False)
            waiting.append(its)
            return ours

        def decide():
            with waiting.pop(0) as its:
                assert its.recv(1000) == (b"request=fastgrey\nclient_address=192.0.2.1\nsender=a@example.org\n"
                                          b"recipient=b@example.net\n\n")
                its.sendall(b"verdict=defer early 5\nkey=00\n\n")

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("127.0.0.1", 0))
            with asking(*listener.getsockname()) as asker:
                first = Datagrams(listener, connect, print)
                for _ in range(5):
                    asker.send(question(b"192.0.2.1", b"a@example.org", b"b@example.net"))
                for number in (2, 3, 4):
                    while len(waiting) < min(number, 2):
                        await asyncio.sleep(0.001)
                    assert len(waiting) == 2
                    decide()
                    assert await loop.run_in_executor(None, asker.recv, 100) == b"\0\2"
                while len(waiting) < 2:
                    await asyncio.sleep(0.001)
                stopping = asyncio.ensure_future(first.stop())
                asker.send(question(b"192.0.2.1", b"a@example.org", b"b@example.net"))
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not stopping.done()
                decide()
                decide()
                await stopping
                assert waiting == []
                assert [await loop.run_in_executor(None, asker.recv, 100) for _ in range(2)] == [b"\0\2"] * 2
                second = Datagrams(listener, connect, print)
                while not waiting:
                    await asyncio.sleep(0.001)
                decide()
                assert await loop.run_in_executor(None, asker.recv, 100) == b"\0\2"
                await second.stop()

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("said", [b"", b"verdict=accept retry 0\n\n"])
def test_half_an_answer_is_none(said):
    """Where the server closes the connection before all recipients are decided, the client hears nothing."""

    async def run():
        ours, its = socket.socketpair()
        ours.setblocking(False)
        its.sendall(said)
        its.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("127.0.0.1", 0))
            with asking(*listener.getsockname()) as asker:
                asker.send(question(b"192.0.2.1", b"a@example.org", b"b@example.net", b"c@example.net"))
                server = Datagrams(listener, lambda: ours, print)
                await server.stop()
                asker.setblocking(False)
                with pytest.raises(BlockingIOError):
                    asker.recv(100)

    asyncio.run(run())
