"""The master: binds, keeps workers running, replaces them at a reload. It opens no store: an LMDB environment must not
cross a fork."""

import contextlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from fastgrey.errors import FastgreyError

from . import activation, addresses, notify
from .addresses import Address
from .board import RESTARTS, WANTED, Board, Row, unseen
from .log import say
from .options import SOCKET, Options
from .watcher import Watcher
from .worker import GRACE, Worker

# A worker that says nothing for so long is stuck (a lock that a stopped process holds, a disk) and is replaced.
SILENCE = 30.0
# Between the death of a worker and its successor, doubling up to a bound; after so long a life it begins anew.
RESTART, RESTART_MOST, SETTLED = 0.2, 30.0, 60.0
# Of open files, beside connections: LMDB, pipes, listeners.
SPARE_FILES = 64
# The number of the process that keeps an engine (keeping.py).
KEEPER = -1
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass
class Child:
    """A worker, as the master knows it."""

    pid: int
    number: int
    heart: int
    row: Row
    begun: float
    beat: float
    ready: bool = False
    # Told to end.
    retired: bool = False


class Master:
    """The server on the store at path. load gives the options, at the start and at every reload."""

    def __init__(self, path: str, load: Callable[[], Options]):
        self.path = path
        self.load = load
        self.options = load()
        self.listeners: dict[Address | int, socket.socket] = {}
        # Whose name in the file system we made, and have to remove.
        self.made: dict[Address | int, tuple[int, int]] = {}
        self.children: dict[int, Child] = {}
        # Workers that a reload replaces, once their successors are ready.
        self.old: dict[int, Child] = {}
        self.before: Options | None = None
        self.failures: dict[int, int] = {}
        self.due: dict[int, float] = {}
        # Of the directory that the workers have open, whatever stands at the path by now.
        self.store = self._store_there()
        self.board = Board()
        self.watcher = Watcher(path, self.board)
        self.running = False
        self.stopping = False
        self.status = 0
        # When the watchdog of a service manager was told last.
        self.fed = 0.0

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status."""
        self._raise_limit()
        try:
            for given in activation.inherited():
                self.listeners[given.fileno()] = given
            self._bind(self.options)
            self._catch_signals()
            self.board.master.begin()
            self.watcher.begin(self.options)
            self._begin_workers()
            while self.children or self.old or self.due:
                self._wait()
                self._look()
        finally:
            self.watcher.end()
            for name in list(self.listeners):
                self._unbind(name)
        return self.status

    def _say(self, text: str, level: str = "warning") -> None:
        say(text, level, self.options.log)

    # Listeners

    @property
    def _own_address(self) -> Address:
        return Address("unix", os.path.join(os.path.abspath(self.path), SOCKET))

    def _own(self) -> socket.socket | None:
        """The store's own socket, be it ours or given."""
        own = self._own_address
        return next((listener for name, listener in self.listeners.items()
                     if name == own or isinstance(name, int) and listener.getsockname() == own.place), None)

    def _wanted(self, options: Options) -> list[tuple[Address, int]]:
        """Addresses with the modes of their sockets. Who may ask a hook's socket is in the group of the store."""
        own = self._own_address
        given = [listener.getsockname() for name, listener in self.listeners.items() if isinstance(name, int)]
        found = [] if own.place in given else [(own, 0o660)]
        return found + [(addresses.parse(text), 0o666) for text in options.listen]

    def _bind(self, options: Options) -> None:
        for address, mode in self._wanted(options):
            if address not in self.listeners:
                self.listeners[address] = addresses.bind(address, mode)
                if address.kind == "unix":
                    status = os.lstat(address.place)
                    self.made[address] = (status.st_dev, status.st_ino)
        # Last: it leaves the old place where it has the new one, and what fails has to leave everything.
        self.watcher.bind(options)

    def _unbind(self, name: Address | int) -> None:
        self.listeners.pop(name).close()
        if name in self.made and isinstance(name, Address):
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(name.place)
                if self.made.pop(name) == (status.st_dev, status.st_ino):
                    os.unlink(name.place)

    def _unbind_unwanted(self, options: Options) -> None:
        wanted = {address for address, _ in self._wanted(options)}
        for name in [name for name in self.listeners if isinstance(name, Address) and name not in wanted]:
            self._unbind(name)

    def _raise_limit(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        if soft != resource.RLIM_INFINITY and soft < self.options.share + SPARE_FILES:
            self._say(f"max_connections: {self.options.share} for each worker are more than {soft} open files allow; "
                      "raise LimitNOFILE= or ulimit -n")

    # Signals

    def _catch_signals(self) -> None:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        self.wakeup, self.wakeup_end = reader, writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda number, frame: None)
        self.selector = selectors.DefaultSelector()
        self.selector.register(reader, selectors.EVENT_READ)

    def _wait(self) -> None:
        now = time.monotonic()
        pause = min([0.5, *(due - now for due in self.due.values())])
        for key, _ in self.selector.select(max(0, pause)):
            if key.fileobj is self.wakeup:
                for number in self.wakeup.recv(256):
                    self._signalled(number)
            else:
                self._heard(key.data)

    def _signalled(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP and not self.stopping:
            self._reload()

    # Workers

    def _begin_workers(self) -> None:
        self.board.master.set(WANTED, self.options.processes)
        for number in sorted(self._numbers(self.options), reverse=True):
            self._begin(number)

    @staticmethod
    def _numbers(options: Options) -> set[int]:
        return {*range(options.processes), *([KEEPER] if options.engine else [])}

    def _begin(self, number: int) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        row = unseen() if number == KEEPER else self.board.claim()
        # What comes before the worker knows what to do with it ends it, and is not lost on the handler of the master.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            row.end()
            os.close(reader)
            os.close(writer)
            self._say(f"cannot start a worker: {error.strerror}; it is tried again; raise TasksMax= or ulimit -u")
            self._begin_later(number)
            return
        if pid == 0:
            for stop in STOPS:
                signal.signal(stop, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            os.close(reader)
            os._exit(self._work(number, writer, row))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        os.close(writer)
        now = time.monotonic()
        child = self.children[pid] = Child(pid, number, reader, row, now, now)
        self.selector.register(reader, selectors.EVENT_READ, child)

    def _work(self, number: int, heart: int, row: Row) -> int:
        """The life of a worker, in its own process; its exit status."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # The master's ends of the pipes of others: who holds one would not let them see the master go.
            for child in (*self.children.values(), *self.old.values()):
                os.close(child.heart)
            self.selector.close()
            self.wakeup.close()
            self.wakeup_end.close()
            self.watcher.leave()
            if number == KEEPER:
                # Where it alone had them, mail servers would wait for nobody.
                for listener in self.listeners.values():
                    listener.close()
                from .keeping import keep

                keep(self.path, self.options, heart)
                return 0
            Worker(self.path, self.options, list(self.listeners.values()), self._own(), number, heart,
                   row, self.board.used).run()
            return 0
        except FastgreyError as error:
            self._say(str(error))
            return 1
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            return 70

    def _heard(self, child: Child) -> None:
        try:
            said = os.read(child.heart, 4096)
        except BlockingIOError:
            return
        if not said:
            self.selector.unregister(child.heart)
            return
        child.beat = time.monotonic()
        if not child.ready:
            child.ready = True
            self._ready()

    def _ready(self) -> None:
        if self.due or self.stopping or not all(child.ready for child in self.children.values()):
            return
        if not self.running:
            self.running = True
            places = ", ".join(str(name) for name in self.listeners if isinstance(name, Address))
            self._say(f"serving {self.path} with {self.options.processes} workers; listening on {places}", "info")
        self.before = None
        self._unbind_unwanted(self.options)
        for child in self.old.values():
            # One that was told already may have no handler for it any more.
            if not child.retired:
                self._retire(child, signal.SIGUSR1)
        notify.notify("READY=1", f"STATUS={self.options.processes} workers")

    def _look(self) -> None:
        """See who ended, who is stuck, who is due."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._ended(pid, os.waitstatus_to_exitcode(status))
        now = time.monotonic()
        for child in (*self.children.values(), *self.old.values()):
            if now - child.beat > SILENCE:
                self._say(f"worker {child.pid} did nothing for {SILENCE:.0f} seconds and is killed; ask: "
                          "fastgrey doctor")
                child.beat = now
                os.kill(child.pid, signal.SIGKILL)
        for number in [number for number, due in self.due.items() if due <= now]:
            del self.due[number]
            self._begin(number)
        self._look_at_store()
        self.board.master.beat()
        self.watcher.look(self.options)
        self._tell_watchdog(now)

    def _store_there(self) -> tuple[int, int] | None:
        """What tells the store at the path from others; None where there is none, or not yet all of one."""
        with contextlib.suppress(OSError):
            os.lstat(os.path.join(self.path, "current"))
            status = os.stat(self.path)
            return status.st_dev, status.st_ino
        return None

    def _look_at_store(self) -> None:
        """Begin anew where another store stands at the path, as after a restore: workers would go on with the one that
        is gone, and what they write there is lost."""
        there = self._store_there()
        if there in (None, self.store) or not self.running or self.stopping or self.before is not None:
            return
        self.store = there
        self._say(f"another store stands at {self.path} by now; the workers are replaced")
        if (own := self._own_address) in self.listeners:
            # It stands in the directory that is gone.
            self._unbind(own)
        self._reload()

    def _ended(self, pid: int, status: int) -> None:
        old = self.old.pop(pid, None)
        child = old or self.children.pop(pid, None)
        if child is None:
            if self.watcher.ended(pid):
                self._say("what answers /metrics ended; another one begins")
            return
        child.row.end()
        with contextlib.suppress(KeyError):
            self.selector.unregister(child.heart)
        os.close(child.heart)
        if child.retired or self.stopping:
            return
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        if not child.ready and not self.running:
            self.status = 1
            self._stop()
        elif old is not None:
            # Its successor has begun; where that does not get ready, another one does (_take_back).
            self._say(f"worker {pid} ended {how}")
        elif not child.ready and self.before is not None:
            self._take_back()
        else:
            self._say(f"worker {pid} ended {how}; another one begins")
            self.board.master.add(RESTARTS)
            if time.monotonic() - child.begun > SETTLED:
                self.failures[child.number] = -1
            self._begin_later(child.number)

    def _begin_later(self, number: int) -> None:
        failures = self.failures[number] = self.failures.get(number, 0) + 1
        self.due[number] = time.monotonic() + min(RESTART_MOST, RESTART * 2 ** failures)

    def _retire(self, child: Child, number: int = signal.SIGTERM) -> None:
        child.retired = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)

    # Reload and stop

    def _reload(self) -> None:
        notify.reloading()
        if self.before is not None:
            self._take_back()
        try:
            options = self.load()
            self._bind(options)
        except FastgreyError as error:
            self._unbind_unwanted(self.options)
            self._say(f"not reloaded: {error}")
            notify.notify("READY=1")
            return
        self.before, self.options = self.options, options
        self.watcher.begin(options)
        self.due.clear()
        self.failures.clear()
        self.old |= self.children
        self.children = {}
        self._begin_workers()

    def _take_back(self) -> None:
        """The new workers cannot run; the old ones go on."""
        assert self.before is not None
        self._say("not reloaded: the new workers did not get ready; the old ones go on")
        self.options, self.before = self.before, None
        new = self.children
        self.children = {pid: child for pid, child in self.old.items() if not child.retired}
        self.old = {pid: child for pid, child in self.old.items() if child.retired} | new
        for child in new.values():
            self._retire(child)
        self._unbind_unwanted(self.options)
        # Old ones that ended meanwhile, or were about to be started again.
        self.due = dict.fromkeys(self._numbers(self.options) - {child.number for child in self.children.values()}, 0.0)
        self.board.master.set(WANTED, self.options.processes)
        try:
            self.watcher.bind(self.options)
        except FastgreyError as error:
            self._say(str(error))
        self.watcher.begin(self.options)
        notify.notify("READY=1")

    def _stop(self) -> None:
        if not self.stopping:
            self.stopping = True
            notify.notify("STOPPING=1")
            self.due.clear()
            # Whoever asks from now on is refused, and does not wait in a queue for workers that end.
            for name in list(self.listeners):
                self._unbind(name)
            signal.signal(signal.SIGALRM, self._kill)
            signal.alarm(int(GRACE) + 5)
            for child in (*self.children.values(), *self.old.values()):
                self._retire(child)

    def _kill(self, number: int, frame: object) -> None:
        for child in (*self.children.values(), *self.old.values()):
            self._say(f"worker {child.pid} does not end and is killed")
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def _tell_watchdog(self, now: float) -> None:
        interval = notify.watchdog()
        if interval is not None and now - self.fed > interval / 3:
            self.fed = now
            notify.notify("WATCHDOG=1")
