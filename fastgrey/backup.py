"""Backups: a store as one file, and a store made of such a file.

A backup begins with a packed data file of LMDB, so LMDB's own tools read it as it is; behind it come the counters, the
hits of rules, and a manifest with checksums of all of it. docs/format.md has the layout.
"""

import fcntl
import os
import shutil
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from . import _core, directory, inside, manifest, policy, settings, soundness, succession
from .errors import BackupError, FastgreyError, ManifestError, StoreError
from .health import layout
from .health.finding import Place, Trouble
from .manifest import Manifest, Part
from .soundness import Contents, Progress
from .succession import Loss

DATA, STATS, HITS = "data.mdb", "stats", "hits"
END = struct.Struct("=8sQ")
MAGIC = b"fgbackup"
PIECE = 1 << 20
# The generation in force may be replaced, and the one before removed, while it is copied.
TRIES = 3
FOREIGN = "name a file that fastgrey backup has written"


@dataclass(frozen=True)
class Saved:
    """A backup that was written or looked at. generation: number of the one that it was made of. written: Unix seconds.
    records: known records by kind. size: bytes of the file."""

    generation: int
    written: int
    records: dict[str, int]
    windows: int
    rules: bool
    size: int

    def as_dict(self) -> dict[str, object]:
        """The same as a dictionary, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Restored:
    """What a restore did, or would do.

    generation: the number that the restored one has. left: the one that was in force, None where there was no store.
    loss, damage: as in a rollback.
    """

    backup: Saved
    generation: int
    left: int | None
    loss: Loss | None
    damage: str | None

    def as_dict(self) -> dict[str, object]:
        """The same as a dictionary, for JSON."""
        return asdict(self)


def backup(path: str, target: Path, counters: bool = True, progress: Progress = soundness.nothing) -> Saved:
    """Write the store at path to the file target, in place of what is there, verified and flushed.

    counters: the counters and the hits of rules too. This process must not have the store open. Raises BackupError,
    StoreError; target then is what it was.
    """
    if target.exists() and not target.is_file():
        raise BackupError(f"{target} is no regular file; name another, or write to standard output with: -")
    new = target.with_name(target.name + ".new")
    try:
        with _exclusive(new) as file:
            saved = save(path, new, file, counters, progress)
            os.replace(new, target)
            directory.flush_directory(target.parent)
    except OSError as error:
        raise BackupError(f"cannot write the backup {target}: {error.filename or new}: {error.strerror}") from None
    return saved


def save(path: str, name: Path, file: BinaryIO, counters: bool, progress: Progress) -> Saved:
    """Write the store at path to the empty file, which can be opened by its name too, and flush it. As backup()."""
    root = Path(path)
    for attempt in range(TRIES):
        number = directory.current_number(root)
        try:
            succession.copy(root / directory.generation_name(number), file.fileno(), progress)
            break
        except StoreError:
            if directory.current_number(root) == number or attempt == TRIES - 1:
                raise
            file.truncate(0)
            file.seek(0)
    found = _sound(name, progress)
    if not isinstance(found, Contents):
        raise BackupError(f"{root / directory.generation_name(number)} is damaged: {found}; ask: fastgrey verify")
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    files = {DATA: Part(size, _sum(file, size, progress))}
    if counters:
        for part, content in ((STATS, _content(root / STATS)), (HITS, _content(_hits(root, found)))):
            files[part] = Part(len(content), manifest.checksum(content))
            file.write(content)
    told = Manifest(found.manifest.transaction, int(time.time()), found.manifest.parts, files)
    text = told.text().encode("ascii")
    file.write(text + END.pack(MAGIC, len(text)))
    file.flush()
    os.fsync(file.fileno())
    return _saved(told, file.tell())


def restore(path: str, source: BinaryIO, name: str, group: int | None = None, dry_run: bool = False,
            progress: Progress = soundness.nothing) -> Restored:
    """Put the backup in a seekable file, called name, in force as the next generation of the store at path, or as the
    first of a new one, shared with the group id where one is given. dry_run: only look at it.

    This process must not have the store open. Raises BackupError, StoreError; the store then is what it was.
    """
    root = Path(path)
    try:
        told = _manifest(source, name)
        if os.path.lexists(root / "current"):
            if group is not None:
                raise BackupError(f"--group: there is a store at {root} already; change its group with: chgrp -R "
                                  f"GROUP {root}")
            if dry_run:
                return _foretell(root, source, name, told, progress)
            with succession.alone(root, BackupError):
                return _into(root, source, name, told, progress)
        _refuse_remains(root)
        if dry_run:
            _look(source, name, told, progress)
        else:
            _anew(root, source, name, told, group, progress)
        return Restored(_saved(told, _size(source)), 1, None, None, None)
    except OSError as error:
        after = f"; {succession.told(root, 0)}" if os.path.lexists(root / "current") else ""
        raise BackupError(f"cannot restore {name} to {root}: {error.filename or root}: {error.strerror}{after}"
                          ) from None


@contextmanager
def spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    """What comes from a stream, as a file that can be read from any place."""
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file, PIECE)
        yield file


def _into(root: Path, source: BinaryIO, name: str, told: Manifest, progress: Progress) -> Restored:
    left = directory.current_number(root)
    goes = root / directory.generation_name(left)
    now = succession.healthy(goes, left, progress, in_force=True)
    number = left + 1
    with succession.new_generation(root, number) as target:
        found = _fill(target, source, name, told, progress)
        policy_number = succession.next_policy(now if isinstance(now, Contents) else None, found)
        whole = isinstance(now, Contents)
        succession.adopt(target, number, policy_number)
        succession.prepare_hits(root, policy_number, found, goes if whole else None, target)
        succession.put_in_force(root, left, number, whole)
    lost = succession.loss(goes, target, progress) if whole else None
    succession.settle(root, left, number, policy_number, whole)
    return Restored(_saved(told, _size(source)), number, left, lost, None if isinstance(now, Contents) else now)


def _anew(root: Path, source: BinaryIO, name: str, told: Manifest, group: int | None, progress: Progress) -> None:
    def fill(generation: Path) -> bool:
        found = _fill(generation, source, name, told, progress)
        succession.adopt(generation, 1, found.facts.policy)
        if found.facts.policy:
            hits = _part(source, told, HITS).ljust(policy.HIT.size * found.facts.rules, b"\0")
            directory.write_flushed(_hits(root, found), hits)
        stats = _part(source, told, STATS)
        if stats:
            directory.write_flushed(root / STATS, stats)
        return bool(settings.by_name(found.facts.settings)["on_error"])

    directory.make(root, group, fill)
    with directory.open_store(root) as store:
        _core.follow_settings(store)
    soundness.seal(root / directory.generation_name(1))


def _foretell(root: Path, source: BinaryIO, name: str, told: Manifest, progress: Progress) -> Restored:
    left = directory.current_number(root)
    goes = root / directory.generation_name(left)
    now = succession.healthy(goes, left, progress, in_force=True)
    with tempfile.TemporaryDirectory() as place:
        _fill(Path(place), source, name, told, progress)
        lost = succession.loss(goes, Path(place), progress) if isinstance(now, Contents) else None
    return Restored(_saved(told, _size(source)), left + 1, left, lost, None if isinstance(now, Contents) else now)


def _look(source: BinaryIO, name: str, told: Manifest, progress: Progress) -> None:
    with tempfile.TemporaryDirectory() as place:
        _fill(Path(place), source, name, told, progress)


def _fill(target: Path, source: BinaryIO, name: str, told: Manifest, progress: Progress) -> Contents:
    """Bring the table of a backup into the directory of a generation, flushed; BackupError where it is not what the
    manifest says."""
    size = told.files[DATA].number
    source.seek(0)
    with directory.shared_files(), open(inside.made(target / DATA), "wb") as file:
        digest = _core.Checksum()
        left = size
        while left and (piece := source.read(min(PIECE, left))):
            digest.update(piece)
            file.write(piece)
            left -= len(piece)
            progress("read", size - left, size)
        file.flush()
        os.fsync(file.fileno())
    if left or digest.hexdigest() != told.files[DATA].checksum:
        raise BackupError(f"{name} is damaged: its table is other than its manifest says; use another backup")
    found = _sound(target, progress, False)
    if not isinstance(found, Contents):
        raise BackupError(f"{name} is damaged: {found}; use another backup")
    if found.manifest.differences(told):
        raise BackupError(f"{name} is damaged: {found.manifest.differences(told)[0]} is other than its manifest says; "
                          "use another backup")
    return found


def _sound(place: Path, progress: Progress, file: bool = True) -> Contents | str:
    problems = soundness.structure(place, progress)
    if problems:
        return problems[0]
    try:
        found = soundness.contents(place, progress, file)
    except FastgreyError as error:
        return str(error)
    return found.problems[0] if found.problems else found


def _manifest(source: BinaryIO, name: str) -> Manifest:
    """The manifest at the end of a backup. Checks sizes, and the checksums of the small parts."""
    size = _size(source)
    source.seek(max(0, size - END.size))
    end = source.read()
    magic, length = END.unpack(end) if len(end) == END.size else (b"", 0)
    if magic != MAGIC:
        raise BackupError(f"{name} is no backup of fastgrey, or it was cut short; {FOREIGN}")
    if length > min(size - END.size, manifest.SIZE_MAX):
        raise BackupError(f"{name} is damaged at its end; use another backup")
    source.seek(size - END.size - length)
    try:
        told = manifest.parse(source.read(length), f"the manifest of {name}")
    except ManifestError as error:
        raise BackupError(f"{error}; use another backup") from None
    if DATA not in told.files or sum(part.number for part in told.files.values()) + length + END.size != size:
        raise BackupError(f"{name} has another size than its manifest says: it was cut or added to; use another backup")
    for part in (STATS, HITS):
        if part in told.files and manifest.checksum(_part(source, told, part)) != told.files[part].checksum:
            raise BackupError(f"{name} is damaged: {part} is other than its manifest says; use another backup")
    return told


def _part(source: BinaryIO, told: Manifest, name: str) -> bytes:
    """A small part of a backup; empty where it has none of this name."""
    place = 0
    for part, entry in told.files.items():
        if part == name:
            source.seek(place)
            return source.read(entry.number)
        place += entry.number
    return b""


def _size(source: BinaryIO) -> int:
    return source.seek(0, os.SEEK_END)


def _sum(file: BinaryIO, size: int, progress: Progress) -> str:
    digest = _core.Checksum()
    done = 0
    while piece := file.read(PIECE):
        digest.update(piece)
        done += len(piece)
        progress("checksum", done, size)
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        return inside.read(path)
    except FileNotFoundError:
        return b""


def _hits(root: Path, found: Contents) -> Path:
    return policy.hits_path(root, found.facts.policy)


def _saved(told: Manifest, size: int) -> Saved:
    return Saved(told.generation, told.written, told.records, told.parts["window"].number, "policy" in told.parts, size)


@contextmanager
def _exclusive(new: Path) -> Iterator[BinaryIO]:
    """The file that will be the backup, for this process alone, and gone where it does not become one. What a killed
    backup left is written over; what others made, or may have open, is no file for the secret of the store."""
    with suppress(FileNotFoundError):
        if _shared(new.lstat()):
            new.unlink()
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "r+b") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"another backup to {new.with_suffix('')} is running; wait for it") from None
        if not _names(new, descriptor):
            # Between the opening and the lock another one ended: what is open is its result.
            raise BackupError(f"another backup to {new.with_suffix('')} has just ended; run it again if it is wanted")
        if _shared(os.fstat(descriptor)):
            raise BackupError(f"{new} was made by somebody else just now; name a file in a directory that nobody else "
                              "may write to")
        try:
            # It holds the secret of the store: only for who made it, be the mask what it may.
            os.fchmod(descriptor, 0o600)
            file.truncate(0)
            yield file
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def _shared(status: os.stat_result) -> bool:
    """Whether a file may be read by others, now or by what they opened before."""
    return stat.S_ISREG(status.st_mode) and (
        status.st_uid != os.geteuid() or bool(status.st_mode & 0o077) or status.st_nlink > 1)


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _refuse_remains(root: Path) -> None:
    """A link that was lost is no reason to remove what it may have named."""
    if root.is_dir() and directory.generations(root):
        try:
            layout.current(Place(root))
        except Trouble as trouble:
            raise BackupError(f"{trouble.finding.what}; {trouble.finding.remedy}, or move {root} away") from None
