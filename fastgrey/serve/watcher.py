"""The process that answers whoever watches the server, as the master keeps it."""

import contextlib
import os
import signal
import socket
import time
import traceback

from fastgrey.errors import ServeError

from .board import Board
from .options import Options

# Between its death and its successor.
RESTART = 2.0


class Watcher:
    """At most one such process at a time, on the address that the options name; none where they name none."""

    def __init__(self, path: str, board: Board):
        self.path = path
        self.board = board
        self.pid = 0
        self._listener: socket.socket | None = None
        self._place = ""
        self._due = 0.0

    def bind(self, options: Options) -> None:
        """Listen where the options say. ServeError; then what listened before still does."""
        if options.metrics == self._place:
            return
        listener = None
        if options.metrics:
            # Only here: without it nobody pays for what answers HTTP.
            from . import web

            host, _, port = options.metrics.rpartition(":")
            try:
                listener = web.listen(host.removeprefix("[").removesuffix("]"), int(port))
            # A TypeError is what bind makes of a UnicodeError.
            except (UnicodeError, TypeError):
                raise ServeError(f"metrics = {options.metrics!r}: no name of a host; name an address") from None
            except OSError as error:
                raise ServeError(f"cannot answer /metrics on {options.metrics}: "
                                 f"{os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error}; "
                                 "name another address as metrics in [serve], or none") from None
        if self._listener is not None:
            self._listener.close()
        self._listener, self._place = listener, options.metrics

    def begin(self, options: Options) -> None:
        """Start it, or start it anew with other options."""
        self.end()
        if self._listener is not None:
            self._fork(self._listener, options)

    def ended(self, pid: int) -> bool:
        """Whether that process was it."""
        if pid != self.pid:
            return False
        self.pid, self._due = 0, time.monotonic() + RESTART
        return True

    def look(self, options: Options) -> None:
        """Start it again where it ended by itself."""
        if self._listener is not None and not self.pid and time.monotonic() >= self._due:
            self._fork(self._listener, options)

    def end(self) -> None:
        """It has nothing to finish."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            self.pid = 0

    def leave(self) -> None:
        """In another process: the address is to be free when the master is gone."""
        if self._listener is not None:
            self._listener.close()

    def _fork(self, listener: socket.socket, options: Options) -> None:
        master = os.getpid()
        try:
            self.pid = os.fork()
        except OSError:
            self._due = time.monotonic() + RESTART
            return
        if self.pid:
            return
        try:
            self._live(listener, options, master)
        except BaseException:
            traceback.print_exc()
        os._exit(70)

    def _live(self, listener: socket.socket, options: Options, master: int) -> None:
        from . import sharing, web
        from .watch import Watch

        signal.set_wakeup_fd(-1)
        for number in (signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
        # Whoever has the sockets of mail servers or the master's ends of pipes keeps them open after the master.
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != listener.fileno():
                with contextlib.suppress(OSError):
                    os.close(int(name))
        engine = (lambda: sharing.engine(options)) if options.engine else None
        web.run(listener, self.board, Watch(self.path, engine, options.fallback == "local"), master)
