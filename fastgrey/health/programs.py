"""The programs: LMDB in both, and the hook as its user finds it."""

import os
import re
import shlex
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import _core
from ..hooks import BY_PROGRAM, HOOKS
from .account import first_refused
from .finding import Finding, Place, Trouble, doubt, good, run, wrong
from .sharing import way_open, ways_to

HOOK = "qmail-checkenv"
ANSWER = re.compile(r"qmail-checkenv (\S+), LMDB (\d+)\.(\d+)\.(\d+)")
REBUILD = "build with FASTGREY_LMDB_PREFIX set to a good LMDB: 0.9.24, 0.9.25 or 0.9.32 and later"
PT_INTERP = 3
PACKAGE = version("fastgrey")

Version = tuple[int, int, int]


def library(place: Place) -> Iterator[Finding]:
    """The LMDB that commands and the Python API use."""
    yield _judged("this program", _core.lmdb_version())


def hook(place: Place) -> Iterator[Finding]:
    """The executable that qmail-smtpd runs."""
    name = place.hook or find_hook()
    if name is None:
        yield doubt(f"{HOOK} is neither beside {sys.executable} nor on the path",
                    "install it and name it with --hook, or ignore this where only the Python API is used")
        return
    path = Path(os.path.abspath(name))
    mode = _installed(place, path)
    yield from _kind(path)
    # What is looked at is what is run: a link on the way may be another's, who lets it lead elsewhere meanwhile.
    real = Path(os.path.realpath(path))
    if safe := _not_writable(place, path, real, mode):
        yield safe
        # Whoever can write it would be run with the rights of who asks.
        return
    yield from _answer(place, path, real)


def find_hook() -> str | None:
    """qmail-checkenv beside this Python's programs, else on the path."""
    beside = _beside()
    return beside if os.path.lexists(beside) else shutil.which(HOOK)


def lmdb_trouble(number: Version) -> str | None:
    """What is known to be wrong with this version of LMDB, as the build refuses it."""
    if number < (0, 9, 24):
        return "is older than 0.9.24, the oldest that fastgrey is tested with"
    if (0, 9, 26) <= number <= (0, 9, 31):
        return "destroys the locks that processes share when one of them closes (ITS#9278)"
    if number >= (0, 9, 70):
        return "has another file format than 0.9"
    return None


def _judged(name: str, number: Version) -> Finding:
    what = f"LMDB {'.'.join(map(str, number))} in {name}"
    trouble = lmdb_trouble(number)
    return wrong(f"{what} {trouble}", REBUILD) if trouble else good(what)


def _beside() -> str:
    return os.path.join(os.path.dirname(sys.executable), HOOK)


def _install(path: Path) -> str:
    beside = _beside()
    if path.name in BY_PROGRAM and path.name != HOOK:
        return run("fastgrey", "install-hook", BY_PROGRAM[path.name].name, "--to", str(path.parent))
    if path.name != HOOK:
        # Whoever mistyped --hook must not be told to write over another program.
        return f"name {HOOK} with --hook, or install it there where that is what {path} is for"
    if not os.path.exists(beside) or os.path.realpath(beside) == os.path.realpath(path):
        return "install fastgrey again"
    return run("install", "-m", "755", beside, str(path))


def _installed(place: Place, path: Path) -> int:
    """Its mode. Trouble where its user cannot execute it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise Trouble(wrong(f"there is no {path}", _install(path))) from None
    if not stat.S_ISREG(status.st_mode):
        raise Trouble(wrong(f"{path} is no regular file", "move it away and install the executable"))
    if not status.st_mode & 0o111:
        raise Trouble(wrong(f"{path} is not executable", run("chmod", "755", str(path))))
    if place.user is not None:
        refused = first_refused(place.user, [*ways_to(path), (path, os.X_OK)])
        if refused is not None:
            verb = "execute" if refused[0] == path else "enter"
            raise Trouble(wrong(f"{place.user.name} may not {verb} {refused[0]}", way_open(place.user, *refused)))
    return status.st_mode


def _kind(path: Path) -> Iterator[Finding]:
    try:
        linked = _interpreted(path)
    except PermissionError:
        yield doubt(f"{path} was not looked into: no right to read it", "run this as root")
        return
    if linked is not False:
        what = "is no executable in ELF, and costs another exec" if linked is None else "is linked dynamically"
        yield doubt(f"{path} {what}; every recipient pays for that", _install(path))


def _interpreted(path: Path) -> bool | None:
    """Whether an ELF executable wants a dynamic loader; None where it is none (elf(5))."""
    with path.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:4] != b"\x7fELF":
            return None
        order = "<" if head[5] == 1 else ">"
        wide = head[4] == 2
        (offset,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)
        size, number = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
        file.seek(offset)
        table = file.read(min(size * number, 1 << 20))
    starts = range(0, len(table) - 3, size) if size else ()
    return any(struct.unpack_from(f"{order}I", table, start)[0] == PT_INTERP for start in starts)


def _not_writable(place: Place, path: Path, real: Path, mode: int) -> Finding | None:
    """A doubt where somebody may exchange it who should not, or may have: then it is not run."""
    safe = f"run: chown root {shlex.quote(str(path))} && chmod 755 {shlex.quote(str(path))}"
    if mode & stat.S_IWOTH:
        return doubt(f"every user may write to {path}, so it was not run", safe)
    user = place.user
    if user is not None and user.uid != 0 and (
            path.stat().st_uid == user.uid or first_refused(user, [(path, os.W_OK)]) is None):
        return doubt(f"{user.name} may write to {path}, the hook that it runs, so it was not run", safe)
    if user is None and os.geteuid() == 0 and (other := _not_roots(path, real)) is not None:
        return doubt(f"{other} can be changed by others than root, so {path} was not run as root",
                     "name the hook's user with --user: it is then run as that")
    return None


def _not_roots(path: Path, real: Path) -> Path | None:
    """The program, or the directory on the way to it, that others than root may write to or own."""
    for place in [path, real, *path.parents, *real.parents]:
        status = place.stat()
        mode = status.st_mode
        shared = mode & stat.S_IWOTH or mode & stat.S_IWGRP and status.st_gid != 0
        # In a sticky directory nobody exchanges what is root's.
        if status.st_uid != 0 or shared and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
            return place
    return None


def _answer(place: Place, path: Path, real: Path) -> Iterator[Finding]:
    """What it says of itself, run as its user where that can be done."""
    as_user: dict[str, Any] = {}
    if place.user is not None and os.geteuid() == 0:
        as_user = {"user": place.user.uid, "group": place.user.groups[0], "extra_groups": place.user.groups}
    try:
        said = subprocess.run([path, "--version"], executable=real, capture_output=True, errors="replace", timeout=10,
                              check=True, env={}, stdin=subprocess.DEVNULL, cwd="/", **as_user).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield wrong(f"{path} does not run: {error}", _install(path))
        return
    match = ANSWER.match(said)
    if not match:
        yield wrong(f"{path} is no {HOOK}: asked for its version it said {said.strip()[:80]!r}", _install(path))
        return
    number: Version = (int(match[2]), int(match[3]), int(match[4]))
    yield _judged(str(path), number)
    if number != _core.lmdb_version():
        yield doubt(f"{path} and this program have different versions of LMDB", _install(path))
    if match[1] != PACKAGE:
        yield doubt(f"{path} is of version {match[1]}, this program of {PACKAGE}", _install(path))
    else:
        yield good(f"{path}: version {match[1]}")
    yield from _named(path)


def _named(path: Path) -> Iterator[Finding]:
    """Whether its name says which hook it is, as core/manners.pxi reads it."""
    name = path.name
    if re.sub("^(qmail|fastgrey)-", "", name) in HOOKS:
        return
    yield doubt(f"{path}: by the name {name} it does not know which hook it is, and every check ends as error",
                f"call it {' or '.join(BY_PROGRAM)}, or have --hook NAME said to it first")
