"""IndiMail's greylisting protocol: one datagram asks about a message and all of its recipients, two bytes answer.

Its qmail-smtpd sends the datagram at DATA, where GREYIP names a server (greylist(3) and qmail-greyd(8) of indimail-mta):

    I client NUL  F sender NUL  T recipient NUL  ...  NUL

It looks at the first byte of the answer alone: 0 is 450 for the whole message, anything else accepts. It asks once, and
says 451 and hangs up where no answer comes within a few seconds.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from fastgrey.verdict import Verdict

# Clients before 2016 leave out the NUL at the end. Whether the client is an address is the decision's to say: qmail-smtpd
# sends "unknown" where tcpserver told it none.
PACKET = re.compile(rb"I([!-~]+)\0F([^\0]*)\0((?:T[^\0]*\0)+)\0?")
# More than a datagram can hold.
DATAGRAM_MAX = 65_536
# So many messages are decided at once by a worker; more wait in the socket, where the kernel bounds them.
MESSAGES_MAX = 256

# The second byte says why, in qmail-greyd's numbers, for who watches the wire.
ACCEPTED_BY_RULE, ACCEPTED_AS_KNOWN, ACCEPTED_NOW = b"\1\1", b"\1\2", b"\1\3"
REFUSED_NEW, REFUSED_EARLY, REFUSED = b"\0\1", b"\0\2", b"\0\4"
ANSWERS = {"new": REFUSED_NEW, "early": REFUSED_EARLY, "retry": ACCEPTED_NOW, "pool": ACCEPTED_NOW}

# Decides one recipient of one message, and records and logs that: client, sender and recipient, as they came.
Decide = Callable[[bytes, bytes, bytes], Awaitable[Verdict]]


class Packet(NamedTuple):
    """What a datagram asks: text of the client's address, sender, and the recipients, each once, in their order."""

    client: bytes
    sender: bytes
    recipients: tuple[bytes, ...]


def parse(datagram: bytes) -> Packet | None:
    """The question of a datagram; None where it is none in this protocol."""
    if (found := PACKET.fullmatch(datagram)) is None:
        return None
    client, sender, recipients = found.groups()
    # One that is named twice is asked about once: no message is a retry of itself.
    return Packet(client, sender, tuple(dict.fromkeys(part[1:] for part in recipients.split(b"\0")[:-1])))


def answer(verdicts: Sequence[Verdict]) -> bytes:
    """The two bytes for these verdicts, one for each recipient, at least one. The message is accepted where all are. The
    protocol has no word for reject: that is refused as well, each time."""
    verdict = next((verdict for verdict in verdicts if verdict.action != "accept"), verdicts[0])
    if verdict.action != "accept":
        return ANSWERS.get(verdict.reason, REFUSED)
    if verdict.reason.startswith("known-"):
        return ACCEPTED_AS_KNOWN
    return ANSWERS.get(verdict.reason, ACCEPTED_BY_RULE)


class Datagrams:
    """Answers what comes to a bound datagram socket, which other processes may read as well: what this one has not
    taken when it stops is theirs."""

    def __init__(self, listener: socket.socket, decide: Decide):
        self._socket = listener
        self._socket.setblocking(False)
        self._decide = decide
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        # Datagrams in another shape than the protocol's, which are not answered.
        self.broken = 0
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._socket, self._receive)

    def _receive(self) -> None:
        try:
            datagram, peer = self._socket.recvfrom(DATAGRAM_MAX)
        except OSError:
            # Another process was quicker.
            return
        if (packet := parse(datagram)) is None:
            self.broken += 1
            return
        task = self._loop.create_task(self._answer(packet, peer))
        self._tasks.add(task)
        task.add_done_callback(self._answered)
        if len(self._tasks) >= MESSAGES_MAX:
            self._loop.remove_reader(self._socket)

    def _answered(self, task: asyncio.Task[None]) -> None:
        full = len(self._tasks) >= MESSAGES_MAX
        self._tasks.discard(task)
        if full and not self._stopped:
            self._listen()

    async def _answer(self, packet: Packet, peer: Any) -> None:
        verdicts = []
        for recipient in packet.recipients:
            verdicts.append(await self._decide(packet.client, packet.sender, recipient))
            # A datagram holds thousands of recipients; others are served between two of them.
            await asyncio.sleep(0)
        # Where the socket is full, or the client gone, it asks again with the next attempt of the mail.
        with contextlib.suppress(OSError):
            self._socket.sendto(answer(verdicts), peer)

    async def stop(self) -> None:
        """Take no more, and answer what was taken."""
        self._stopped = True
        self._loop.remove_reader(self._socket)
        if self._tasks:
            await asyncio.wait(self._tasks)
