"""What peers have in common: a Debian package, entries that expire, a clock that can be set ahead."""

import contextlib
import grp
import os
import pwd
import shutil
import subprocess
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from daemons import Daemon
from peers.questions import Request

DELAY = 300
# What is filled in as about to expire does so in half an hour; the clock is then set ahead by two.
DUE, AHEAD = 1800, 7200


class Peer(Daemon):
    """A daemon from a Debian package."""

    packages: tuple[str, ...]
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
        super().__init__(directory)
        self._clock = directory / "clock"
        self._clock.write_bytes(bytes(8))
        self.seen = int(time.time())

    @classmethod
    def missing(cls) -> str:
        """What keeps it from being measured here, in a few words; empty where nothing does."""
        absent = [package for package in cls.packages if not _installed(package)]
        return f"not installed: {', '.join(absent)}" if absent else ""

    @abstractmethod
    def fill(self, entries: int, expiring: int, request: Callable[[int], Request]) -> None:
        """Make so many triplets known and, beside them, as many as are about to expire; before running()."""

    def wrong_in(self, questions: Path) -> int:
        """How many wrong answers to these are its nature rather than a mistake of ours."""
        return 0

    @abstractmethod
    def expired(self) -> bool:
        """Whether an expiry is over that began after the clock was set ahead."""

    def remaining(self) -> int | None:
        """Entries after an expiry, where that can be told."""
        return None

    @contextlib.contextmanager
    def clocked(self, clock: Path) -> Iterator[None]:
        """As running(), with a clock that can be set ahead; clock: the library that does it."""
        with self.running({"LD_PRELOAD": str(clock), "BENCH_CLOCK": str(self._clock)}):
            yield

    def set_ahead(self, seconds: int) -> None:
        """Set its clock ahead; it must have been started with one."""
        with self._clock.open("r+b") as clock:
            clock.write(seconds.to_bytes(8, "little"))

    def last_seen(self, number: int, expiring: int) -> int:
        """When the triplet of that number was last seen: those under `expiring` are about to expire."""
        return self.seen - self.lifetime + DUE if number < expiring else self.seen


def me() -> tuple[str, str]:
    """The user and the group that peers are told to stay."""
    return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


def _installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C"})
    return "ok installed" in done.stdout
