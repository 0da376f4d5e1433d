"""Messages as a client sends them and as a mail server delivered them, each byte of them."""

import socket
import time
from pathlib import Path
from typing import NamedTuple

from smtp import Session
from tcpserver import end_session, wait_until

TEXT = "From: a@example.org\r\nSubject: hello\r\n\r\nhello\r\n"


class Delivered(NamedTuple):
    """A message in a maildir. sender and recipient: of its envelope. fields: of the header, each with its name. body:
    what follows the header, with the ends of lines that the maildir has."""

    sender: str
    recipient: str
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name):
        """What the header fields of that name say, in order."""
        return [value for field, value in self.fields if field.lower() == name.lower()]


def delivered(maildir):
    """All messages in a maildir, in order."""
    return sorted(_read(file) for file in Path(maildir).glob("new/*"))


def _read(file):
    header, _, body = file.read_bytes().partition(b"\n\n")
    fields = []
    for line in header.decode("utf-8", "surrogateescape").split("\n"):
        if line[:1] in " \t":
            name, value = fields.pop()
            fields.append((name, f"{value} {line.strip()}"))
        else:
            name, _, value = line.partition(": ")
            fields.append((name, value))
    (sender,) = [value for name, value in fields if name.lower() == "return-path"]
    (recipient,) = [value for name, value in fields if name in ("Delivered-To", "Envelope-to")]
    return Delivered(sender.strip("<>"), recipient, fields, body)


class MailServer:
    """A mail server that runs in a folder which every user may enter, and delivers into boxes/maildir there."""

    address = "127.0.0.1"
    port: int

    def __init__(self, place):
        self.place = place
        # The leader of the session of all that runs of it.
        self._leader = None

    def start(self):
        """Start it, where a port was taken meanwhile on another one."""
        assert any(self._starts() for _ in range(5)), self.log()

    def stop(self):
        """End all of its processes."""
        if self._leader is not None:
            assert end_session(self._leader) == []

    def _starts(self):
        """Start on some port; whether that one was free."""
        raise NotImplementedError

    def session(self):
        """A client whose EHLO was answered."""
        session = Session(self)
        session.say("EHLO client.example")
        return session

    def on_its_way(self):
        """Whether there are messages that are not delivered."""
        raise NotImplementedError

    def log(self):
        """What it logged."""
        raise NotImplementedError

    def delivered(self, number, sender=""):
        """The messages delivered of senders that end so, as soon as there are so many and no other is on its way."""

        def found():
            return [one for one in delivered(self.place / "boxes" / "maildir") if one.sender.endswith(sender)]

        wait_until(lambda: len(found()) >= number and not self.on_its_way())
        assert len(found()) == number, (found(), self.log())
        return found()


def send(session, sender, *recipients, text=TEXT, options=""):
    """One message in a session that said EHLO: the reply to each recipient. Where one is taken, the message is sent."""
    (reply,) = session.say(f"MAIL FROM:<{sender}>{options}")
    assert reply.startswith("250 "), reply
    replies = [session.say(f"RCPT TO:<{recipient}>")[0] for recipient in recipients]
    if any(reply.startswith("250 ") for reply in replies):
        assert session.say("DATA")[0].startswith("354 ")
        session.send_raw((text.replace("\r\n.", "\r\n..") + ".\r\n").encode("utf-8", "surrogateescape"))
        assert (reply := session.reply()).startswith("250 "), reply
    else:
        session.say("RSET")
    return replies


def attempt(server, sender, *recipients, source=None, before=(), **message):
    """The same in a session of its own. before: what is said after EHLO, with the code it has to be answered by."""
    with Session(server, source) as session:
        assert session.say("EHLO client.example")[0].startswith("250 ")
        for line, code in before:
            (reply,) = session.say(line)
            assert reply.startswith(f"{code} "), reply
        replies = send(session, sender, *recipients, **message)
        session.say("QUIT")
    return replies


def codes(replies):
    """The codes of replies."""
    return [reply[:3] for reply in replies]


def come_back(server, sender, *recipients, **options):
    """Try as a client does that is deferred, until every recipient is taken, each once; the codes of each attempt."""
    said, left = [], list(recipients)

    def taken():
        if said:
            time.sleep(0.1)
        said.append(codes(attempt(server, sender, *left, **options)))
        left[:] = [recipient for recipient, code in zip(left, said[-1], strict=True) if code != "250"]
        return not left

    assert wait_until(taken), said
    return said


def has_ipv6():
    """Whether this kernel has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
