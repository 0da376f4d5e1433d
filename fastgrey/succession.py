"""How a ready generation takes the place of the one in force, other than by compaction: to go back, or from a backup.

It always gets a new number, the next one, so that numbers keep the order of time and no process mistakes one generation
for another that once had its name. docs/format.md has the states and what a kill leaves in each.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import _core, directory, maintenance, policy, settings, soundness, times
from .errors import CompactionError, FastgreyError, StoreError
from .soundness import Contents, Progress

BATCH = 50_000
# Seconds between two looks at how far a copy has come.
PAUSE = 0.1


@dataclass(frozen=True)
class Loss:
    """What is lost when one generation takes the place of another, both of them the numbers of records by kind.

    added: records that only the one that goes has. changed: records with a later time or another count there. gone:
    records that it has no longer, and that come back. settings: name, value that goes, value that comes. policy and
    windows: what goes and what comes, for people; None where they are the same.
    """

    added: dict[str, int]
    changed: dict[str, int]
    gone: dict[str, int]
    settings: list[tuple[str, str, str]]
    policy: tuple[str, str] | None
    windows: tuple[int, int] | None


@contextmanager
def alone(root: Path, error: type[FastgreyError]) -> Iterator[None]:
    """Hold the lock of compaction; the error where it cannot be had."""
    try:
        with maintenance.alone(root):
            yield
    except CompactionError as refused:
        raise error(str(refused)) from None


def healthy(generation: Path, number: int, progress: Progress = soundness.nothing,
            in_force: bool = False) -> Contents | str:
    """The contents of a generation that nobody need fear to open; else what is wrong with it. in_force: it is the one
    that hooks use, by what the link says."""
    try:
        with soundness.pinned(generation):
            problems = soundness.structure(generation, progress)
            if problems:
                return problems[0]
            found = soundness.contents(generation, progress)
    except FastgreyError as error:
        return str(error)
    problems = [*found.problems, *soundness.against_manifest(generation, found)]
    if found.facts.generation != number:
        problems.append(f"it says that it is number {found.facts.generation}")
    if in_force and found.facts.superseded and _in_force(generation.parent) == number:
        problems.append(f"it is marked as superseded by {directory.generation_name(found.facts.superseded)}")
    return problems[0] if problems else found


def loss(generation: Path, comes: Path, progress: Progress = soundness.nothing) -> Loss:
    """What is lost when the generation in the directory `comes` takes the place of the other. StoreError."""
    return soundness.in_child(generation, lambda: _compare(generation, comes), "compare", progress)


def _compare(generation: Path, comes: Path) -> Iterator[tuple[int, int] | Loss]:
    now = int(time.time())
    with _core.Generation(str(generation)) as goes, _core.Generation(str(comes)) as other:
        before, after = goes.head(), other.head()
        comparison = _core.Comparison(goes, other, now)
        total, done = goes.records() + other.records(), 0
        while comparison.go_on(BATCH):
            done += BATCH
            yield min(done, total), total
        found = comparison.found()
        shown = [settings.show(settings.by_name(head["settings"])) for head in (before, after)]
        windows = goes.windows(now), other.windows(now)
        policies = [_policy_shown(side.policy()) for side in (goes, other)]
        added, changed, gone = ({kind: numbers[what] for kind, numbers in found.items()}
                                for what in ("added", "changed", "gone"))
        yield Loss(
            added, changed, gone,
            [(name, shown[0][name], shown[1][name]) for name in shown[0] if shown[0][name] != shown[1][name]],
            (policies[0], policies[1]) if policies[0] != policies[1] else None,
            (windows[0]["records"], windows[1]["records"]) if windows[0] != windows[1] else None,
        )


def _policy_shown(record: bytes | None) -> str:
    if record is None:
        return "none"
    _, applied, rules, _ = policy.decode(record)
    return f"{len(rules)} rule{'' if len(rules) == 1 else 's'} of {times.date(applied)}"


def copy(generation: Path, descriptor: int, progress: Progress = soundness.nothing) -> None:
    """Write a packed copy of a generation, as it is at one moment, to a file. StoreError."""
    soundness.in_child(generation, lambda: _copy(generation, descriptor), "copy", progress)


def _copy(generation: Path, descriptor: int) -> Iterator[tuple[int, int] | bool]:
    failed: list[StoreError] = []
    with _core.Generation(str(generation)) as source:

        def work() -> None:
            try:
                source.copy(descriptor)
            except OSError as error:
                failed.append(StoreError(f"cannot copy {generation}: {error.strerror}"))
            except StoreError as error:
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        size, seen = (generation / "data.mdb").stat().st_size, 0
        while thread.is_alive():
            thread.join(PAUSE)
            if (written := os.fstat(descriptor).st_size) > seen:
                seen = written
                yield min(seen, size), size
    if failed:
        raise failed[0]
    yield True


def adopt(generation: Path, number: int, policy_number: int) -> None:
    """Give a copy its number, and its policy the number that it gets, and flush it. StoreError."""

    def work() -> Iterator[bool]:
        _core.adopt(str(generation), number, policy_number)
        yield True

    soundness.in_child(generation, work, "adopt", soundness.nothing)
    directory.flush_generation(generation)


def next_policy(goes: Contents | None, comes: Contents) -> int:
    """The number that the policy gets: the same where it is the same, else one that none had before."""
    if goes is None or goes.manifest.parts.get("policy") == comes.manifest.parts.get("policy"):
        return comes.facts.policy
    return max(goes.facts.policy, comes.facts.policy) + 1 if comes.facts.policy else 0


def put_in_force(root: Path, old: int, number: int, whole: bool) -> None:
    """Put a ready generation in force in place of the old one.

    whole: the old one can be opened; then this happens under its write lock, so that nothing is written to it
    unnoticed, and it is kept to go back to. Else it is put aside. Raises StoreError, OSError.
    """
    name = directory.generation_name(number)

    def swap() -> None:
        # What a hook promotes in the new one before the link is flushed, a power cut would take back with the link.
        _core.locked(str(root / name), lambda: directory.swap(root, name))

    if whole:
        with directory.open_store(root) as store, store._alone():
            _core.supersede(store, number, swap)
        return
    swap()
    broken = root / directory.generation_name(old)
    if os.path.lexists(broken):
        os.replace(broken, root / f"{directory.ASIDE}{old:06d}")
        directory.flush_directory(root)


def prepare_hits(root: Path, number: int, told: Contents, goes: Path | None, comes: Path) -> None:
    """See to it that the policy of a generation to come, whose contents are told, has a file of hits under the number
    that it gets, before anybody can see it. Its rules bring along the hits that they have in the one that goes."""
    # A file that hooks count in must not be written anew: what is mapped beyond its end raises SIGBUS.
    if not number or number == told.facts.policy and policy.hits_path(root, number).exists():
        return
    policy.write_hits(root, number, carried_hits(root, goes, comes))


def settle(root: Path, old: int, number: int, policy_number: int, whole: bool) -> None:
    """After that: counters follow the settings, what nobody needs goes, and the manifests are written."""
    with directory.open_store(root) as store:
        _core.follow_settings(store)
    policy.remove_hits_before(root, policy_number)
    for path in directory.leftovers(root, number):
        directory.remove(path)
    if whole:
        soundness.seal(root / directory.generation_name(old))
    soundness.seal(root / directory.generation_name(number))


def carried_hits(root: Path, goes: Path | None, comes: Path) -> list[int]:
    """The hits that the rules of a generation to come bring along from those of the one that goes."""

    def work() -> Iterator[list[int]]:
        rules = _rules(comes)
        before = _rules(goes) if goes is not None else policy.Policy({})
        hits = policy.read_hits(str(root), before.number, len(before.rules))
        yield policy.carried(policy.Policy({}, before.rules, (), before.number, 0, hits), rules.rules)

    return soundness.in_child(comes, work, "hits", soundness.nothing)


def _rules(generation: Path) -> policy.Policy:
    with _core.Generation(str(generation)) as found:
        found.head()
        record = found.policy()
    if record is None:
        return policy.Policy({})
    number, applied, rules, files = policy.decode(record)
    return policy.Policy({}, rules, files, number, applied)


def told(root: Path, left: int) -> str:
    """For an error: which generation is in force after it."""
    return f"{directory.generation_name(_in_force(root) or left)} is in force"


@contextmanager
def new_generation(root: Path, number: int) -> Iterator[Path]:
    """The directory of the next generation, made, and removed where it does not come into force. What a killed command
    left under its name goes first."""
    target = root / directory.generation_name(number)
    if os.path.lexists(target):
        directory.remove(target)
    with directory.shared_files():
        target.mkdir()
    try:
        yield target
    except BaseException:
        if _in_force(root) != number:
            directory.remove(target)
        raise


def _in_force(root: Path) -> int:
    try:
        return directory.current_number(root)
    except StoreError:
        return 0
