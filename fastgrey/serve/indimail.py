"""IndiMail's greylisting protocol: one datagram asks about a message and all of its recipients, two bytes answer.

Its qmail-smtpd sends the datagram at DATA, where GREYIP names a server (greylist(3), qmail-greyd(8) of indimail-mta):

    I client NUL  F sender NUL  T recipient NUL  ...  NUL

It looks at the first byte of the answer alone: 0 is 450 for the whole message, anything else accepts. It asks once, and
says 451 and hangs up where no answer comes within a few seconds.
"""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fastgrey.verdict import Verdict

# Clients before 2016 leave out the NUL at the end. Whether the client is an address is the decision's to say:
# qmail-smtpd sends "unknown" where tcpserver told it none. What a line of SMTP brought has no LF.
PACKET = re.compile(rb"I([!-~]+)\0F([^\0\n]*)\0((?:T[^\0\n]*\0)+)\0?")
# More than a datagram can hold.
DATAGRAM_MAX = 65_536
# So many messages are decided at once by a worker; more wait in the socket, where the kernel bounds them.
MESSAGES_MAX = 256
# Seconds between two lines of the log about datagrams that are not answered.
SILENCE = 60.0

# The second byte says why, in qmail-greyd's numbers, for who watches the wire.
ACCEPTED_BY_RULE, ACCEPTED_AS_KNOWN, ACCEPTED_NOW = b"\1\1", b"\1\2", b"\1\3"
REFUSED_NEW, REFUSED_EARLY, REFUSED = b"\0\1", b"\0\2", b"\0\4"
ANSWERS = {"new": REFUSED_NEW, "early": REFUSED_EARLY, "retry": ACCEPTED_NOW, "pool": ACCEPTED_NOW}

SAID = re.compile(rb"^verdict=(\w+) ([\w-]+) (\d+)$", re.MULTILINE)


class Packet(NamedTuple):
    """What a datagram asks: text of the client's address, sender, and the recipients, each once, in their order."""

    client: bytes
    sender: bytes
    recipients: tuple[bytes, ...]

    @property
    def requests(self) -> Iterator[bytes]:
        """The same as a hook asks the server, one recipient after the other. One at a time: all of them, each with the
        sender, can be thousands of times as long as the datagram."""
        return (b"request=fastgrey\nclient_address=%b\nsender=%b\nrecipient=%b\n\n"
                % (self.client, self.sender, recipient) for recipient in self.recipients)


def parse(datagram: bytes) -> Packet | None:
    """The question of a datagram; None where it is none in this protocol."""
    if (found := PACKET.fullmatch(datagram)) is None:
        return None
    client, sender, recipients = found.groups()
    # One that is named twice is asked about once: no message is a retry of itself.
    return Packet(client, sender, tuple(dict.fromkeys(part[1:] for part in recipients.split(b"\0")[:-1])))


def answer(verdicts: Sequence[Verdict]) -> bytes:
    """The two bytes for these verdicts, one for each recipient, at least one. The message is accepted where all are.
    The protocol has no word for reject: that is refused as well, each time."""
    verdict = next((verdict for verdict in verdicts if verdict.action != "accept"), verdicts[0])
    if verdict.action != "accept":
        return ANSWERS.get(verdict.reason, REFUSED)
    if verdict.reason.startswith("known-"):
        return ACCEPTED_AS_KNOWN
    return ANSWERS.get(verdict.reason, ACCEPTED_BY_RULE)


class Datagrams:
    """Answers what comes to a bound datagram socket, which other processes may read as well.

    connect: gives a connection to the server itself, non-blocking, or None where it can take no more; over it a message
    is decided, logged and counted as what a hook asks. say: puts a line into the log.
    """

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket | None],
                 say: Callable[[str], None]):
        self._socket = listener
        self._socket.setblocking(False)
        self._connect = connect
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._said = -SILENCE
        # Datagrams in another shape than the protocol's, which are not answered.
        self.broken = 0
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def _receive(self) -> bool:
        """Take one datagram; whether there was one."""
        try:
            datagram, peer = self._socket.recvfrom(DATAGRAM_MAX)
        except OSError:
            # Another process was quicker.
            return False
        if (packet := parse(datagram)) is None:
            self._refuse(peer)
            return True
        task = self._loop.create_task(self._answer(packet, peer))
        self._tasks.add(task)
        task.add_done_callback(self._answered)
        if len(self._tasks) >= MESSAGES_MAX:
            self._loop.remove_reader(self._socket.fileno())
        return True

    def _refuse(self, peer: Any) -> None:
        self.broken += 1
        if time.monotonic() - self._said >= SILENCE:
            self._said = time.monotonic()
            self._say(f"not answered: a datagram from {peer[0]} that is none of IndiMail's (docs/indimail.md); "
                      f"{self.broken} of them since the start")

    def _answered(self, task: asyncio.Task[None]) -> None:
        full = len(self._tasks) >= MESSAGES_MAX
        self._tasks.discard(task)
        if full and not self._stopped:
            self._listen()

    async def _answer(self, packet: Packet, peer: Any) -> None:
        # Where anything fails the client hears nothing, and the mail comes back.
        with contextlib.suppress(OSError):
            if verdicts := await self._decide(packet):
                self._socket.sendto(answer(verdicts), peer)

    async def _decide(self, packet: Packet) -> list[Verdict]:
        """The verdict for each recipient; none where one is missing."""
        connection = self._connect()
        if connection is None:
            return []
        said = b""
        with connection:
            # It answers while it is asked: of many recipients, neither fits into the socket's buffers.
            asking = asyncio.ensure_future(self._ask(connection, packet))
            missing = len(packet.recipients)
            try:
                while missing > 0:
                    if not (part := await self._loop.sock_recv(connection, DATAGRAM_MAX)):
                        return []
                    # The end of an answer may come in two parts.
                    missing -= (said[-1:] + part).count(b"\n\n")
                    said += part
                await asking
            finally:
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await asking
        return [Verdict(action.decode(), reason.decode(), int(wait)) for action, reason, wait in SAID.findall(said)]

    async def _ask(self, connection: socket.socket, packet: Packet) -> None:
        for request in packet.requests:
            await self._loop.sock_sendall(connection, request)

    async def stop(self) -> None:
        """Answer what has come, and take no more."""
        while len(self._tasks) < MESSAGES_MAX and self._receive():
            pass
        self._stopped = True
        self._loop.remove_reader(self._socket.fileno())
        if self._tasks:
            await asyncio.wait(self._tasks)
