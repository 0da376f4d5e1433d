"""Records that an engine holds, as the commands of an administrator look at and change them."""

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastgrey._core import PLACE_NAMES, Case, Records, Store
from fastgrey.errors import EngineError, RequestError
from fastgrey.records import KEY_SIZE, KINDS, TIME_MASK, Record, View

from .engine import Engine, Slot, Write

# As often a change begins anew because mail changed a record meanwhile.
TRIES = 32
# What is put in the place of a record that is forgotten: seen so long ago that it counts as absent, and of no use to
# keep. An engine need not be able to remove.
GONE = 1
GONE_KEEP = 1
WHOLE_KEY = 2 * KEY_SIZE
HALF = struct.Struct(f"{KEY_SIZE // 2}s")


class Held(Records):
    """The records of one request at a time, of a store whose records an engine holds.

    What Records can find by walking (known, pending) is what the machine's own table has. Every method raises
    EngineError where the engine does not answer.
    """

    def __new__(cls, store: Store, engine: Engine, runner: asyncio.Runner) -> "Held":
        return super().__new__(cls, store)

    def __init__(self, store: Store, engine: Engine, runner: asyncio.Runner):
        self.store = store
        self.engine = engine
        self._runner = runner
        # Whole keys of triplets by the half that a pending one has of it.
        self._triplets: dict[bytes, bytes] = {}

    def keys(self, client: str | bytes | None, sender: str | bytes | None, recipient: str | bytes | None,
             client_name: str | bytes | None = None) -> list[tuple[str, int, bytes]]:
        """As Records.keys: every machine makes the same of the same secret."""
        found = super().keys(client, sender, recipient, client_name)
        self._triplets |= {key[:KEY_SIZE // 2]: key for kind, _, key in found if kind == "triplet"}
        return found

    def fetch(self, slots: Sequence[Slot]) -> list[int]:
        """The records of the slots, 0 for each that is not there or was forgotten."""
        found = self._runner.run(self.engine.fetch(slots)) if slots else []
        return [0 if record == GONE else record for record in found]

    def triplets_alive(self, halves: bytes, now: int) -> bytes:
        """As Records.triplets_alive, for triplets that keys gave; of others an engine cannot tell."""
        known = [self._triplets.get(half) for half, in HALF.iter_unpack(halves)]
        records = iter(self.fetch([("triplet", key) for key in known if key is not None]))
        alive = View(self.store, now).alive
        return bytes(key is not None and bool(number := next(records))
                     and alive(Record("known", "triplet", key, number & TIME_MASK, number >> 40)) for key in known)

    def forget(self, marks: list[tuple[str, bytes]], dry_run: bool) -> list[int | None]:
        """As Records.forget."""
        return self._forget(marks, dry_run)

    def forget_pending(self, keys: list[bytes], dry_run: bool) -> list[int | None]:
        """As Records.forget_pending."""
        # A key is that of a triplet or that of a pair.
        found = self._forget([(kind, key) for kind in ("waiting", "hops") for key in keys], dry_run)
        return [waiting if waiting is not None else hops
                for waiting, hops in zip(found[:len(keys)], found[len(keys):], strict=True)]

    def make_known(self, marks: list[tuple[str, bytes, int]], now: int,
                   dry_run: bool) -> list[tuple[int | None, int]]:
        """As Records.make_known."""

        def made(before: list[int]) -> list[tuple[int, int]]:
            return [self.made_known(record, least, now) for record, (_, _, least) in zip(before, marks, strict=True)]

        before, after = self._change([(kind, key) for kind, key, _ in marks], made, dry_run)
        return [(record or None, new) for record, (new, _) in zip(before, after, strict=True)]

    def _forget(self, slots: list[Slot], dry_run: bool) -> list[int | None]:
        before, _ = self._change(
            slots, lambda records: [(GONE if record else 0, GONE_KEEP) for record in records], dry_run)
        return [record or None for record in before]

    def _change(self, slots: list[Slot], change: Callable[[list[int]], list[tuple[int, int]]],
                dry_run: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Put in the place of all records what change makes of them: the new ones and for how long to keep them. What
        they were, and what change made."""
        for _ in range(TRIES):
            stored = self._runner.run(self.engine.fetch(slots)) if slots else []
            before = [0 if record == GONE else record for record in stored]
            after = change(before)
            writes = [Write(index, old, new, keep) for index, (old, (new, keep)) in enumerate(zip(stored, after))
                      if new not in (0, old)]
            if dry_run or not writes or self._runner.run(self.engine.swap(slots, writes)):
                return before, after
        raise EngineError(f"{self.engine.name}: mail changes these records all the time; run this again")

    def decide(self, facts: dict[str, Any], now: int, **request: Any) -> None:
        """Put what the engine holds, and what follows from it, into the facts that _core.explain gives."""
        case = Case(self.store, now=now, dry_run=True, **request)
        if case.decided:
            return
        name = request["client_name"] if facts["normalised"]["name_trusted"] else None
        keys = self.keys(request["client"], request["sender"], request["recipient"], name)
        slots = [(kind, key) for kind, _, key in keys]
        slots += [("hops", key) for kind, key in slots if kind == "pair"]
        held = dict(zip(slots, self.fetch(slots), strict=True))
        case.judge([held[slot] for slot in case.slots])
        verdict = case.finish()
        facts["verdict"] |= {"action": verdict.action, "reason": verdict.reason, "wait": verdict.wait}
        facts["known"] = [
            {"kind": kind, "place": PLACE_NAMES[place], "key": key.hex(),
             "last": held[kind, key] & TIME_MASK if held[kind, key] else None, "count": held[kind, key] >> 40}
            for kind, place, key in keys if kind != "waiting"]
        facts["waiting"] = {
            "triplets": [{"place": PLACE_NAMES[place], "first": held[kind, key] & TIME_MASK}
                         for kind, place, key in keys if kind == "waiting" and held[kind, key]],
            "pair": next(({"first": record & TIME_MASK, "hops": record >> 40}
                          for (kind, _), record in held.items() if kind == "hops" and record), None)}


class HeldView(View):
    """A store whose records an engine holds, at one moment."""

    records: Held

    def __init__(self, held: Held, now: int | None = None) -> None:
        super().__init__(held.store, now)
        self.records = held

    def find(self, prefix: str) -> list[Record]:
        """All records under a key, of which an engine needs every digit; RequestError for less."""
        if len(prefix) < WHOLE_KEY:
            raise RequestError(f"{prefix}: {self.records.engine.name} finds a record by all {WHOLE_KEY} digits of its "
                               "key; from addresses to records and keys: fastgrey explain IP SENDER RECIPIENT --json")
        key = bytes.fromhex(prefix)
        slots = [*((kind, key) for kind in KINDS), ("waiting", key), ("hops", key)]
        return [self.record("known" if kind in KINDS else "pending",
                            {"waiting": "triplet", "hops": "pair"}.get(kind, kind), key, number)
                for (kind, _), number in zip(slots, self.records.fetch(slots), strict=True) if number]


@contextmanager
def opened(store: Store, engine: Engine) -> Iterator[Held]:
    """The records of a store that this engine holds. EngineError where it does not answer."""
    with asyncio.Runner() as runner:
        runner.run(engine.open())
        try:
            yield Held(store, engine, runner)
        finally:
            runner.run(engine.close())
