"""Servers that a benchmark starts, asks and ends: each in the foreground, out of a directory of its own."""

import contextlib
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# Seconds at most, of starting and of ending.
START, END = 60, 5


class Daemon(ABC):
    """One of them."""

    name: str
    # How `ask` and `load` speak to it.
    way = "policy"

    def __init__(self, directory: Path) -> None:
        """directory: empty, and this daemon's own."""
        self.directory = directory
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def where(self) -> str:
        """A path, or a port of loopback."""

    @abstractmethod
    def command(self) -> tuple[list[str], dict[str, str]]:
        """The command that runs it in the foreground, and what it needs in the environment."""

    def becomes(self) -> list[str]:
        """Options of setpriv(1) that make the daemon another user; none where it stays who we are."""
        return []

    @contextlib.contextmanager
    def running(self, environment: Mapping[str, str] | None = None) -> Iterator[None]:
        """Start it, wait until it accepts connections, and end it."""
        words, needed = self.command()
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **needed, **(environment or {})}
        with self.log.open("ab") as log:
            # It does not outlive this process, however that ends.
            self._process = subprocess.Popen(["setpriv", *self.becomes(), "--pdeathsig", "KILL", *words],
                                             env=environment, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log)
        try:
            wait_for(self._answers, START, f"{self.name} to start", self.log)
            yield
        finally:
            self._process.terminate()
            try:
                self._process.wait(END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def kill(self) -> None:
        """End it in the middle of what it does."""
        if self._process:
            self._process.kill()

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise SystemExit(f"bench: {self.name} ended at once: {self.log.read_text()[-500:]}")
        local = self.where.startswith("/")
        with socket.socket(socket.AF_UNIX if local else socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(self.where if local else ("127.0.0.1", int(self.where))) == 0


def wait_for(condition: Callable[[], bool], seconds: float, what: str, log: Path) -> None:
    """Until the condition holds; the end of the log is in the message where it does not."""
    if not reached(condition, seconds):
        raise SystemExit(f"bench: waited {seconds} seconds for {what}: {log.read_text()[-500:]}")


def reached(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition holds within so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
