"""A worker: one process that takes connections from the listeners and answers what comes over them.

The core moves the bytes and decides (core/connections.pxi); this loop keeps the times, takes connections in and asks
the engine. It waits where the core does, which returns whenever something else is to be done.
"""

import asyncio
import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastgrey import directory
from fastgrey._core import Case, Connections, Store
from fastgrey.errors import EngineError, FastgreyError

from . import board, log, log_lines, scribe
from .board import Row
from .indimail import Datagrams
from .options import Options

if TYPE_CHECKING:
    from fastgrey.shared.engine import SharedEngine
    from fastgrey.shared.greylist import Greylist

# Seconds for which half a request may stay half, or a reply unread.
HALF = 30.0
# Below the ten seconds after which callers give up, as in the hook (core/hook.pxi).
PATIENCE = 8.0
# What is under way when a worker ends is answered within this.
GRACE = PATIENCE + 2
# A worker that others replace leaves a connection so long to ask once more: its client may be about to.
LINGER = 3.0
# At first, and at most, between two scribes.
RESTART, RESTART_MOST = 0.05, 5.0
# After the system had no descriptor or memory for a connection.
PAUSE = 0.5
# A worker that has more connections than another one lets that take the next one, and waits for it so long at most.
COURTESY = 0.005
# By so much of its own it may have more, so that thousands that come at once do not wait for each other.
SLACK = 8
# A worker that did nothing for so long takes none.
ABSENT = 2.0


class _Selector(selectors.EpollSelector):
    """Waits for what asyncio waits for, and serves meanwhile."""

    serve: Callable[[float | None], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.serve is not None:
            self.serve(timeout)
            timeout = 0
        return super().select(timeout)


class Worker:
    """One worker. number: from 0, among those that run at the same time. heart: a pipe to the master, which gets a byte
    when the worker is ready and then one a second. own: the one of the listeners that is the store's own. peers: the
    rows of all workers, by which they share connections out."""

    def __init__(self, path: str, options: Options, listeners: list[socket.socket], own: socket.socket | None,
                 number: int, heart: int, row: Row, peers: Callable[[], list[Row]]):
        self.path = path
        self.options = options
        self.listeners = [one for one in listeners if one.type == socket.SOCK_STREAM]
        self.unconnected = [one for one in listeners if one.type == socket.SOCK_DGRAM]
        self.own = own
        self.number = number
        self.heart = heart
        self.row = row
        self.peers = peers
        self.stopping = asyncio.Event()
        # Whether it ends because of successors.
        self.lingers = True
        self.accepting = False
        self.courtesy: asyncio.TimerHandle | None = None
        self.scribe: subprocess.Popen[bytes] | None = None
        self.restart = RESTART
        self.tasks: set[asyncio.Task[None]] = set()
        self.datagrams: list[Datagrams] = []
        self.greylist: "Greylist | None" = None
        self.fault: FastgreyError | None = None
        self.selector: _Selector | None = None
        self.beat = 0.0
        # The engine did not answer lately, and that has been said.
        self.away = False

    def run(self) -> None:
        """Serve until SIGTERM, or until the master is gone; at SIGUSR1 end as well, once others have taken over."""
        self.row.begin()
        with directory.open_store(self.path) as store:
            with asyncio.Runner(loop_factory=self._loop) as runner:
                runner.run(self._serve(store))

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self.options.engine:
            with contextlib.suppress(ImportError):
                import uvloop

                return uvloop.new_event_loop()
        self.selector = _Selector()
        return asyncio.SelectorEventLoop(self.selector)

    async def _serve(self, store: Store) -> None:
        self.loop = asyncio.get_running_loop()
        # What the master tells is SIGTERM; the others reach all processes of a terminal or of a service.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.loop.add_signal_handler(signal.SIGTERM, self._stop)
        self.loop.add_signal_handler(signal.SIGUSR1, self.stopping.set)
        descriptor, blocks = log.descriptor()
        self.connections = Connections(
            store, most=self.options.share, first_recipient=self.options.first_recipient,
            elsewhere=bool(self.options.engine), log=descriptor, log_blocks=blocks,
            log_form=log_lines.form(self.options.log), version=version("fastgrey").encode(), **self.options.wording())
        try:
            if self.options.engine:
                await self._open_engine(store)
            else:
                self._begin_scribe()
            if self.fault is None:
                self._attend_to_connections()
                self._accept_again()
                self.datagrams = [Datagrams(one, self._connect, self._say) for one in self.unconnected]
                self._tick()
            await self.stopping.wait()
            await self._finish()
            if self.fault is not None:
                raise self.fault
        finally:
            self._count()
            self._end_scribe()
            if self.greylist is not None:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)
                await self.greylist.close()
            self._flush()

    def _attend_to_connections(self) -> None:
        if self.selector is not None:
            self.connections.watch(self.selector.fileno())
            self.selector.serve = self._answer
        else:
            self.loop.add_reader(self.connections.fileno(), self._answer, 0)

    def _answer(self, seconds: float | None) -> None:
        self.connections.serve(seconds)
        self._attend()

    def _attend(self) -> None:
        """Do what the core cannot: to be called after whatever may have made it go on with a connection."""
        for ticket, request in self.connections.asked():
            self._begin(self._decide(ticket, request))
        if self.connections.scribe_gone():
            self._scribe_gone()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _decide(self, ticket: int, request: dict[str, Any]) -> None:
        assert self.greylist is not None
        case = Case(self.greylist.store, **request)
        await self.greylist.decide(case, request)
        self.connections.answer(ticket, case)
        self._attend()

    # Taking connections in

    def _accept_again(self) -> None:
        if not self.accepting and not self.stopping.is_set() and self.connections.count < self.connections.most:
            self.accepting = True
            self.row.set(board.ACCEPTING, 1)
            self._listen()

    def _listen(self) -> None:
        for listener in self.listeners:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    def _listen_no_more(self) -> None:
        for listener in self.listeners:
            self.loop.remove_reader(listener.fileno())

    def _accept_no_more(self) -> None:
        if self.accepting:
            self.accepting = False
            self.row.set(board.ACCEPTING, 0)
            if self.courtesy is not None:
                self.courtesy.cancel()
                self.courtesy = None
            self._listen_no_more()

    def _accept(self, listener: socket.socket) -> None:
        # One at a time: the next one may be another worker's.
        if self.connections.count >= self.connections.most:
            self._accept_no_more()
        elif self._has_more():
            self._listen_no_more()
            self.courtesy = self.loop.call_later(COURTESY, self._courteous_no_more)
        else:
            self._take(listener)

    def _has_more(self) -> bool:
        """Whether another worker is to take the next connection."""
        own = self.connections.count
        self.row.set(board.OPEN, own)
        most = own - own // SLACK
        return any(row.cells[board.OPEN] < most for row in self.peers()
                   if row.cells[board.ACCEPTING] and row.silence() < ABSENT)

    def _courteous_no_more(self) -> None:
        """Nobody may wait for a worker that does not come: what is there by now is taken, one for each address."""
        self.courtesy = None
        for listener in self.listeners:
            if self.connections.count < self.connections.most:
                self._take(listener)
        if self.accepting:
            self._listen()

    def _take(self, listener: socket.socket) -> bool:
        """Take one connection; whether there was one."""
        try:
            connection, _ = listener.accept()
            with connection:
                if self.connections.add(connection.fileno(), own=listener is self.own):
                    connection.detach()
            self.row.add(board.CONNECTIONS)
            self.row.set(board.OPEN, self.connections.count)
            return True
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except OSError as error:
            self.row.add(board.FULL)
            self._say(f"cannot take a connection: {error.strerror}; raise the limit of open files, or lower "
                      "max_connections")
            self._accept_no_more()
        return False

    def _connect(self) -> socket.socket | None:
        """A connection to this very worker, for what comes without one."""
        ours, its = socket.socketpair()
        ours.setblocking(False)
        its.setblocking(False)
        if not self.connections.add(its.fileno()):
            ours.close()
            its.close()
            return None
        its.detach()
        return ours

    # Times

    def _tick(self) -> None:
        """Every now and then: what is too slow goes, the master hears of us, connections are taken in again."""
        now = time.monotonic()
        self.connections.expire(self.options.idle, min(HALF, self.options.idle), PATIENCE)
        self._attend()
        self.connections.flush()
        self._accept_again()
        self._count()
        if now >= self.beat:
            self.beat = now + 1
            try:
                os.write(self.heart, b".")
            except BlockingIOError:
                # The master is stopped; it finds out later that we are here.
                pass
            except OSError:
                self._stop()
        self.loop.call_later(PAUSE, self._tick)

    def _count(self) -> None:
        """Put on the board what came so far."""
        self.row.beat()
        self.row.set(board.OPEN, self.connections.count)
        self.row.set(board.QUEUE, self.connections.waiting)
        self.row.tallied(self.connections.tally(), None if self.greylist is None else self.greylist.alone)
        if self.greylist is not None:
            self.row.reach(board.ENGINE_ERRORS, self.greylist.breaker.failures)
            self._tell_of_engine(self.greylist)

    def _stop(self) -> None:
        self.lingers = False
        self.stopping.set()

    async def _finish(self) -> None:
        """Answer what has come, take nothing more."""
        self._accept_no_more()
        if not self.lingers:
            self._take_what_waits()
        for listener in self.listeners:
            listener.close()
        # Before the connections over which they ask are told to end with their next reply.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                for one in self.datagrams:
                    await one.stop()
        for unconnected in self.unconnected:
            unconnected.close()
        self.connections.drain(idle=False)
        until = time.monotonic() + LINGER
        while self.lingers and self.connections.count and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.connections.drain(idle=True)
        until = time.monotonic() + GRACE
        while self.connections.count and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def _take_what_waits(self) -> None:
        """Nobody comes after this worker; what is in the queues of the sockets has perhaps asked already."""
        for listener in self.listeners:
            while self.connections.count < self.connections.most and self._take(listener):
                pass

    # The scribe

    def _begin_scribe(self) -> None:
        try:
            end, self.scribe = scribe.begin(self.path, self.options.log)
        except OSError as error:
            self._say(f"cannot start a scribe: {error.strerror}; promotions wait for it")
            self._scribe_gone()
            return
        self.connections.begin_scribe(end.detach())
        self.scribe_begun = time.monotonic()

    def _scribe_gone(self) -> None:
        if self.scribe is not None:
            self.scribe.poll()
            self._say(f"the scribe {self.scribe.pid} is gone; what waits for it is asked again")
            self.restart = RESTART if time.monotonic() - self.scribe_begun > 60 else min(RESTART_MOST, 2 * self.restart)
        self.loop.call_later(self.restart, self._begin_scribe)

    def _end_scribe(self) -> None:
        """It ends with its socket, once what it was given is written."""
        self.connections.close()
        if self.scribe is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.scribe.wait(GRACE)

    # The engine

    async def _open_engine(self, store: Store) -> None:
        """Open it, or go on without until it is there."""
        from . import sharing

        engine = sharing.engine(self.options)
        self.greylist = sharing.greylist(store, engine, self.options)
        tried = asyncio.Event()
        opening = self._begin(sharing.opened(self.greylist, self._say, tried))
        opening.add_done_callback(lambda opening: self._engine_opened(opening, engine))
        waiting = self.loop.create_task(tried.wait())
        await asyncio.wait([opening, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    def _engine_opened(self, opening: asyncio.Task[None], engine: "SharedEngine") -> None:
        if opening.cancelled():
            return
        if isinstance(fault := opening.exception(), FastgreyError):
            self.fault = fault
            self.stopping.set()
        elif fault is None and self.number == 0:
            self._begin(self._tell_doubts(engine))

    async def _tell_doubts(self, engine: "SharedEngine") -> None:
        with contextlib.suppress(EngineError):
            for doubt in await engine.doubts():
                self._say(doubt)

    def _tell_of_engine(self, shared: "Greylist") -> None:
        """A line when the engine goes, and one when it is there again."""
        why = shared.breaker.why
        if why is not None and not self.away:
            instead = "on_error decides" if shared.standby is None else "decisions go on from what this machine knows"
            self._say(f"{why}; until it answers, {instead}")
        elif why is None and self.away:
            self._say(f"{shared.engine.name} answers again")
        self.away = why is not None

    # The log

    def _say(self, text: str) -> None:
        self.connections.say(log_lines.event("warning", text, log_lines.form(self.options.log)))

    def _flush(self) -> None:
        """Write the rest of the log, unless nobody reads it."""
        until = time.monotonic() + 1
        while not self.connections.flush() and time.monotonic() < until:
            time.sleep(0.01)
