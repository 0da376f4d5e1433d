"""Records that are on an engine for a while, beside those of mail and apart from them."""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastgrey._core import Store
from fastgrey.errors import EngineError
from fastgrey.verdict import Verdict

from .engine import SharedEngine, Slot, Write
from .greylist import Greylist
from .open import engine_from_url

PREFIX = "fastgrey_replay_"
# Seconds after which the engine may drop what nobody could remove any more.
KEEP = 86400


class Throwaway:
    """An engine on which every record lives for a day, and which remembers what went wrong.

    Seconds of the engine are not those of recorded mail: of a record that is of use for a minute more, the mail of that
    minute may take an hour to decide.
    """

    def __init__(self, engine: SharedEngine) -> None:
        self.engine = engine
        self.name = engine.name
        self.failed: EngineError | None = None

    async def fetch(self, slots: Sequence[Slot]) -> list[int]:
        try:
            return await self.engine.fetch(slots)
        except EngineError as error:
            self.failed = error
            raise

    async def swap(self, slots: Sequence[Slot], writes: Sequence[Write]) -> bool:
        try:
            return await self.engine.swap(slots, [write._replace(keep=KEEP) for write in writes])
        except EngineError as error:
            self.failed = error
            raise

    async def open(self) -> None:
        await self.engine.open()

    async def close(self) -> None:
        await self.engine.close()

    async def secret(self, own: bytes) -> bytes:
        return await self.engine.secret(own)

    async def upkeep(self, now: int) -> None:
        await self.engine.upkeep(now)


class Checks:
    """Decides as Store.check does, one request after the other, on the records of a throw-away engine."""

    def __init__(self, runner: asyncio.Runner, store: Store, engine: Throwaway) -> None:
        self._runner = runner
        self._engine = engine
        self._greylist = Greylist(store, engine)

    def check(self, **request: Any) -> Verdict:
        """As Store.check. Raises EngineError: a verdict without the engine would be another one."""
        verdict = self._runner.run(self._greylist.check(**request))
        if self._engine.failed is not None:
            raise self._engine.failed
        return verdict


@contextmanager
def checks_on(url: str, store: Store, password_file: str | None = None, timeout: float = 5.0) -> Iterator[Checks]:
    """Decisions under the policy of a store, on records in a name space of their own on the engine at url. They are
    removed afterwards, also where Ctrl-C ended it. Raises EngineError."""
    engine = engine_from_url(url, name=PREFIX + secrets.token_hex(8), timeout=timeout, password_file=password_file)
    with asyncio.Runner() as runner:
        try:
            runner.run(engine.open())
            try:
                yield Checks(runner, store, Throwaway(engine))
            finally:
                runner.run(engine.drop())
        finally:
            runner.run(engine.close())
