"""The program in its place, and what was there before.

    in its place        kept already      put                                  take away
    nothing             nothing           written                              nothing to do
    nothing             something         written                              the kept one goes back
    fastgrey's          whatever          replaced where it differs            removed; a kept one goes back
    another's           nothing           kept, then replaced                  refused
    another's           the same file     replaced: a kill came between        no longer kept
    another's           another           refused: neither may be lost         refused

A symbolic link is another's, whatever it points to, and never written through. The order of the steps leaves the old
program or the new one in place, whole, wherever they are cut off.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..directory import flush_directory
from ..errors import InstallationError
from .job import Job

MODE = 0o755
ELF = b"\x7fELF"
# Of every version: the variable it reads, and LMDB's name for itself.
SIGNS = (b"FASTGREY_STORE", b"LMDB 0.")
LARGEST = 64 << 20


class Change(NamedTuple):
    """What was done, or would be: 'installed', 'replaced', 'unchanged', 'removed', 'restored', 'nothing'.

    kept: where the program of others is now that was in its place, None where there was none.
    """

    action: str
    kept: Path | None = None


def program(source: Path) -> bytes:
    """The executable to install. Raises InstallationError where it is missing or none of ours."""
    try:
        content = _read(source)
    except OSError as error:
        raise InstallationError(f"cannot read {source}: {error.strerror}; install fastgrey again") from None
    if not _signed(content):
        raise InstallationError(f"{source} is not fastgrey's executable; install fastgrey again")
    return content


def is_ours(path: Path) -> bool:
    """Whether path is an executable of fastgrey, of any version.

    It is looked into and not asked: this is for root, and who knows what runs there.
    """
    return stat.S_ISREG(path.lstat().st_mode) and _signed(_read(path))


def put(job: Job, content: bytes, dry_run: bool) -> Change:
    """Put the program in its place, root's and mode 755. Raises InstallationError; then what was there still is."""
    with _changing(job, dry_run, "install"):
        foreign = _foreign(job.target)
        if foreign and os.path.lexists(job.kept) and not _same(job.target, job.kept):
            raise InstallationError(f"{job.target} is not fastgrey's, and {job.kept} holds what was there before; "
                                    "move one of them away, then run this again")
        if not foreign and _as_wanted(job.target, content):
            return Change("unchanged", _if_there(job.kept))
        there = os.path.lexists(job.target)
        if not dry_run:
            try:
                _write(job.new, content)
                if foreign:
                    _keep(job)
                os.replace(job.new, job.target)
            finally:
                with suppress(OSError):
                    job.new.unlink(missing_ok=True)
            flush_directory(job.folder)
        return Change("replaced" if there else "installed", job.kept if foreign else _if_there(job.kept))


def take_away(job: Job, dry_run: bool) -> Change:
    """Remove the program and put back what was kept. Raises InstallationError where another's is in its place."""
    with _changing(job, dry_run, "uninstall"):
        if not dry_run:
            job.new.unlink(missing_ok=True)
        foreign = _foreign(job.target)
        if foreign and _same(job.target, job.kept):
            if not dry_run:
                job.kept.unlink()
                flush_directory(job.folder)
            return Change("restored")
        if foreign:
            raise InstallationError(f"{job.target} is not fastgrey's, so it stays")
        if os.path.lexists(job.kept):
            if not dry_run:
                os.replace(job.kept, job.target)
                flush_directory(job.folder)
            return Change("restored")
        if not os.path.lexists(job.target):
            return Change("nothing")
        if not dry_run:
            job.target.unlink()
            flush_directory(job.folder)
        return Change("removed")


@contextmanager
def _changing(job: Job, dry_run: bool, verb: str) -> Iterator[None]:
    """Alone in the directory; what the system refuses becomes one line."""
    if not job.folder.is_dir():
        raise InstallationError(f"there is no directory {job.folder}; name qmail's home with --qmail, or the directory "
                                "with --to")
    try:
        descriptor = os.open(job.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not dry_run:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)
    except BlockingIOError:
        raise InstallationError(f"another install-hook is at work in {job.folder}; wait for it") from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename and str(error.filename) != str(job.target) else ""
        raise InstallationError(f"cannot {verb} {job.target}: {where}{error.strerror}; nothing is lost: see to that, "
                                "then run this again") from None


def _foreign(path: Path) -> bool:
    """Whether something is there that is not ours."""
    if not os.path.lexists(path):
        return False
    if path.is_dir() and not path.is_symlink():
        raise InstallationError(f"{path} is a directory; move it away, then run this again")
    return not is_ours(path)


def _as_wanted(path: Path, content: bytes) -> bool:
    if not os.path.lexists(path):
        return False
    status = path.lstat()
    return (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, MODE) and _read(path) == content


def _write(path: Path, content: bytes) -> None:
    # Left over of an install that was killed.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, MODE)
        os.fsync(descriptor)


def _keep(job: Job) -> None:
    """A second name for what is in its place, so that this name is never without a program."""
    if not _same(job.target, job.kept):
        # Fails where that name is taken meanwhile: what was kept is never written over.
        os.link(job.target, job.kept, follow_symlinks=False)
    flush_directory(job.folder)


def _same(one: Path, other: Path) -> bool:
    return os.path.lexists(one) and os.path.lexists(other) and os.path.samestat(one.lstat(), other.lstat())


def _if_there(path: Path) -> Path | None:
    return path if os.path.lexists(path) else None


def _read(path: Path) -> bytes:
    # Opening a pipe would wait for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        return b""
    with path.open("rb") as file:
        return file.read(LARGEST)


def _signed(content: bytes) -> bool:
    return content.startswith(ELF) and all(sign in content for sign in SIGNS)
