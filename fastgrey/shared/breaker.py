"""Whether to ask an engine that did not answer lately: not every mail may wait for its time-out."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastgrey.errors import EngineError

# Seconds from a failure to the first probe, and from one probe to the next at most.
FIRST = 0.1
MOST = 5.0


class Breaker:
    """Open after a failure, and until a probe of its own gets an answer. No mail is a probe."""

    def __init__(self, probe: Callable[[], Awaitable[None]], first: float = FIRST, most: float = MOST):
        self._probe = probe
        self._first = first
        self._most = most
        self._probing: asyncio.Task[None] | None = None
        # Why the engine is not asked, None while it is.
        self.why: str | None = None
        # How often it failed after it had answered.
        self.failures = 0

    @property
    def asks(self) -> bool:
        """Whether the engine is to be asked."""
        return self.why is None

    def failed(self, why: str) -> None:
        """The engine did not answer."""
        if self.why is None:
            self.failures += 1
            self.why = why
            self._probing = asyncio.get_running_loop().create_task(self._until_answered())

    async def _until_answered(self) -> None:
        pause = self._first
        while True:
            await asyncio.sleep(pause)
            try:
                await self._probe()
            except EngineError as error:
                self.why = str(error)
                pause = min(pause * 2, self._most)
                continue
            self.why = None
            return

    async def close(self) -> None:
        """Probe no more."""
        if self._probing is not None:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing
            self._probing = None
