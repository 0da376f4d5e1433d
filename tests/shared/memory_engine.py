"""An engine in memory that can be made to fail, for what no real one does at a word."""

from collections.abc import Sequence

from fastgrey.errors import EngineError
from fastgrey.shared.engine import Slot, Write


class MemoryEngine:
    """Records in a dict. away: it fails. lose: what it forgets a swap to do: 'before' it fails without writing, 'after'
    it writes and fails."""

    name = "memory:"

    def __init__(self) -> None:
        self.records: dict[Slot, int] = {}
        self.away = False
        self.lose: str | None = None

    def _there(self) -> None:
        if self.away:
            raise EngineError("memory: is away")

    async def open(self) -> None:
        """Nothing but to be there."""
        self._there()

    async def close(self) -> None:
        """Nothing."""

    async def secret(self, own: bytes) -> bytes:
        """Any."""
        self._there()
        return own

    async def fetch(self, slots: Sequence[Slot]) -> list[int]:
        """As an engine."""
        self._there()
        return [self.records.get(tuple(slot), 0) for slot in slots]

    async def swap(self, slots: Sequence[Slot], writes: Sequence[Write]) -> bool:
        """As an engine."""
        self._there()
        lose, self.lose = self.lose, None
        if lose == "before":
            raise EngineError("memory: failed before it wrote")
        if any(self.records.get(slots[write.index], 0) != write.old for write in writes):
            return False
        for write in writes:
            self.records[slots[write.index]] = write.new
        if lose == "after":
            raise EngineError("memory: failed after it wrote")
        return True

    async def upkeep(self, now: int) -> None:
        """Nothing to keep up."""
        self._there()
