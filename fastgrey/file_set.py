"""Several files changed together: all of them, or none."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .directory import flush_directory
from .errors import OutputError


class Change(NamedTuple):
    """A file before and after; None where there is no file."""

    path: Path
    before: bytes | None
    after: bytes | None


def carry_out(changes: Sequence[Change]) -> None:
    """Make the changes in this order. Mode and owner of a file stay. Raises OutputError; then nothing is changed.

    All that needs room is written beside, and flushed, before the first name changes, the way back too. What ends this
    process or the machine between two names leaves each file whole, the old one or the new one.
    """
    # By path: new content, and a copy of the old one.
    new: dict[Path, Path] = {}
    old: dict[Path, Path] = {}
    done: list[Change] = []
    try:
        for change in changes:
            if change.after is not None:
                new[change.path] = _write_beside(change.path, change.after)
            if change.before is not None:
                old[change.path] = _write_beside(change.path, change.before)
        for change in changes:
            done.append(change)
            if change.after is None:
                os.unlink(change.path)
            else:
                os.replace(new[change.path], change.path)
        for folder in dict.fromkeys(change.path.parent for change in changes):
            flush_directory(folder)
    except BaseException as error:
        for change in reversed(done):
            if change.before is not None:
                os.replace(old[change.path], change.path)
            else:
                change.path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {error.filename or changes[0].path.parent}: {error.strerror}; nothing was "
                              "changed") from None
        raise
    finally:
        for copy in (*new.values(), *old.values()):
            copy.unlink(missing_ok=True)


def _write_beside(path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            like = path.lstat() if os.path.lexists(path) else None
            # By the descriptor: whoever owns the directory may have put a link to any file under that name by now.
            if like:
                # Only root may give a file away; anybody else keeps what he may.
                with suppress(PermissionError):
                    os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, like.st_mode & 0o777 if like else 0o644)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            error.filename = path
        raise
    return Path(name)
