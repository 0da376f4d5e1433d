"""Records that an engine holds, as the commands of an administrator look at and change them."""

import asyncio
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastgrey._core import PLACE_NAMES, Case, Records, Store
from fastgrey.errors import EngineError, RequestError
from fastgrey.records import KEY_SIZE, KINDS, Record, View

from .engine import Engine, Slot, Write, opened as engine_opened
from .merging import KNOWN, SLACK, Spans, count_of, time_of

# As often a change begins anew because mail changed a record meanwhile.
TRIES = 32
# A triplet that waits, or hops, in the place of those that are forgotten: seen so long ago that it counts as absent.
LONG_AGO = 1
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
        return [_there(kind, record) for (kind, _), record in zip(slots, found, strict=True)]

    def triplets_alive(self, halves: bytes, now: int) -> bytes:
        """As Records.triplets_alive, for triplets that keys gave; of others an engine cannot tell."""
        known = [self._triplets.get(half) for half, in HALF.iter_unpack(halves)]
        records = iter(self.fetch([("triplet", key) for key in known if key is not None]))
        alive = View(self.store, now).alive
        return bytes(key is not None and bool(number := next(records))
                     and alive(Record("known", "triplet", key, time_of(number), count_of(number)))
                     for key in known)

    def forget(self, marks: list[tuple[str, bytes]], dry_run: bool) -> list[int | None]:
        """As Records.forget, but that a record stays for as long as it was known, which says that it was forgotten:
        machines have copies for when the engine is away, and would bring it back."""
        return self._forget(marks, dry_run)

    def forget_pending(self, keys: list[bytes], dry_run: bool) -> list[int | None]:
        """As Records.forget_pending, in the same way."""
        # A key is that of a triplet or that of a pair.
        found = self._forget([(kind, key) for kind in ("waiting", "hops") for key in keys], dry_run)
        return [waiting if waiting is not None else hops
                for waiting, hops in zip(found[:len(keys)], found[len(keys):], strict=True)]

    def make_known(self, marks: list[tuple[str, bytes, int]], now: int,
                   dry_run: bool) -> list[tuple[int | None, int]]:
        """As Records.make_known."""
        slots = [(kind, key) for kind, key, _ in marks]
        made = self._change(slots, lambda i, record: self.made_known(record, marks[i][2], now), dry_run)
        return [(before or None, after) for before, after in made]

    def _forget(self, slots: list[Slot], dry_run: bool) -> list[int | None]:
        now, spans = int(time.time()), Spans.of(self.store)

        def gone(index: int, record: int) -> tuple[int, int]:
            kind = slots[index][0]
            if not _there(kind, record):
                return 0, 0
            # Later than what it replaces: of two records the later one counts.
            return max(now, time_of(record)) + 1 if kind in KNOWN else LONG_AGO, spans.span(kind) + SLACK

        return [before or None for before, _ in self._change(slots, gone, dry_run)]

    def _change(self, slots: list[Slot], change: Callable[[int, int], tuple[int, int]],
                dry_run: bool) -> list[tuple[int, int]]:
        """Put in the place of each record what change makes of it: number of the slot and record (0: there is none) to
        the new record (0: leave it) and the seconds to keep it. All at once. What each was, and what change made of it."""
        for _ in range(TRIES):
            stored = self._runner.run(self.engine.fetch(slots)) if slots else []
            changed = [change(index, record) for index, record in enumerate(stored)]
            writes = [Write(index, stored[index], new, keep) for index, (new, keep) in enumerate(changed)
                      if new not in (0, stored[index])]
            if dry_run or not writes or self._runner.run(self.engine.swap(slots, writes)):
                return [(_there(kind, old), new)
                        for (kind, _), old, (new, _) in zip(slots, stored, changed, strict=True)]
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
             "last": time_of(held[kind, key]) if held[kind, key] else None, "count": count_of(held[kind, key])}
            for kind, place, key in keys if kind != "waiting"]
        facts["waiting"] = {
            "triplets": [{"place": PLACE_NAMES[place], "first": time_of(held[kind, key])}
                         for kind, place, key in keys if kind == "waiting" and held[kind, key]],
            "pair": next(({"first": time_of(record), "hops": count_of(record)}
                          for (kind, _), record in held.items() if kind == "hops" and record), None)}


def _there(kind: str, record: int) -> int:
    """A record, or 0 for one that was forgotten: of what is known, one without a promotion."""
    forgotten = not count_of(record) if kind in KNOWN else record == LONG_AGO
    return 0 if forgotten else record


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
        try:
            runner.run(engine_opened(engine, store))
            yield Held(store, engine, runner)
        finally:
            runner.run(engine.close())
