"""Decisions on the records of an engine, under the policy of a store."""

from typing import Any

from fastgrey._core import Case, Store
from fastgrey.errors import EngineError
from fastgrey.verdict import Verdict

from .engine import Engine, Write

# As often a decision begins anew because another one changed a record that it goes by.
TRIES = 8


class Greylist:
    """A store whose records are with an engine; the policy, its rules and windows and the counters are its own."""

    def __init__(self, store: Store, engine: Engine):
        self.store = store
        self.engine = engine

    async def check(self, **request: Any) -> Verdict:
        """Decide one recipient of one message, as Store.check does and with its arguments.

        What the engine does not answer is a verdict with reason 'error'.
        """
        case = Case(self.store, **request)
        if (verdict := case.verdict) is not None:
            return verdict
        try:
            for _ in range(TRIES):
                if await self._try(case, self.engine):
                    return case.finish()
        except EngineError:
            pass
        return case.fail()

    @staticmethod
    async def _try(case: Case, engine: Engine) -> bool:
        """Decide on what the engine holds now; whether what it held still stood when it was written."""
        slots = case.slots
        writes = [Write(*write) for write in case.judge(await engine.fetch(slots))]
        return not writes or await engine.swap(slots, writes)
