"""The records of a store as a person sees them: walked in batches, found by key, each told as facts.

Keys are hashes (docs/format.md): a record tells no address.
"""

import re
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from . import settings as settings_
from . import times
from ._core import Records, Store
from .errors import RequestError

KINDS = ("client", "domain", "triplet", "pair")
# The setting that must not be 0 for a known record of a kind to let mail pass. Of pairs it counts networks, of the
# others the promotions that it takes.
SWITCHES = {"client": "allow_client_after", "domain": "allow_domain_after", "pair": "pool_hops"}
KEY_SIZE = 16
BATCH = 4096
ROW = struct.Struct("=16sQ")
TIME_MASK = (1 << 40) - 1
LAST_KEY = b"\xff" * KEY_SIZE

Facts = dict[str, Any]


class Record(NamedTuple):
    """One record. where: 'known' or 'pending'. kind: one of KINDS.

    time: last seen where known, first seen where pending. counted: promotions where known, hops of a pending pair, 0
    for a pending triplet. passed: the triplet of a pending record is known by now. stored: the key it is stored under.
    """

    where: str
    kind: str
    stored: bytes
    time: int
    counted: int
    passed: bool = False

    @property
    def key(self) -> bytes:
        """The key, of which a pending triplet keeps the first half."""
        return key_of(self.where, self.kind, self.stored)


class View:
    """A store at one moment: its settings, the time, and its records."""

    def __init__(self, store: Store, now: int | None = None) -> None:
        self.store = store
        self.records = Records(store)
        self.now = int(time.time()) if now is None else now
        self.settings = settings_.by_name(store.head()["settings"])

    def batches(self, kind: str, first: bytes = bytes(KEY_SIZE)) -> Iterator[list[tuple[bytes, int]]]:
        """The known records of a kind as keys and numbers as stored, in the order of keys, the expired included."""
        return _batches(partial(self.records.known, kind), first)

    def known(self, kind: str, first: bytes = bytes(KEY_SIZE), last: bytes = LAST_KEY) -> Iterator[Record]:
        """The known records of a kind whose keys are from first to last, in the order of keys, the expired included."""
        for rows in self.batches(kind, first):
            for key, record in rows:
                if key > last:
                    return
                yield self.record("known", kind, key, record)

    def pending(self) -> Iterator[Record]:
        """The records of pending, a partition after the other, the expired included."""
        for partition in self.store.partitions():
            read = partial(self.records.pending, partition)
            for rows in _batches(read):
                yield from self._pending(rows)

    def _pending(self, rows: list[tuple[bytes, int]]) -> Iterator[Record]:
        passed = iter(self.passed([key for key, record in rows if not record >> 40]))
        for key, record in rows:
            # A pair has a hop at least, a triplet none.
            if record >> 40:
                yield self.record("pending", "pair", key, record)
            else:
                yield self.record("pending", "triplet", key, record, next(passed))

    def passed(self, stored: list[bytes]) -> list[bool]:
        """Of each key of a pending triplet, whether that triplet is known by now."""
        halves = b"".join(key[KEY_SIZE // 2:] for key in stored)
        return [bool(flag) for flag in self.records.triplets_alive(halves, self.now)]

    def record(self, where: str, kind: str, stored: bytes, number: int, passed: bool = False) -> Record:
        """A record from the number stored under its key."""
        return Record(where, kind, stored, number & TIME_MASK, number >> 40, passed)

    def find(self, prefix: str) -> list[Record]:
        """All records, expired ones too, whose keys begin with these hex digits (see key_prefix)."""
        first = bytes.fromhex(prefix.ljust(2 * KEY_SIZE, "0"))
        last = bytes.fromhex(prefix.ljust(2 * KEY_SIZE, "f"))
        found = [record for kind in KINDS for record in self.known(kind, first, last)]
        # Partitions come in the order of time: where several have a record, the newest counts.
        newest: dict[bytes, Record] = {}
        for record in self.pending():
            key = record.key
            if first[:len(key)] <= key <= last[:len(key)]:
                newest[record.stored] = record
        return found + list(newest.values())

    def expires(self, record: Record) -> int:
        """The last second in which the record counts."""
        span = "lifetime" if record.where == "known" else "pool_window" if record.kind == "pair" else "retry_window"
        return record.time + self.settings[span]

    def alive(self, record: Record) -> bool:
        """Whether the record counts."""
        return self.now <= self.expires(record)

    def passes_from(self, record: Record) -> int:
        """The first second in which a retry of what is pending passes."""
        return record.time + self.settings["delay"]

    def state(self, record: Record) -> tuple[bool, str]:
        """Whether the record lets mail pass now, and in a few words why."""
        if not self.alive(record):
            return False, "expired"
        if record.where == "pending":
            return self._state_of_pending(record)
        after = SWITCHES.get(record.kind)
        if after is None:
            return True, "its mail passes"
        if self.settings[after] == 0:
            return False, f"counts for nothing: {after} is 0"
        if record.kind != "pair" and record.counted < self.settings[after]:
            return False, f"{record.counted} of {self.settings[after]} promotions"
        return True, "its mail passes"

    def _state_of_pending(self, record: Record) -> tuple[bool, str]:
        old_enough = self.now >= self.passes_from(record)
        if record.kind == "triplet":
            if record.passed:
                return True, "known by now"
            return old_enough, "a retry passes now" if old_enough else "waits"
        hops = self.settings["pool_hops"]
        if hops == 0:
            return False, "counts for nothing: pool_hops is 0"
        if record.counted + 1 < hops:
            return False, f"{record.counted} of {hops} hops"
        return old_enough, "the next hop passes" if old_enough else "waits"

    def facts(self, record: Record) -> Facts:
        """What is to be told of a record, as JSON has it. Times are UTC (RFC 3339), age is in seconds."""
        seen = times.rfc3339(record.time)
        lets_pass, state = self.state(record)
        facts: Facts = {"where": record.where, "kind": record.kind, "key": record.key.hex()}
        if record.where == "known":
            facts |= {"promotions": record.counted, "last_seen": seen}
        else:
            facts |= {"hops": record.counted} if record.kind == "pair" else {
                "pair": record.stored[:KEY_SIZE // 2].hex(), "passed": record.passed}
            facts |= {"first_seen": seen, "passes_from": times.rfc3339(self.passes_from(record))}
        return facts | {"age": max(0, self.now - record.time), "expires": times.rfc3339(self.expires(record)),
                        "alive": self.alive(record), "lets_pass": lets_pass, "state": state}

    def rows(self, record: Record) -> list[tuple[str, str]]:
        """The same as lines of a name and a value."""

        def shown(seconds: int) -> str:
            return times.date_and_distance(seconds, self.now)

        state = self.state(record)[1]
        if record.where == "known":
            return [("promotions", str(record.counted)), ("last seen", shown(record.time)),
                    ("expires" if self.alive(record) else "expired", shown(self.expires(record))), ("state", state)]
        what = ("hops", str(record.counted)) if record.kind == "pair" else (
            "pair", record.stored[:KEY_SIZE // 2].hex())
        return [what, ("first seen", shown(record.time)), ("passes from", shown(self.passes_from(record))),
                ("counts until", shown(self.expires(record))), ("state", state)]

    def line(self, record: Record, what: str = "") -> str:
        """The same in one line, with the short key of log lines. what: whose record it is, where that is known."""
        seen = times.date_and_distance(record.time, self.now)
        counted = {"known": f"promotions {record.counted}, last seen ", "pending": "first seen "}[record.where]
        if record.kind == "pair" and record.where == "pending":
            counted = f"hops {record.counted}, {counted}"
        whose = f" ({what})" if what else ""
        return f"{record.where} {record.kind} {short(record.key)}{whose}: {counted}{seen}"


def key_of(where: str, kind: str, stored: bytes) -> bytes:
    """The key of a record from the one it is stored under: a pending triplet has its pair's before its own."""
    return stored[KEY_SIZE // 2:] if kind == "triplet" and where == "pending" else stored


def short(key: bytes | str) -> str:
    """A key, or its hex digits, as log lines show it."""
    return (key if isinstance(key, str) else key.hex())[:12]


def key_prefix(text: str, least: int = 4) -> str:
    """A key, or how one begins, as log lines and commands show it, in lower case; RequestError where it is none."""
    if not re.fullmatch(rf"[0-9a-fA-F]{{{least},{2 * KEY_SIZE}}}", text):
        raise RequestError(f"{text[:60]!r} is no key: expected {least} to {2 * KEY_SIZE} hex digits, such as the key= "
                           "of a log line")
    return text.lower()


def _batches(read: Callable[[bytes, int], bytes], start: bytes = bytes(KEY_SIZE)) -> Iterator[list[tuple[bytes, int]]]:
    """What read gives from a key on, until it gives less than a whole batch."""
    rows = list(ROW.iter_unpack(read(start, BATCH)))
    while rows:
        yield rows
        last = rows[-1][0]
        if len(rows) < BATCH or last == LAST_KEY:
            return
        start = (int.from_bytes(last, "big") + 1).to_bytes(KEY_SIZE, "big")
        rows = list(ROW.iter_unpack(read(start, BATCH)))
