"""The user that the hook runs as, and what it may do."""

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import SettingsError
from . import isolation

Want = tuple[Path, int]


class Account(NamedTuple):
    """A user as a process has it; groups start with the process's own. alone: it has that group and no other."""

    name: str
    uid: int
    groups: tuple[int, ...]
    alone: bool = False


def account(text: str) -> Account:
    """The account for NAME (with all groups of that user) or NAME:GROUP (with that group alone).

    Names may be numbers, as in chown(1). Raises SettingsError where there is no such user or group.
    """
    name, colon, group = text.partition(":")
    number = _number(name)
    try:
        entry = pwd.getpwnam(name) if number is None else pwd.getpwuid(number)
    except KeyError:
        entry = None
    uid = entry.pw_uid if entry else number
    if colon and uid is not None:
        return Account(text, uid, (_group(group, text),), True)
    if entry is None:
        raise SettingsError(f"--user {text}: there is no user {name!r}; name the user that the hook runs as")
    return Account(text, entry.pw_uid, (entry.pw_gid, *sorted({*os.getgrouplist(entry.pw_name, entry.pw_gid)}
                                                            - {entry.pw_gid})))


def _group(name: str, text: str) -> int:
    number = _number(name)
    try:
        return number if number is not None else grp.getgrnam(name).gr_gid
    except KeyError:
        raise SettingsError(f"--user {text}: there is no group {name!r}; make it with: groupadd {name}") from None


def _number(name: str) -> int | None:
    """The number that name is; None where it is none that a user or group may have."""
    return int(name) if re.fullmatch("[0-9]{1,10}", name) and int(name) < (1 << 32) - 1 else None


def group_name(number: int) -> str:
    """The name of a group, or its number where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def first_refused(user: Account, wants: list[Want]) -> Want | None:
    """The first path that user may not use as wanted (os.R_OK | os.W_OK | os.X_OK).

    For root the kernel is asked, as that user; for anybody else the modes have to do.
    """
    if os.geteuid() != 0:
        return next((want for want in wants if not _by_mode(user, *want)), None)
    return next((wants[number] for number in isolation.results(lambda: _ask(user, wants))), None)


def _ask(user: Account, wants: list[Want]) -> Iterator[int]:
    os.setgroups(user.groups)
    os.setgid(user.groups[0])
    os.setuid(user.uid)
    yield from (number for number, (path, want) in enumerate(wants) if not os.access(path, want))


def _by_mode(user: Account, path: Path, want: int) -> bool:
    status = path.stat()
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid in user.groups else 0
    return user.uid == 0 or stat.S_IMODE(status.st_mode) >> shift & want == want
