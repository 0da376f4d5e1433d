"""A loopback SMTP listener that treats the hook as qmail-smtpd with CHECKENV does, a process for each connection.

    listener.py HOOK STORE      prints the port it took, then serves until it is terminated
"""

import os
import re
import socketserver
import sys

ADDRESS = re.compile(rb"<([^>]*)>")
REPLIES = {
    0: b"250 ok",
    100: b"553 sorry, your mail is not wanted here (#5.7.1)",
}
# Any other status, and a hook that died, is a temporary failure.
DEFERRED = b"451 greylisted, please try again later (#4.7.1)"


class Session(socketserver.StreamRequestHandler):
    """One SMTP connection: as much of RFC 5321 as a sending client needs."""

    def handle(self) -> None:
        """Answer commands until QUIT or the end of the connection."""
        self._reply(b"220 demo.example ESMTP")
        self.sender: bytes | None = None
        self.accepted = 0
        while line := self.rfile.readline(1024):
            verb = line[:4].upper().strip()
            self._reply(getattr(self, f"_{verb.decode('ascii', 'replace').lower()}", self._unknown)(line))
            if verb == b"QUIT":
                return

    def _reply(self, text: bytes) -> None:
        self.wfile.write(text + b"\r\n")

    def _unknown(self, line: bytes) -> bytes:
        return b"502 unimplemented (#5.5.1)"

    def _ehlo(self, line: bytes) -> bytes:
        return b"250 demo.example"

    _helo = _ehlo

    def _mail(self, line: bytes) -> bytes:
        address = ADDRESS.search(line)
        if not address:
            return b"555 syntax error (#5.5.4)"
        self.sender, self.accepted = address[1], 0
        return b"250 ok"

    def _rcpt(self, line: bytes) -> bytes:
        address = ADDRESS.search(line)
        if self.sender is None:
            return b"503 MAIL first (#5.5.1)"
        if not address:
            return b"555 syntax error (#5.5.4)"
        reply = REPLIES.get(self._run_hook(self.sender, address[1]), DEFERRED)
        self.accepted += reply.startswith(b"250")
        return reply

    def _run_hook(self, sender: bytes, recipient: bytes) -> int:
        hook, store = sys.argv[1:3]
        environment = {"PROTO": "TCP", "TCPREMOTEIP": self.client_address[0], "FASTGREY_STORE": store}
        child = os.fork()
        if child == 0:
            try:
                os.execve(hook, [os.fsencode(hook), sender, recipient], environment)
            finally:
                os._exit(120)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _data(self, line: bytes) -> bytes:
        if not self.accepted:
            return b"503 RCPT first (#5.5.1)"
        self._reply(b"354 go ahead")
        while self.rfile.readline(65536) not in (b".\r\n", b""):
            pass
        return b"250 ok, taken"

    def _rset(self, line: bytes) -> bytes:
        self.sender, self.accepted = None, 0
        return b"250 flushed"

    def _noop(self, line: bytes) -> bytes:
        return b"250 ok"

    def _quit(self, line: bytes) -> bytes:
        return b"221 demo.example"


class Listener(socketserver.ForkingTCPServer):
    """As tcpserver: one process for each connection, so many at once."""

    allow_reuse_address = True
    request_queue_size = 256
    max_children = 100


def main() -> None:
    """Serve on a free port of the loopback address."""
    with Listener(("127.0.0.1", 0), Session) as listener:
        print(listener.server_address[1], flush=True)
        listener.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
