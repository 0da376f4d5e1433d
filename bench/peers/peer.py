"""What peers have in common: a directory, a process, a clock that can be set ahead."""

import contextlib
import grp
import os
import pwd
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from peers.questions import Request

# Seconds at most, of starting and of ending.
START, END = 60, 5
DELAY = 300
# What is filled in as about to expire does so in half an hour; the clock is then set ahead by two.
DUE, AHEAD = 1800, 7200


class Peer(ABC):
    """A daemon from a Debian package."""

    name: str
    packages: tuple[str, ...]
    # How `ask` speaks to it.
    way = "policy"
    # What is not comparable, for the notes of figures.
    differs: str
    # The same of a client that connects anew for every question.
    client_differs = ""
    # What it does to get rid of what expired.
    expires: str
    # Seconds that a known triplet is remembered.
    lifetime: int
    # Entries that an expiry is measured with.
    most = 10_000_000

    def __init__(self, directory: Path) -> None:
        """directory: empty, and this peer's own."""
        self.directory = directory
        self.log = directory / "log"
        self._clock = directory / "clock"
        self._process: subprocess.Popen[bytes] | None = None
        self._clock.write_bytes(bytes(8))
        self.seen = int(time.time())

    @classmethod
    def missing(cls) -> str:
        """What keeps it from being measured here, in a few words; empty where nothing does."""
        absent = [package for package in cls.packages if not _installed(package)]
        return f"not installed: {', '.join(absent)}" if absent else ""

    @property
    @abstractmethod
    def where(self) -> str:
        """A path, or a port of loopback."""

    @abstractmethod
    def fill(self, entries: int, expiring: int, request: Callable[[int], Request]) -> None:
        """Make so many triplets known and, beside them, as many as are about to expire; before running()."""

    @abstractmethod
    def command(self) -> tuple[list[str], dict[str, str]]:
        """The command that runs it in the foreground, and what it needs in the environment."""

    def wrong_in(self, questions: Path) -> int:
        """How many wrong answers to these are its nature rather than a mistake of ours."""
        return 0

    def becomes(self) -> list[str]:
        """Options of setpriv(1) that make the daemon another user; none where it stays who we are."""
        return []

    @abstractmethod
    def expired(self) -> bool:
        """Whether an expiry is over that began after the clock was set ahead."""

    def remaining(self) -> int | None:
        """Entries after an expiry, where that can be told."""
        return None

    @contextlib.contextmanager
    def running(self, clock: Path | None = None) -> Iterator[None]:
        """Start it, wait until it accepts connections, and end it. clock: the library that sets its clock ahead."""
        words, environment = self.command()
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **environment}
        if clock:
            environment |= {"LD_PRELOAD": str(clock), "BENCH_CLOCK": str(self._clock)}
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

    def set_ahead(self, seconds: int) -> None:
        """Set its clock ahead; it must have been started with one."""
        with self._clock.open("r+b") as clock:
            clock.write(seconds.to_bytes(8, "little"))

    def last_seen(self, number: int, expiring: int) -> int:
        """When the triplet of that number was last seen: those under `expiring` are about to expire."""
        return self.seen - self.lifetime + DUE if number < expiring else self.seen

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


def me() -> tuple[str, str]:
    """The user and the group that peers are told to stay."""
    return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C"})
    return "ok installed" in done.stdout
