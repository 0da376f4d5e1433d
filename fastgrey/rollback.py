"""Going back to the generation before: a copy of it becomes the next one.

The generation that is left is kept, so that going back once more undoes it.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from . import directory, inside, soundness, succession
from .errors import FastgreyError, RollbackError, StoreError
from .soundness import Contents, Progress
from .succession import Loss


@dataclass(frozen=True)
class Summary:
    """What going back did, or would do.

    left: number of the generation that was in force. source: the one that was gone back to. generation: the number that
    its copy has. records: known records by kind that are in force now. loss: None where the generation left is damaged,
    which then is `damage`, and nothing can be counted.
    """

    left: int
    source: int
    generation: int
    records: dict[str, int]
    loss: Loss | None
    damage: str | None

    def as_dict(self) -> dict[str, object]:
        """The same as a dictionary, for JSON."""
        return asdict(self)


def rollback(path: str, dry_run: bool = False, progress: Progress | None = None) -> Summary:
    """Put a copy of the generation before in force. dry_run: only tell what would be lost.

    What is lost is counted when nothing can be written any more to the generation that is left; with dry_run, as it is
    now. This process must not have the store open. Raises RollbackError, StoreError; the generation in force then is
    what it was.
    """
    root = Path(path)
    follow = progress or soundness.nothing
    left = directory.current_number(root)
    try:
        if dry_run:
            return _rollback(root, left, dry_run, follow)
        with succession.alone(root, RollbackError):
            return _rollback(root, directory.current_number(root), dry_run, follow)
    except OSError as error:
        raise RollbackError(f"cannot go back in {root}: {error.filename or root}: {error.strerror}; "
                            f"{succession.told(root, left)}") from None


def _rollback(root: Path, left: int, dry_run: bool, progress: Progress) -> Summary:
    source = _before(root, left)
    goes, comes = root / directory.generation_name(left), root / directory.generation_name(source)
    before = succession.healthy(comes, source, progress)
    if not isinstance(before, Contents):
        raise RollbackError(f"cannot go back to {comes.name}: {before}; restore a backup with: fastgrey restore FILE")
    now = succession.healthy(goes, left, progress, in_force=True)
    whole = isinstance(now, Contents)
    damage = None if isinstance(now, Contents) else now
    number = left + 1
    if dry_run:
        return Summary(left, source, number, before.manifest.records,
                       succession.loss(goes, comes, progress) if whole else None, damage)
    policy_number = succession.next_policy(now if isinstance(now, Contents) else None, before)
    with succession.new_generation(root, number) as target:
        _fill(comes, target, progress)
        succession.adopt(target, number, policy_number)
        check(target, before, progress)
        succession.prepare_hits(root, policy_number, before, goes if whole else None, comes)
        succession.put_in_force(root, left, number, whole)
    lost = succession.loss(goes, comes, progress) if whole else None
    succession.settle(root, left, number, policy_number, whole)
    return Summary(left, source, number, before.manifest.records, lost, damage)


def check(target: Path, told: Contents, progress: Progress) -> None:
    """StoreError where a copy is not what it was made from, but for its head and the number of its policy."""
    found = succession.healthy(target, directory.number_of(target.name), progress)
    if not isinstance(found, Contents):
        raise StoreError(f"the copy {target} is not sound: {found}; look for a failing disk")
    differing = [name for name in found.manifest.differences(told.manifest) if name not in ("head", "policy")]
    if differing:
        raise StoreError(f"the copy {target} has another {differing[0]} than what it was made from; look for a failing "
                         "disk")


def _before(root: Path, left: int) -> int:
    earlier = [number for number in directory.generations(root) if number < left]
    if not earlier:
        raise RollbackError(f"there is no generation before {directory.generation_name(left)} in {root}; every "
                            "compaction keeps the one before it")
    return earlier[-1]


def _fill(comes: Path, target: Path, progress: Progress) -> None:
    with directory.shared_files():
        descriptor = inside.made(target / "data.mdb")
    try:
        succession.copy(comes, descriptor, progress)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

