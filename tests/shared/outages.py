"""A machine on a shared engine beside the model of the decision: mail comes, engines go away, differences count."""

import asyncio
import contextlib
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import fastgrey
from fastgrey.shared.engine import Engine
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.keeper import Keeper
from fastgrey.shared.standby import Standby
from fastgrey.verdict import Verdict
from model import Model

DELAY = 300
Mail = tuple[str, str, str]


def two_stores(root: Path) -> tuple[fastgrey.Store, fastgrey.Store]:
    """Two stores of one secret, as two machines of one mail system have them."""
    fastgrey.create(root / "a")
    shutil.copytree(root / "a", root / "b", symlinks=True)
    return fastgrey.open(root / "a"), fastgrey.open(root / "b")


def word(number: int) -> str:
    """Letters for a number: digits in a sender count as one."""
    return "".join(chr(97 + int(digit)) for digit in str(number))


class Clock:
    """The time of the test, which goes on only as it is told."""

    def __init__(self, start: float | None = None) -> None:
        self.now = int(time.time() if start is None else start)

    def __call__(self) -> float:
        return self.now


class Machine:
    """One machine: its store, what decides, and what writes back, which runs while it is told to."""

    def __init__(self, store: fastgrey.Store, engine: Engine, keepers: Engine, clock: Clock, size: int = 64 << 20):
        self.store = store
        self.clock = clock
        self.greylist = Greylist(store, engine, Standby(store, size))
        self.greylist.breaker._first = 0.01
        self.greylist.breaker._most = 0.2
        self.said: list[str] = []
        self.keeper = Keeper(store, keepers, size, say=self.said.append, clock=clock)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self, keeping: bool = True) -> None:
        """Open, and begin to write back."""
        await self.greylist.open()
        if keeping:
            self._task = asyncio.create_task(self.keeper.run(self._stop))

    async def end(self) -> None:
        """Close all."""
        self._stop.set()
        if self._task is not None:
            await self._task
        await self.greylist.close()

    async def check(self, mail: Mail) -> Verdict:
        """Decide a mail now."""
        client, sender, recipient = mail
        return await self.greylist.check(client=client, sender=sender, recipient=recipient, now=self.clock.now)

    async def settled(self, seconds: float = 120) -> None:
        """Wait until the engine answers and has all, and the local table too."""
        def done() -> bool:
            standby = self.greylist.standby
            return self.greylist.breaker.asks and not standby._waiting and standby.journal.numbers() == (0, 0)
        try:
            await until(done, seconds)
        except AssertionError as error:
            journal = self.greylist.standby.journal
            error.add_note(f"engine: {self.greylist.breaker.why}; owed and copies: {journal.numbers()}, "
                           f"{len(self.greylist.standby._waiting)} on the way, such as {journal.owed(3)}; "
                           f"the keeper said {self.said}")
            raise


async def until(done: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition; fails where it does not come true."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def machine(path: Path, engine: Engine, keepers: Engine, clock: Clock, keeping: bool = True,
                  **options: int) -> AsyncIterator[Machine]:
    """A machine with a new store."""
    fastgrey.create(path)
    with fastgrey.open(path) as store:
        made = Machine(store, engine, keepers, clock, **options)
        await made.begin(keeping)
        try:
            yield made
        finally:
            await made.end()


@contextlib.asynccontextmanager
async def two_machines(root: Path, engines: Sequence[tuple[Engine, Engine]],
                       clock: Clock) -> AsyncIterator[list[Machine]]:
    """Two machines of one mail system, each with its ways to the engine: one to decide, one to write back."""
    stores = two_stores(root)
    made = [Machine(store, *ways, clock) for store, ways in zip(stores, engines, strict=True)]
    try:
        for one in made:
            await one.begin()
        yield made
    finally:
        for one in made:
            await one.end()
        for store in stores:
            store.close()


class Traffic:
    """Mail as it comes: strangers, their retries early and late, friends, pools."""

    def __init__(self, chance: random.Random, clock: Clock) -> None:
        self.chance = chance
        self.clock = clock
        self._waiting: list[tuple[int, Mail]] = []
        self._friends: list[Mail] = []
        self._number = 0

    def _stranger(self) -> Mail:
        self._number += 1
        if self.chance.random() < 0.1:
            # A pool: the same sender and recipient from another network.
            pool = self.chance.choice("abcde")
            network = f"10.{self.chance.randrange(100, 250)}.{self.chance.randrange(250)}"
            return f"{network}.1", f"news@pool{pool}.example", "list@example.net"
        name = word(self._number)
        network = self.chance.randrange(40)
        domain = name if self.chance.random() < 0.7 else "same"
        return (f"10.1.{network}.{self.chance.randrange(3)}", f"{name}@{domain}.example",
                f"u{self.chance.randrange(20)}@example.net")

    def __iter__(self) -> Iterator[Mail]:
        return self

    def __next__(self) -> Mail:
        self.clock.now += self.chance.randrange(0, 8)
        draw = self.chance.random()
        if draw < 0.4 and self._friends:
            client, sender, recipient = self.chance.choice(self._friends)
            if self.chance.random() < 0.3:
                recipient = f"u{self.chance.randrange(20)}@example.net"
            return client, sender, recipient
        due = [entry for entry in self._waiting if entry[0] <= self.clock.now]
        if draw < 0.75 and due:
            entry = self.chance.choice(due)
            self._waiting.remove(entry)
            self._friends.append(entry[1])
            return entry[1]
        if draw < 0.8 and self._waiting:
            return self.chance.choice(self._waiting)[1]
        mail = self._stranger()
        self._waiting.append((self.clock.now + self.chance.choice([DELAY, DELAY + 60, 1800]), mail))
        return mail


class Judged:
    """What the machines said beside what the model says of the same mail: counted, and the first differences kept."""

    def __init__(self) -> None:
        self.model = Model()
        self.counts: Counter[str] = Counter()
        self.differences: list[str] = []

    def compare(self, mail: Mail, now: int, verdict: Verdict) -> None:
        """Count one decision."""
        action, reason, wait = self.model.check(now=now, client=mail[0].encode(), sender=mail[1].encode(),
                                                recipient=mail[2].encode())
        self.counts["mails"] += 1
        self.counts[f"{verdict.action} {verdict.reason}"] += 1
        what = None
        if verdict.reason == "error":
            what = "errors"
        elif action == "accept" and verdict.action != "accept":
            what = "stopped"
        elif action == "defer" and verdict.action == "accept":
            what = "let through"
        elif verdict.wait > wait:
            what = "longer"
        elif verdict.wait < wait:
            what = "shorter"
        if what is not None:
            self.counts[what] += 1
            self.differences.append(f"{what}: {mail} at {now}: {verdict}, not {action} {reason} {wait}")

    def faithful(self) -> None:
        """Not one mail was decided otherwise than by the rules on all that was ever earned."""
        assert not self.differences, (len(self.differences), self.differences[:5], self.counts)
