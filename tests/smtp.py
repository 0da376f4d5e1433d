"""SMTP clients: one that sends just the bytes it is told to, and the command swaks."""

import socket
import struct
import subprocess

from machine import tool


class Session:
    """A connection whose greeting was read; source is the client's address."""

    def __init__(self, server, source=None):
        self._socket = socket.create_connection((server.address, server.port), timeout=60,
                                                source_address=source and (source, 0))
        self._replies = self._socket.makefile("rb")
        greeting = self.reply()
        if greeting != "220 mx.example ESMTP":
            self.close()
            raise AssertionError(f"greeted with {greeting!r}")

    def send(self, *lines):
        """Send lines, in one piece, each with its CR LF."""
        self._socket.sendall(b"".join(_bytes(line) + b"\r\n" for line in lines))

    def send_raw(self, content):
        """Send these bytes."""
        self._socket.sendall(content)

    def reply(self):
        """The next reply, whole; of one that has several lines, the last. Empty when the server has hung up."""
        while (line := self._replies.readline())[3:4] == b"-":
            pass
        assert line == b"" or line.endswith(b"\r\n"), line
        return line[:-2].decode("latin-1")

    def say(self, *lines):
        """Send lines in one piece; their replies."""
        self.send(*lines)
        return [self.reply() for _ in lines]

    def mail(self, sender, *recipients, text="Subject: hello\r\n\r\nhello"):
        """A mail from here on to its end; the code of the reply to each recipient. No DATA where none was accepted."""
        assert self.say(f"MAIL FROM:<{sender}>") == ["250 ok"]
        codes = [self.say(f"RCPT TO:<{recipient}>")[0][:3] for recipient in recipients]
        if "250" in codes:
            assert self.say("DATA") == ["354 go ahead"]
            self.send(text, ".")
            assert self.reply() == "250 ok taken"
        else:
            self.say("RSET")
        return codes

    def close(self):
        """Hang up in order."""
        self._replies.close()
        self._socket.close()

    def drop(self):
        """Hang up as a client that died does: the server gets a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _bytes(line):
    return line if isinstance(line, bytes) else line.encode()


def swaks(server, sender, recipients, *options):
    """Send a mail with swaks; the finished process, with the transcript as its output."""
    return subprocess.run([tool("swaks"), "--server", server.address, "--port", str(server.port),
                           "--helo", "client.example", "--from", sender or "<>", "--to", ",".join(recipients),
                           *options], capture_output=True, text=True, timeout=120)
