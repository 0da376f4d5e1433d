"""gross: C, a thread for each connection, Bloom filters in memory."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from daemons import START, free_port, wait_for
from peers.peer import DELAY, Peer
from peers.questions import Request

# It refuses to be root; the package has made it a user.
USER = "gross"


class Gross(Peer):
    """grossd on a port of loopback, without checks that ask the DNS: a plain greylister."""

    name = "gross"
    packages = ("gross",)
    differs = ("gross: a daemon of threads, asked over connections that stay, with Bloom filters in memory, which can "
               "take a stranger for a known one, forget all of seven hours ago, and cannot say what is in them")
    client_differs = ("; gross lets five connections wait, so that of eight clients at once one in a hundred or so is "
                      "one too many and waits a second until its kernel tries again")
    expires = "gives up the oldest of eight Bloom filters every hour, however much is in it; nothing expires singly"
    # It asks itself for each to be filled in, and what it does does not depend on how many there are.
    most = 2000
    # A filter goes every hour and there are eight.
    lifetime = 8 * 3600

    @property
    def where(self) -> str:
        return str(self._port)

    def fill(self, entries: int, expiring: int, request: Callable[[int], Request]) -> None:
        """Asks about each while it has the shortest delay that there is; its state is kept in a file."""
        os.chmod(self.directory.parent, 0o711)
        self._configure(1)
        if self.becomes():
            shutil.chown(self.directory, USER, USER)
        subprocess.run(["setpriv", *self.becomes(), "grossd", "-C", "-f", self.directory / "grossd.conf"],
                       capture_output=True, check=True)
        with self.running(), socket.create_connection(("127.0.0.1", self._port)) as connection:
            for number in range(entries + expiring):
                self._accepts(connection, request(number))
            last = request(entries + expiring - 1)
            wait_for(lambda: self._accepts(connection, last), START, "gross to know a triplet", self.log)
        self._configure(DELAY)

    def becomes(self) -> list[str]:
        return [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []

    def command(self) -> tuple[list[str], dict[str, str]]:
        return ["grossd", "-d", "-r", "-f", str(self.directory / "grossd.conf")], {}

    def wrong_in(self, questions: Path) -> int:
        # A stranger may be in the filters by chance; far fewer are, with so little in them.
        return questions.read_bytes().count(b"\n") // 100

    def set_ahead(self, seconds: int) -> None:
        self._before = self._head()
        super().set_ahead(seconds)

    def expired(self) -> bool:
        return self._head() != self._before

    def _head(self) -> bytes:
        """Of its state: which filter is the newest, and since when."""
        with (self.directory / "state").open("rb") as state:
            return state.read(64)

    def _configure(self, delay: int) -> None:
        # The port may have been taken since it was last listened on.
        self._port = free_port()
        settings = {
            "host": "127.0.0.1", "port": self._port, "protocol": "postfix", "grey_threshold": 0, "grey_delay": delay,
            "statefile": self.directory / "state",
        }
        file = self.directory / "grossd.conf"
        file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))

    def _accepts(self, connection: socket.socket, request: Request) -> bool:
        client, sender, recipient = request
        connection.sendall(f"request=smtpd_access_policy\nclient_address={client}\nsender={sender}\n"
                           f"recipient={recipient}\n\n".encode())
        answer = b""
        while not answer.endswith(b"\n\n"):
            got = connection.recv(4096)
            if not got:
                raise SystemExit(f"bench: gross closed the connection: {self.log.read_text()[-500:]}")
            answer += got
        return b"defer" not in answer
