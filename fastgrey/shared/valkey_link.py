"""A connection to a Valkey server that all requests of a process share, and what makes a new one when it is lost.

The client's own pool gives every request a connection of its own and looks at it before and after. Here what is asked
in one turn of the event loop goes out together, and the answers come back in the order of the questions: a server
answers a hundred requests in little more than the time of one.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from valkey.asyncio.connection import AbstractConnection
from valkey.exceptions import ResponseError, ValkeyError

try:
    from libvalkey import pack_command
except ImportError:
    pack_command = None  # type: ignore[assignment]

# Seconds until the next attempt to connect, after the first one failed and at most.
BACKOFF_FIRST, BACKOFF_MAX = 0.1, 5.0


class LostError(Exception):
    """The connection is gone. Whether the server did what it was asked is not known."""


class SilentError(LostError):
    """The server took longer to answer than it may."""


class Link:
    """One connection, from when it stands until it is lost.

    host: where it leads. timeout: seconds within which an answer must be there. A connection with one that is late is
    given up, with all that was asked behind it: answers come in order, so those are late as well.
    """

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self.connection = connection
        self.host = getattr(connection, "host", "")
        self.timeout = timeout
        self.lost: LostError | None = None
        self._loop = asyncio.get_running_loop()
        self._asked: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._unsent: list[bytes] = []
        self._something = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = [self._loop.create_task(self._send()), self._loop.create_task(self._receive())]

    def ask(self, *words: bytes | int) -> asyncio.Future[Any]:
        """Send a command. The result is the answer; a ResponseError where that is an error, LostError where none comes.
        """
        future = self._loop.create_future()
        if self.lost is not None:
            future.set_exception(self.lost)
            return future
        self._asked.append((self._loop.time() + self.timeout, future))
        if not self._unsent:
            self._something.set()
        self._unsent.append(self._packed(words))
        if self._timer is None:
            self._timer = self._loop.call_later(self.timeout, self._watch)
        return future

    async def finish(self) -> None:
        """Disconnect once all that was asked is answered, or late."""
        if self._asked:
            await asyncio.wait([future for _, future in self._asked])
        await self.close()

    async def close(self) -> None:
        """Disconnect. What is still unanswered is lost."""
        self._give_up(LostError("closed"))
        await asyncio.wait(self._tasks)
        # Over TLS there is a farewell, and who is silent does not answer it.
        with contextlib.suppress(TimeoutError, ValkeyError, OSError):
            async with asyncio.timeout(self.timeout):
                await self.connection.disconnect()

    def _packed(self, words: tuple[bytes | int, ...]) -> bytes:
        if pack_command is not None:
            return pack_command(words)
        return b"".join(self.connection.pack_command(*words))

    async def _send(self) -> None:
        try:
            while True:
                await self._something.wait()
                self._something.clear()
                unsent, self._unsent = self._unsent, []
                await self.connection.send_packed_command(unsent, check_health=False)
        except (ValkeyError, OSError) as error:
            self._give_up(LostError(str(error)))

    async def _receive(self) -> None:
        answer: Any
        try:
            while True:
                try:
                    answer, refused = await self.connection.read_response(disconnect_on_error=False), False
                except ResponseError as error:
                    answer, refused = error, True
                _, future = self._asked.popleft()
                # Whoever asked may be gone.
                if not future.done():
                    if refused:
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        except (ValkeyError, OSError) as error:
            self._give_up(LostError(str(error)))
        except IndexError:
            self._give_up(LostError("it answers what nobody asked"))

    def _watch(self, looked: float | None = None) -> None:
        """Look whether the oldest question is answered in time; looked: when one was not.

        An answer that is there already counts, though this process was too busy to read it: hence a second look. By
        then all that was late at the first must be answered, else a server that is slow and steady would always have
        answered the oldest, and those behind it would wait as long as it takes.
        """
        self._timer = None
        if not self._asked or self.lost is not None:
            return
        due, _ = self._asked[0]
        if looked is not None and due <= looked:
            self._give_up(SilentError())
        elif due <= (now := self._loop.time()):
            self._timer = self._loop.call_later(self.timeout / 10, self._watch, now)
        else:
            self._timer = self._loop.call_at(due, self._watch)

    def _give_up(self, error: LostError) -> None:
        if self.lost is not None:
            return
        self.lost = error
        for task in self._tasks:
            # A task that ends with this takes its exception with it.
            if task is not asyncio.current_task(self._loop):
                task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for _, future in self._asked:
            if not future.done():
                future.set_exception(error)
        self._asked.clear()


class Line:
    """Where the primary is, and the link to it: made when first asked, and anew when it was lost."""

    def __init__(self, connect: Callable[[], Awaitable[AbstractConnection]], timeout: float) -> None:
        self.timeout = timeout
        self.link: Link | None = None
        self._connect = connect
        self._finishing: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[Link] | None = None
        self._failed: Exception | None = None
        self._failures = 0
        self._not_before = 0.0

    async def ready(self) -> Link:
        """The link that stands, else a new one. After a failed attempt the next ones fail at once for a while: whoever
        asks is a mail that waits. Raises what connecting raised."""
        if self.link is not None and self.link.lost is None:
            return self.link
        if self._opening is None:
            if self._failed is not None and asyncio.get_running_loop().time() < self._not_before:
                raise self._failed.with_traceback(None)
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        # Who gives up waiting takes it from nobody else.
        return await asyncio.shield(self._opening)

    def leave(self, link: Link) -> bool:
        """Ask nothing more of this link, though it stands; what it was asked it may answer. Whether it was the one in
        use."""
        if self.link is not link:
            return False
        self.link = None
        task = asyncio.create_task(link.finish())
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return True

    async def close(self) -> None:
        """Disconnect, and forget what went wrong."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self.link is not None:
            await self.link.close()
        if self._finishing:
            await asyncio.wait(self._finishing)
        self.link = self._failed = None
        self._failures = 0

    async def _open(self) -> Link:
        if self.link is not None:
            self.leave(self.link)
        async with asyncio.timeout(self.timeout):
            connection = await self._connect()
        self.link = Link(connection, self.timeout)
        return self.link

    def _opened(self, task: asyncio.Task[Link]) -> None:
        self._opening = None
        if task.cancelled() or task.exception() is None:
            self._failures, self._failed = 0, None
            return
        error = task.exception()
        self._failed = error if isinstance(error, Exception) else None
        pause = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1)
        self._failures += 1
        self._not_before = asyncio.get_running_loop().time() + pause
