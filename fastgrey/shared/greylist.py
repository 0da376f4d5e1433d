"""Decisions on the records of an engine, under the policy of a store; and on what the machine knows by itself, while
the engine is away."""

import asyncio
import time
from typing import Any

from fastgrey._core import Case, Store
from fastgrey.errors import EngineError, StoreError
from fastgrey.verdict import Verdict

from .breaker import Breaker
from .engine import Engine, Slot, Write, opened
from .standby import Standby, View

# As often a decision begins anew because another one changed a record that it goes by.
TRIES = 8
# What a probe writes: nobody's hops. An engine that can be read and not written to, as one that only follows another, is
# no use.
PROBE: Slot = ("hops", bytes(16))


class Greylist:
    """A store whose records are with an engine; the policy, its rules and windows and the counters are its own.

    With a standby, decisions go on while the engine is away (docs/shared-outage.md); without, they end as on_error
    says. bound: seconds after which a decision goes on without the engine, whatever it has asked by then; None for as
    long as it takes.
    """

    def __init__(self, store: Store, engine: Engine, standby: Standby | None = None, bound: float | None = None):
        self.store = store
        self.engine = engine
        self.standby = standby
        self.bound = bound
        self.breaker = Breaker(self._probe)
        # Decisions that were made without the engine.
        self.alone = 0
        self._opened = False
        # Whoever opens and the breaker may both find that the engine is back.
        self._opening = asyncio.Lock()
        # Of those in this process that met others at a record, one goes on at a time: of a hundred that write the same
        # record at once, one comes first each time, and most would never.
        self._turn = asyncio.Lock()
        # How often the engine failed.
        self._failures = 0

    async def open(self) -> None:
        """Open engine and standby; what is open already stays so. Where the engine is away and there is a standby,
        decisions begin with that; else EngineError. StoreError."""
        if self.standby is None:
            await self.engine.open()
            return
        if not self.standby.is_open:
            self.standby.open()
        try:
            await self._probe()
        except EngineError as error:
            self.breaker.failed(str(error))

    async def close(self) -> None:
        """Close engine and standby."""
        await self.breaker.close()
        if self.standby is not None:
            await self.standby.close()
        await self.engine.close()

    async def check(self, **request: Any) -> Verdict:
        """Decide one recipient of one message, as Store.check does and with its arguments.

        What nobody answers is a verdict with reason 'error'.
        """
        return await self.decide(Case(self.store, **request), request)

    async def decide(self, case: Case, request: dict[str, Any]) -> Verdict:
        """The same of a case that was made of that request, which keeps what the decision came to."""
        if (verdict := case.verdict) is not None:
            return verdict
        asked: list[list[int]] = []
        if self.breaker.asks or self.standby is None:
            try:
                async with asyncio.timeout(self.bound):
                    if await self._ask(case, request, asked) or await self._ask_in_turn(case, request, asked):
                        return case.finish()
            except TimeoutError:
                self._failed(f"the engine {self.engine.name} takes over {self.bound:g}s for a decision; see its load")
            except EngineError as error:
                self._failed(str(error))
            except StoreError:
                return case.fail()
        return await self._alone(case, request, asked[0] if asked else None)

    async def _ask(self, case: Case, request: dict[str, Any], asked: list[list[int]]) -> bool:
        """Decide on what the engine holds, which asked has then; whether that still stood when it was written."""
        asked.clear()
        asked.append(theirs := await self.engine.fetch(case.slots))
        return await self._try(case, request, theirs)

    async def _ask_in_turn(self, case: Case, request: dict[str, Any], asked: list[list[int]]) -> bool:
        """The same for one who met others, a few times more."""
        failures = self._failures
        # What it wanted to write was not written: that is not in doubt.
        asked.clear()
        async with self._turn:
            # Where the engine failed the one before, the next ones do not wait for the time-out as well.
            for _ in range(TRIES if self._failures == failures else 0):
                if await self._ask(case, request, asked):
                    return True
                asked.clear()
        return False

    def _failed(self, why: str) -> None:
        self._failures += 1
        if self.standby is not None:
            self.breaker.failed(why)

    async def _try(self, case: Case, request: dict[str, Any], theirs: list[int]) -> bool:
        """Decide on what the engine holds now; whether what it held still stood when it was written."""
        slots = case.slots
        writes = [Write(*write) for write in case.judge(theirs)]
        if self.standby is None:
            return not writes or await self.engine.swap(slots, writes)
        # Whom the engine lets pass is asked nothing. Whom it does not, or not yet, may be known here.
        if case.settled is not None:
            view = self.standby.view(slots, theirs, _now(request))
            if view.lacking:
                return await self._try_alone(case, request, view, in_doubt=False)
        if writes and not await self.engine.swap(slots, writes):
            return False
        if not request.get("dry_run"):
            self.standby.copy(slots, theirs, writes, stranger=case.settled is not None)
        return True

    async def _alone(self, case: Case, request: dict[str, Any], theirs: list[int] | None) -> Verdict:
        """Decide without the engine. theirs: what it held; what the decision wrote to it is in doubt. None where it was
        not asked, or said nothing."""
        if self.standby is None:
            return case.fail()
        try:
            for _ in range(TRIES):
                view = self.standby.view(case.slots, theirs, _now(request))
                if await self._try_alone(case, request, view, in_doubt=theirs is not None):
                    self.alone += 1
                    return case.finish()
        except StoreError:
            pass
        return case.fail()

    async def _try_alone(self, case: Case, request: dict[str, Any], view: View, in_doubt: bool) -> bool:
        """Decide on what this machine knows, and the engine with it; what is new to the engine goes to the journal."""
        assert self.standby is not None
        writes = [Write(*write) for write in case.judge(view.together)]
        if request.get("dry_run"):
            return True
        return await self.standby.write(case.slots, view, writes, case.settled in ("retry", "pool"), in_doubt)

    async def _probe(self) -> None:
        """Whether the engine answers, and takes what is written to it."""
        async with self._opening:
            if not self._opened:
                await opened(self.engine, self.store)
                self._opened = True
        there, = await self.engine.fetch([PROBE])
        await self.engine.swap([PROBE], [Write(0, there, there % 2 + 1, 60)])


def _now(request: dict[str, Any]) -> int:
    now = request.get("now")
    return int(time.time() if now is None else now)
