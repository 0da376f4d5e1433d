"""Is a generation sound? Its structure by an independent reader, its contents by the program's own.

Everything is read in child processes: a damaged table can end whoever reads it, and one process must not have an
environment of LMDB open twice. The independent reader is lmdb.verify, which walks the bytes of the file in Python and
never hands them to LMDB.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from . import _core, directory, inside, manifest, settings
from .errors import ManifestError, StoreError
from .health import isolation
from .manifest import Manifest, Part

# Times later than this many seconds from now are no clock that was put right.
AHEAD = 86400
BATCH = 50_000
# A file that grew while it was looked at is looked at once more, so often.
TRIES = 3
# Seconds between two looks at how far the walk has come.
PAUSE = 0.1
PRIORITY_LOWEST = 19

Progress = Callable[[str, int, int], None]
T = TypeVar("T")


class Facts(NamedTuple):
    """What the head of a generation says. settings: stored numbers by slot."""

    generation: int
    superseded: int
    noting: bool
    made: int
    policy: int
    rules: int
    settings: list[int]
    secret: bytes


@dataclass(frozen=True)
class Contents:
    """What a generation holds: facts of its head, its manifest as it would be written now, what is wrong, and what is
    in doubt: records with times that have not come yet."""

    facts: Facts
    manifest: Manifest
    problems: tuple[str, ...]
    doubts: tuple[str, ...]


def nothing(step: str, done: int, total: int) -> None:
    """Progress that nobody follows."""


def structure(data: Path, progress: Progress = nothing) -> list[str]:
    """What the independent reader has against an LMDB environment, a directory or a data file; nothing if it is whole.

    A file that is written to meanwhile must be held by pinned(). progress: called with 'structure', bytes read and the
    bytes of the file. What keeps the walk from its end is a problem too.
    """
    problems: list[str] = []
    for _ in range(TRIES):
        problems = []
        size = _size(data)
        try:
            for value in isolation.results(lambda: _walk(data)):
                if isinstance(value, int):
                    progress("structure", min(value, size), size)
                else:
                    problems.append(value)
        except isolation.Ended as ended:
            problems.append(f"reading it ended by {ended}")
        except isolation.Late:
            problems.append(f"nothing could be read for {isolation.SECONDS} seconds")
        except OSError as error:
            problems.append(f"{error.filename or data}: {error.strerror}")
        if not problems or _size(data) == size:
            break
    return problems


@contextmanager
def pinned(generation: Path) -> Iterator[None]:
    """Keep the pages of a generation, as it is now or later, from being used anew while hooks write. StoreError."""
    directory.refuse_other_than_file(generation / "data.mdb")
    reading, writing = os.pipe()

    def hold() -> Iterator[None]:
        os.close(writing)
        with _core.Generation(str(generation)):
            yield
            # Until the parent has closed its end, be it by dying: a reader that is killed would leave its slot behind.
            os.read(reading, 1)

    holder = isolation.results(hold)
    try:
        with told_as_store_error(generation):
            next(holder)
        yield
    finally:
        os.close(writing)
        for _ in holder:
            pass
        os.close(reading)


def contents(generation: Path, progress: Progress = nothing, file: bool = False) -> Contents:
    """Every record of a generation looked at by the program's own reader; file: of a backup. progress: called with
    'contents', records done and their number. StoreError where it cannot be read to its end."""
    return in_child(generation, lambda: _read(generation, file), "contents", progress)


def seal(generation: Path) -> Manifest:
    """Write the manifest of a generation as it is now. StoreError, OSError."""
    found = contents(generation).manifest
    manifest.write(generation, found)
    return found


def in_child(place: Path, work: Callable[[], Iterator[tuple[int, int] | T]], step: str, progress: Progress) -> T:
    """The value that work yields in a child; pairs before it are progress. StoreError for all that can go wrong."""
    found: list[T] = []
    with told_as_store_error(place):
        # To its end: a child that is killed with a generation open leaves its reader slot behind.
        for value in isolation.results(work):
            if isinstance(value, tuple):
                progress(step, *value)
            else:
                found.append(value)
    if not found:
        raise StoreError(f"{place} could not be read to its end")
    return found[0]


@contextmanager
def told_as_store_error(place: Path) -> Iterator[None]:
    """What can go wrong with a child that reads the place, as StoreError."""
    try:
        yield
    except isolation.Ended as ended:
        raise StoreError(f"{place} is damaged: reading it ended by {ended}") from None
    except isolation.Late:
        raise StoreError(f"no answer from {place} within {isolation.SECONDS} seconds") from None
    except OSError as error:
        raise StoreError(f"cannot read {error.filename or place}: {error.strerror}") from None


def against_manifest(generation: Path, found: Contents) -> list[str]:
    """What is other than the manifest of the generation says; nothing where it has none that can be read, or was
    written to since."""
    try:
        told = manifest.read(generation)
    except (ManifestError, OSError):
        return []
    if told is None or told.transaction < found.manifest.transaction:
        return []
    if told.transaction > found.manifest.transaction:
        return [f"it ends with transaction {found.manifest.transaction}, its manifest was written after "
                f"{told.transaction}: a later state was lost"]
    return [f"{name} is other than its manifest says" for name in told.differences(found.manifest)]


def _size(data: Path) -> int:
    try:
        return (data / "data.mdb" if data.is_dir() else data).stat().st_size
    except OSError:
        return 0


def _walk(data: Path) -> Iterator[str | int]:
    """Problems, and before them now and then the number of bytes read so far. In the child."""
    from lmdb import verify

    # A sandbox may forbid it.
    with suppress(OSError):
        os.nice(PRIORITY_LOWEST)
    problems: list[str] = []

    def walk() -> None:
        try:
            with _file(data) as name:
                problems.extend(verify.verify(name))  # type: ignore[no-untyped-call]
        except OSError as error:
            problems.append(f"{error.filename or data}: {error.strerror}")
        # A file can be damaged in ways that the walk itself does not foresee.
        except Exception as error:
            problems.append(str(error) or type(error).__name__)

    begun = seen = _bytes_read()
    thread = threading.Thread(target=walk, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(PAUSE)
        if (read := _bytes_read()) > seen:
            seen = read
            yield seen - begun
    yield from problems


@contextmanager
def _file(data: Path) -> Iterator[str]:
    """The name of the data file: of an environment in a store, of what is open by now."""
    if not data.is_dir():
        yield os.fspath(data)
        return
    with open(inside.opened(data / "data.mdb", os.O_RDONLY), "rb") as file:
        yield f"/proc/self/fd/{file.fileno()}"


def _bytes_read() -> int:
    """By this process (proc(5), io), or seconds where the kernel does not tell: a number that grows."""
    try:
        return int(Path("/proc/self/io").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return int(time.monotonic())


def _read(path: Path, file: bool) -> Iterator[tuple[int, int] | Contents]:
    now = int(time.time())
    with _core.Generation(str(path), file) as found:
        head = found.head()
        total, done = found.records(), 0
        while seen := found.count(BATCH, now + AHEAD):
            done += seen
            yield done, total
        tables = {"window": found.windows(now + AHEAD)} | found.tally()
        record = found.policy()
        parts = {"head": Part(head["generation"], head["checksum"])}
        if record is not None:
            parts["policy"] = Part(head["policy"], manifest.checksum(record))
        parts |= {name: Part(table["records"], table["checksum"]) for name, table in tables.items()}
        facts = Facts(*(head[name] for name in Facts._fields))
        problems = [*_head_problems(facts, record), *_table_problems(tables)]
        doubts = [f"{table['ahead']} of {table['records']} records in {name} have times more than a day from now"
                  for name, table in tables.items() if table["ahead"]]
        yield Contents(facts, Manifest(found.transaction, now, parts), tuple(problems), tuple(doubts))


def _head_problems(facts: Facts, record: bytes | None) -> Iterator[str]:
    from . import policy

    for setting, value in zip(settings.SETTINGS, facts.settings, strict=True):
        most = {"flag": 1, "choice": len(setting.choices) - 1}.get(setting.kind, setting.most)
        if not setting.least <= value <= most:
            yield f"the head has {setting.name} {value}, which cannot be"
    if record is None:
        if facts.policy:
            yield f"policy {facts.policy} is missing"
        return
    try:
        number, _, rules, _ = policy.decode(record)
        damaged = policy.damaged(record)
    except policy.UNREADABLE:
        yield "the policy cannot be read"
        return
    if damaged:
        yield f"{damaged} rules of the policy are not what was compiled"
    if (number, len(rules)) != (facts.policy, facts.rules):
        yield (f"the policy is number {number} with {len(rules)} rules, and the head says {facts.policy} with "
               f"{facts.rules}")


def _table_problems(tables: dict[str, dict[str, int]]) -> Iterator[str]:
    for name, table in tables.items():
        if table["misshapen"]:
            yield f"{table['misshapen']} of {table['records']} records in {name} have another size than a record"
        if table["empty"]:
            yield f"{table['empty']} of {table['records']} records in {name} are none that a hook writes"
    if tables["window"]["others"]:
        yield f"{tables['window']['others']} entries of meta are none of this format"
