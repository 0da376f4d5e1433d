"""What an engine has to do: read records, and compare and set them. Nothing of the decision is in it."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fastgrey._core import Store, store_secret
from fastgrey.errors import SecretError

# Kind and key of a record, as Case.slots gives them.
Slot = tuple[str, bytes]
KINDS = ("client", "domain", "triplet", "pair", "waiting", "hops")
# What tells the stores on one engine apart.
NAMESPACE = re.compile("[a-z_][a-z0-9_]{0,39}")


class Write(NamedTuple):
    """One record to write, as Case.judge gives it.

    index: of its slot. old: what must be there, 0 for nothing. new: what shall be there. keep: seconds for which it is
    of any use; afterwards the engine may drop it by itself, before that it may not.
    """

    index: int  # type: ignore[assignment]
    old: int
    new: int
    keep: int


class Engine(Protocol):
    """A place for records. Every method raises EngineError, within the engine's time-out, where the engine cannot be
    reached or does not answer; then whatever it was to write may be written or not."""

    # Where it is, for people; without a password.
    name: str

    async def open(self) -> None:
        """Connect, and make what the engine needs to hold records."""
        ...

    async def close(self) -> None:
        """Disconnect. An engine that is closed may be opened again."""
        ...

    async def secret(self, own: bytes) -> bytes:
        """The secret under which the keys of this engine were made. Where it has none yet, it gets own."""
        ...

    async def fetch(self, slots: Sequence[Slot]) -> list[int]:
        """The records of the slots, 0 for each that is not there. One exchange."""
        ...

    async def swap(self, slots: Sequence[Slot], writes: Sequence[Write]) -> bool:
        """Write all of it where every old record is still what it was, else nothing; whether it was written. One
        exchange, atomic."""
        ...

    async def upkeep(self, now: int) -> None:
        """What has to be done now and then, such as dropping what expired; now in Unix seconds. Called every few
        minutes by one process of each machine."""
        ...


class SharedEngine(Engine, Protocol):
    """An engine that several machines reach."""

    async def drop(self) -> None:
        """Remove all records of this name space, and its secret. Takes the time that it takes."""
        ...

    async def doubts(self) -> list[str]:
        """What works and will not keep records as it should, and what to do about it, a line each."""
        ...


async def opened(engine: Engine, store: Store) -> None:
    """Open an engine, and see that its keys are made of the secret of this store. EngineError; SecretError where they
    are not."""
    await engine.open()
    await agreed(engine, store)


async def agreed(engine: Engine, store: Store) -> None:
    """See that the keys of an open engine are made of the secret of this store; one that lost it has it again.
    EngineError; SecretError where they are not."""
    own = store_secret(store)
    if await engine.secret(own) != own:
        raise SecretError(f"the engine {engine.name} holds records under another secret than that of {store.path}; put a "
                          "backup of the first machine's store in force here with: fastgrey restore FILE, or give this "
                          "store another name space with: name in [serve]")
