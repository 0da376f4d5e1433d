"""Decisions on the records of an engine, under the policy of a store; and on what the machine knows by itself, while the
engine is away."""

import time
from typing import Any

from fastgrey._core import Case, Store
from fastgrey.errors import EngineError, StoreError
from fastgrey.verdict import Verdict

from .breaker import Breaker
from .engine import Engine, Slot, Write
from .standby import Standby

# As often a decision begins anew because another one changed a record that it goes by.
TRIES = 8
# What a probe writes: nobody's hops. An engine that can be read and not be written to, as one that only follows another,
# is no use.
PROBE: Slot = ("hops", bytes(16))


class Greylist:
    """A store whose records are with an engine; the policy, its rules and windows and the counters are its own.

    With a standby, decisions go on while the engine is away (docs/shared-outage.md); without, they end as on_error says.
    """

    def __init__(self, store: Store, engine: Engine, standby: Standby | None = None):
        self.store = store
        self.engine = engine
        self.standby = standby
        self.breaker = Breaker(self._probe)
        # Decisions that were made without the engine.
        self.alone = 0
        self._opened = False

    async def open(self) -> None:
        """Open engine and standby. Where the engine is away and there is a standby, decisions begin with that; else
        EngineError. StoreError."""
        if self.standby is None:
            await self.engine.open()
            return
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
        if self.breaker.asks or self.standby is None:
            try:
                for _ in range(TRIES):
                    if await self._try(case, request):
                        return case.finish()
            except EngineError as error:
                if self.standby is not None:
                    self.breaker.failed(str(error))
            except StoreError:
                return case.fail()
        return await self._alone(case, request)

    async def _try(self, case: Case, request: dict[str, Any]) -> bool:
        """Decide on what the engine holds now; whether what it held still stood when it was written."""
        slots = case.slots
        records = await self.engine.fetch(slots)
        writes = [Write(*write) for write in case.judge(records)]
        if self.standby is None:
            return not writes or await self.engine.swap(slots, writes)
        # Whom the engine lets pass is asked nothing. Whom it does not, or not yet, may be known here.
        if case.settled is not None and self.standby.view(slots, records, _now(request)).lacking:
            return await self._try_alone(case, request, records)
        if writes and not await self.engine.swap(slots, writes):
            return False
        if not request.get("dry_run"):
            self.standby.copy(slots, records, writes)
        return True

    async def _alone(self, case: Case, request: dict[str, Any]) -> Verdict:
        try:
            for _ in range(TRIES if self.standby is not None else 0):
                if await self._try_alone(case, request, None):
                    self.alone += 1
                    return case.finish()
        except StoreError:
            pass
        return case.fail()

    async def _try_alone(self, case: Case, request: dict[str, Any], theirs: list[int] | None) -> bool:
        """Decide on what this machine knows, and the engine with it; what is new to the engine goes to the journal."""
        assert self.standby is not None
        slots = case.slots
        view = self.standby.view(slots, theirs, _now(request))
        writes = [Write(*write) for write in case.judge(view.together)]
        if request.get("dry_run"):
            return True
        return await self.standby.write(slots, view, writes, case.settled in ("retry", "pool"))

    async def _probe(self) -> None:
        """Whether the engine answers, and takes what is written to it."""
        if not self._opened:
            await self.engine.open()
            self._opened = True
        there, = await self.engine.fetch([PROBE])
        await self.engine.swap([PROBE], [Write(0, there, there % 2 + 1, 60)])


def _now(request: dict[str, Any]) -> int:
    now = request.get("now")
    return int(time.time() if now is None else now)
