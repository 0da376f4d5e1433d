"""A real PostgreSQL in a directory of its own, and a standby that follows it."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ports import free_port

# Debian's place, newest version last.
PROGRAMS = "/usr/lib/postgresql/*/bin"
# initdb refuses root; Debian makes this user, others have at least nobody.
USERS = ("postgres", "nobody")
SETTINGS = {
    "fsync": "off", "shared_buffers": "32MB", "max_connections": "60", "unix_socket_permissions": "0777",
    "max_wal_size": "256MB", "autovacuum_naptime": "5s", "log_min_messages": "warning", "lc_messages": "C",
    "logging_collector": "off", "log_destination": "stderr", "wal_level": "replica", "max_wal_senders": "4",
}


def programs() -> Path:
    """Where PostgreSQL's programs are; skips where they are missing."""
    places = sorted(Path("/").glob(PROGRAMS[1:]), key=lambda place: int(place.parent.name))
    if not places and (found := shutil.which("pg_ctl")):
        places = [Path(found).resolve().parent]
    if not places:
        pytest.skip("no PostgreSQL here; Debian: apt-get install postgresql (make test-packages does, as root)")
    return places[-1]


def account() -> dict[str, int | list[int]]:
    """Options of subprocess for the user that the server runs as."""
    if os.geteuid() != 0:
        return {}
    for name in USERS:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return pytest.fail("neither a user postgres nor nobody here, as which PostgreSQL could run")


class Server:
    """One server: role postgres, database postgres, no password over the socket or from 127.0.0.1.

    Everything of it is below place; end() ends it whatever state it is in.
    """

    def __init__(self, place: Path):
        self.place = place
        self.data = place / "data"
        self.log = place / "log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._as = account()
        self._bin = programs()

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run([str(self._bin / program), *map(str, arguments)], cwd="/", capture_output=True, text=True,
                              timeout=300, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, **self._as)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def make(self) -> None:
        """An empty cluster."""
        self._run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8",
                  "-D", self.data)
        self.set(**SETTINGS)

    def follow(self, primary: "Server") -> None:
        """A copy of that server, which follows it until it is promoted."""
        self._run("pg_basebackup", "--no-sync", "--checkpoint=fast", "--write-recovery-conf", "--wal-method=stream",
                  "-h", "127.0.0.1", "-p", primary.port, "-U", "postgres", "-D", self.data)

    def set(self, **settings: str) -> None:
        """Add settings, in force from the next start or reload on."""
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> "Server":
        """Start it on the port it has, or on a free one, and wait until it takes connections."""
        for _ in range(10):
            port = self.port or free_port()
            with open(self.log, "ab") as log:
                self._process = subprocess.Popen(
                    [str(self._bin / "postgres"), "-D", str(self.data), "-p", str(port), "-k", str(self.place),
                     "-c", "listen_addresses=127.0.0.1"],
                    cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, **self._as)
            if self._takes_connections(port):
                self.port = port
                return self
            self.end()
        raise AssertionError(f"PostgreSQL did not start: {self.log.read_text()[-2000:]}")

    def _takes_connections(self, port: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + 120
        while self._process.poll() is None and time.monotonic() < deadline:
            ready = subprocess.run([str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U",
                                    "postgres", "-d", "postgres"], cwd="/", timeout=60)
            if ready.returncode == 0:
                return True
            time.sleep(0.05)
        return False

    @property
    def url(self) -> str:
        """As the engine takes it; superuser, over TCP."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        """The same over the unix socket."""
        return f"postgresql://postgres@/postgres?host={self.place}&port={self.port}"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def promote(self) -> None:
        """Make the standby a primary, and wait until it is one."""
        self._run("pg_ctl", "promote", "-w", "-t", "120", "-D", self.data)

    def kill(self) -> None:
        """End it and all of its processes without a chance to say goodbye, as a power cut would."""
        if self._process is not None:
            # The session has the postmaster's number; backends have groups of their own.
            pids = [self._process.pid, *self._children()]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(timeout=60)
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            self._wait_for_end(pids)
            self._process = None

    def _children(self) -> list[int]:
        assert self._process is not None
        found = []
        for task in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in task.read_text().split()]
        return found

    @staticmethod
    def _wait_for_end(pids: list[int]) -> None:
        """A backend that still runs keeps the shared memory, and the next start would refuse."""
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.01)

    def pause(self) -> None:
        """Stop every process of it (SIGSTOP): it is there and does not answer."""
        for pid in [self.pid, *self._children()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        for pid in [*self._children(), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it as an administrator does in a hurry (fast shutdown); it can be started again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=120)
            self._process = None

    def end(self) -> None:
        """End it for good."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.resume()
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A place that the server's user can enter and write to: parents of the tests' own may keep it out."""
    place = Path(tempfile.mkdtemp(prefix="fg-pg-", dir="/tmp"))
    try:
        place.chmod(0o755)
        if as_user := account():
            os.chown(place, as_user["user"], as_user["group"])
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server that runs and is empty."""
    with directory() as place:
        made = Server(place)
        try:
            made.make()
            yield made.start()
        finally:
            made.end()


@contextlib.contextmanager
def standby(primary: Server) -> Iterator[Server]:
    """A running standby of that server, to be promoted."""
    with directory() as place:
        made = Server(place)
        try:
            made.follow(primary)
            yield made.start()
        finally:
            made.end()
