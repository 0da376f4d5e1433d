"""Compaction: what is alive goes into a new packed generation, the rest is dropped, while hooks go on.

docs/format.md has the states that a store goes through, and what a kill leaves in each.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import _core, directory, last_run, leap, maintenance, soundness, views
from ._core import Copy, Store
from .errors import CompactionError, FastgreyError, StoreError, VerificationError
from .last_run import LastRun

BATCH = 20_000
# Batches after which the copy is flushed, some 17 MB: a promotion's flush waits for no more than that.
FLUSH_BATCHES = 25
# Records that the locked phase may find left to bring over, and how often that is tried before it.
LEFT_MAX = 200
ROUNDS = 10
# Share of expired records or of free pages from which a compaction is worth its while.
SHARE = 0.2
# Fewer free pages are not worth it, whatever their share.
FREE_MIN = 256
VERIFY = ("full", "copy")
# What to do about a clock that is in doubt.
TRUST = "set the clock, or if it is right, run: fastgrey compact --trust-clock"

Progress = Callable[[str, int, int], None]


@dataclass
class Summary:
    """What a compaction did. Sizes are bytes on disk.

    touched: records written while it ran. locked: seconds for which writers may have waited. steps: seconds by step.
    """

    generation: int
    alive: int
    expired: int
    touched: int
    windows_closed: int
    partitions_dropped: int
    size_before: int
    size_after: int
    verified: str
    locked: float
    seconds: float
    steps: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """The same as a dictionary, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Need:
    """Whether a compaction is worth its while. Shares are of 1: of expired ones among known records, of free pages in
    the file, 0 where they are few. leftovers: names of what an earlier compaction or boot left."""

    expired: float
    free: float
    leftovers: list[str]

    def reason_against(self, share: float) -> str | None:
        """Why none is needed where neither share is as large as this; None where one is."""
        if self.leftovers or max(self.expired, self.free) >= share:
            return None
        return (f"{self.expired:.1%} of the known records are expired and {self.free:.1%} of the pages free, less than "
                f"{share:.0%}")


@dataclass(frozen=True)
class Declined:
    """A compaction that was not needed, and why."""

    why: str
    expired: float
    free: float

    def as_dict(self) -> dict[str, object]:
        """The same as a dictionary, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Order:
    """What was asked for; needed: the share of Need.reason_against, None for a compaction in any case. guarded: a clock
    that has leapt ahead is refused."""

    now: int
    progress: Progress
    verify: str
    max_rate: int | None
    needed: float | None
    guarded: bool


def compact(path: str, now: int | None = None, progress: Progress = soundness.nothing, verify: str = "full",
            max_rate: int | None = None, trust_clock: bool = False) -> Summary:
    """Write a new generation of the store at path, verify it and put it in force; clean up behind it.

    now: Unix seconds by which records expire, None for the clock. progress: called with the step ('copy', 'compare',
    'structure'), what is done of it and its total. verify: 'full', or 'copy' to leave out the walk of the independent
    reader over the structure of the new file. max_rate: bytes of the store to go through in a second at most.
    trust_clock: also where the clock seems to have leapt ahead (leap.py), so that nearly all would expire.

    Raises RunningError where another one runs, VerificationError where the new generation is not what it should be,
    CompactionError and StoreError for all else. The generation in force then is what it was, unless the error says that
    the new one is.
    """
    done = _run(path, _order(now, progress, verify, max_rate, None, trust_clock))
    assert isinstance(done, Summary)
    return done


def compact_if_needed(path: str, share: float = SHARE, now: int | None = None, progress: Progress = soundness.nothing,
                      verify: str = "full", max_rate: int | None = None,
                      trust_clock: bool = False) -> Summary | Declined:
    """The same where at least that share of the known records is expired or of the file's pages free, or something is
    left over of an earlier compaction or boot."""
    return _run(path, _order(now, progress, verify, max_rate, share, trust_clock))


def _order(now: int | None, progress: Progress, verify: str, max_rate: int | None, needed: float | None,
           trust_clock: bool) -> _Order:
    if verify not in VERIFY:
        raise ValueError(f"verify is {verify!r}; it is one of {', '.join(VERIFY)}")
    # Whoever names a time means it.
    return _Order(int(time.time()) if now is None else now, progress, verify, max_rate, needed,
                  now is None and not trust_clock)


@dataclass(frozen=True)
class Foretold:
    """What a compaction would keep and drop. Sizes are bytes on disk.

    strangers: records in the partitions that would be dropped. size: of the generation in force. removed: what would be
    removed, by name, with its size. doubt: why it would be refused unless the clock is trusted, else None.
    """

    alive: int
    expired: int
    windows_closed: int
    partitions: int
    strangers: int
    size: int
    removed: dict[str, int]
    need: Need
    doubt: str | None

    def as_dict(self) -> dict[str, object]:
        """The same as a dictionary, for JSON."""
        return asdict(self)


def foretell(path: str, now: int | None = None, trust_clock: bool = False) -> Foretold:
    """What compact() would do with the same arguments. Writes nothing. StoreError."""
    order, root = _order(now, soundness.nothing, "full", None, None, trust_clock), Path(path)
    moment = order.now
    with directory.open_store(path) as store:
        alive, known = sum(store.alive(moment).values()), sum(store.known().values())
        number, need = directory.current_number(root), _need(root, store, moment)
        parts = _core.partitions_expired(store, moment)
        closed = sum(moment > window["until"] for window in _core.windows(store))
        doubt = _doubt(store, order)
    # What is left over now, and what is once there is a generation more.
    removed = dict.fromkeys([*_leftovers(root, number), *_leftovers(root, number + 1)])
    return Foretold(alive, known - alive, closed, len(parts), sum(part["records"] for part in parts),
                    directory.size_on_disk(root / directory.generation_name(number)),
                    {entry.name: directory.size_on_disk(entry) for entry in removed}, need, doubt)


def _need(root: Path, store: Store, now: int) -> Need:
    known, (pages, free) = sum(store.known().values()), _core.pages_in_use(store)
    expired = 1 - sum(store.alive(now).values()) / known if known else 0.0
    left = [entry.name for entry in _leftovers(root, directory.current_number(root))]
    return Need(expired, free / pages if free >= FREE_MIN else 0.0, left + ["notes"] * store.head()["noting"])


def _run(path: str, order: _Order) -> Summary | Declined:
    root, began, started = Path(path), int(time.time()), time.monotonic()
    with directory.open_store(path) as store, maintenance.alone(root), store._alone():
        before = last_run.read(root)
        succeeded = before.succeeded if before else None
        last_run.write(root, LastRun("running", began, succeeded=succeeded))
        result, why = "failed", "interrupted"
        views.remove_old()
        try:
            done = _decide(root, store, order)
            if isinstance(done, Declined):
                result, why = "declined", done.why
            else:
                done.seconds = time.monotonic() - started
                result, why = "done", ""
            succeeded = int(time.time())
        except OSError as error:
            why = f"cannot compact {root}: {error.filename or root}: {error.strerror}; {_in_force(root)}"
            raise CompactionError(why) from None
        except FastgreyError as error:
            why = str(error)
            raise
        finally:
            last_run.write(root, LastRun(result, began, int(time.time()), _number(root),
                                         round(time.monotonic() - started, 3), why or None, succeeded))
    return done


def _doubt(store: Store, order: _Order) -> str | None:
    return leap.leapt(store, order.now) if order.guarded else None


def _decide(root: Path, store: Store, order: _Order) -> Summary | Declined:
    doubt = _doubt(store, order)
    if doubt is not None:
        raise CompactionError(f"{doubt}; {TRUST}")
    if order.needed is not None:
        need = _need(root, store, order.now)
        why = need.reason_against(order.needed)
        if why is not None:
            return Declined(why, round(need.expired, 4), round(need.free, 4))
    return _Compaction(root, store, order).run()


class _Compaction:
    """One compaction, a method a step."""

    def __init__(self, root: Path, store: Store, order: _Order) -> None:
        self.root = root
        self.store = store
        self.order = order
        self.old = directory.current_number(root)
        self.number = self.old + 1
        self.target = root / directory.generation_name(self.number)
        self.steps: dict[str, float] = {}
        # A link that is there, and could not be flushed.
        self.unflushed: OSError | None = None

    def run(self) -> Summary:
        _remove(_leftovers(self.root, self.old))
        old = self.root / directory.generation_name(self.old)
        size_before = directory.size_on_disk(old)
        with directory.shared_files():
            self.target.mkdir()
        copy = None
        try:
            copy = Copy(self.store, str(self.target), self.number, self.order.now)
            alive, expired = self._copy(copy, size_before)
            with self._step("lock"):
                touched = copy.finish(self._swap)
        except BaseException:
            if _number(self.root) != self.number:
                if copy is not None:
                    copy.abandon()
                directory.remove(self.target)
            raise
        try:
            with self._step("clean"):
                dropped = self.store.drop_expired(self.order.now)
                _remove(_leftovers(self.root, self.number))
            with self._step("seal"):
                soundness.seal(old)
                soundness.seal(self.target)
            if self.unflushed is not None:
                raise self.unflushed
        except (OSError, StoreError) as error:
            raise CompactionError(f"{self.target.name} is in force, but not all could be done that follows: "
                                  f"{str(error).rstrip('.')}; the next compaction makes up for it") from None
        return Summary(self.number, alive, expired, touched, copy.windows_closed, dropped, size_before,
                       directory.size_on_disk(self.target), self.order.verify, round(copy.locked, 6), 0.0,
                       {name: round(seconds, 3) for name, seconds in self.steps.items()})

    def _copy(self, copy: Copy, size: int) -> tuple[int, int]:
        """Up to the point where only the last few writes are missing."""
        total = copy.total()
        pace = _Pace(self.order.max_rate, size / total if total else 0)
        with self._step("copy"):
            self._each(copy.copy, "copy", total, pace, copy.flush)
            numbers = copy.rewind()
        with self._step("compare"):
            self._each(copy.compare, "compare", total, pace)
            directory.flush_generation(self.target)
        with self._step("catch up"):
            self._catch_up(copy, pace)
        if self.order.verify == "full":
            with self._step("structure"):
                size = (self.target / "data.mdb").stat().st_size
                self.order.progress("structure", 0, size)
                problems = soundness.structure(self.target, self.order.progress)
                self.order.progress("structure", size, size)
            if problems:
                raise VerificationError(f"the new generation {self.target} is not sound: {problems[0]}; the generation "
                                        "in force is unchanged; look for failing memory or a failing disk")
            with self._step("catch up"):
                self._catch_up(copy, pace)
        return numbers

    def _each(self, step: Callable[[int], int], name: str, total: int, pace: "_Pace",
              flush: Callable[[], None] | None = None) -> None:
        done = batches = 0
        self.order.progress(name, done, total)
        while seen := step(BATCH):
            done += seen
            batches += 1
            if flush is not None and batches % FLUSH_BATCHES == 0:
                flush()
            self.order.progress(name, done, total)
            pace.passed(seen)

    def _catch_up(self, copy: Copy, pace: "_Pace") -> None:
        for _ in range(ROUNDS):
            left = copy.catch_up(BATCH)
            if left <= LEFT_MAX:
                break
            pace.passed(left)

    def _swap(self) -> None:
        try:
            directory.swap(self.root, self.target.name)
        except OSError as error:
            if _number(self.root) != self.number:
                raise
            # Hooks promote into the new one by now: there is no way back.
            self.unflushed = error

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.steps[name] = self.steps.get(name, 0.0) + time.monotonic() - started


class _Pace:
    """Sleeps so that no more than so many bytes are gone through in a second; None: never."""

    def __init__(self, rate: int | None, record: float) -> None:
        self.rate = rate
        self.record = record
        self.free_at = time.monotonic()

    def passed(self, records: int) -> None:
        """So many records were gone through; what was slower than it might have been is not made up for."""
        if self.rate is None:
            return
        now = time.monotonic()
        self.free_at = max(now, self.free_at) + records * self.record / self.rate
        time.sleep(self.free_at - now)


def _number(root: Path) -> int | None:
    try:
        return directory.current_number(root)
    except StoreError:
        return None


def _in_force(root: Path) -> str:
    number = _number(root)
    return "ask: fastgrey doctor" if number is None else f"{directory.generation_name(number)} is in force and whole"


def _leftovers(root: Path, current: int) -> list[Path]:
    """What a killed compaction left, generations before the one to go back to, and pending of earlier boots."""
    keep = f"pending.{directory.boot_id()}"
    # Here too a name that goes stands before what it was.
    former = sorted((path for path in root.glob("pending.*") if path.name != keep), reverse=True)
    return [*directory.leftovers(root, current), *former]


def _remove(paths: list[Path]) -> None:
    for path in paths:
        directory.remove(path)
