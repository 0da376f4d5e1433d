"""Owner, group and modes: can the hook's user work with the store?"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .. import directory
from . import layout
from .account import Account, Want, first_refused, group_name
from .finding import Finding, Place, doubt, good, run, wrong

ALL = os.R_OK | os.W_OK | os.X_OK
BOTH = os.R_OK | os.W_OK


def mode(place: Place) -> Iterator[Finding]:
    """The directory itself."""
    found = stat.S_IMODE(layout.root_status(place).st_mode)
    what, remedy = f"mode {found:o} of {place.root} instead of 2770", run("chmod", "2770", str(place.root))
    if not found & stat.S_ISGID or found & 0o070 != 0o070:
        yield wrong(what, remedy)
    elif found & 0o007:
        yield doubt(f"{what}: who can read the store can tell who wrote to whom", remedy)
    else:
        yield good(f"mode {found:o} of {place.root}")


def access(place: Place) -> Iterator[Finding]:
    """For the hook's user where it is named, else by group and mode alone."""
    if place.user is None:
        yield from _by_group(place)
        return
    refused = first_refused(place.user, [*ways_to(place.root), *_used(place)])
    if refused is not None:
        path, want = refused
        yield wrong(f"{place.user.name} may not {_verbs(want)} {path}", _remedy(place, place.user, path, want))
    else:
        yield good(f"{place.user.name} may use the store{_caveat(place, place.user)}")


def ways_to(path: Path) -> list[Want]:
    """The directories above path, as named and as they really are, from the top."""
    parents = [*reversed(Path(os.path.abspath(path)).parents), *reversed(Path(os.path.realpath(path)).parents)]
    return [(parent, os.X_OK) for parent in dict.fromkeys(parents)]


def way_open(user: Account, path: Path, want: int) -> str:
    """The remedy for a path outside the store."""
    status = path.stat()
    who = "u" if status.st_uid == user.uid else "g" if status.st_gid in user.groups else "o"
    return run("chmod", f"{who}+{_letters(want)}", str(path))


def _used(place: Place) -> list[Want]:
    """What the hook works with, as far as it is there."""
    places = [place.root / directory.generation_name(layout.current(place)), layout.pending_path(place)]
    wants = [(place.root, ALL), (place.root / "stats", BOTH)]
    for path in places:
        wants += [(path, ALL), (path / "data.mdb", BOTH), (path / "lock.mdb", BOTH)]
    return [want for want in wants if want[0].exists()]


def _by_group(place: Place) -> Iterator[Finding]:
    group = layout.root_status(place).st_gid
    for path, want in _used(place):
        status = path.stat()
        if status.st_gid != group:
            yield wrong(f"group {group_name(status.st_gid)} of {path} instead of {group_name(group)}",
                        run("chgrp", "-R", group_name(group), str(place.root)))
            return
        if stat.S_IMODE(status.st_mode) >> 3 & want != want and path != place.root:
            yield wrong(f"the group may not {_verbs(want)} {path}", run("chmod", f"g+{_letters(want)}", str(path)))
            return
    yield good(f"all is shared with the group {group_name(group)}; --user tells whether the hook's user is in it")


def _remedy(place: Place, user: Account, path: Path, want: int) -> str:
    if path != place.root and place.root not in path.parents:
        return way_open(user, path, want)
    group = layout.root_status(place).st_gid
    if group not in user.groups:
        return _join(place, user, group)
    if path.stat().st_gid != group:
        return run("chgrp", "-R", group_name(group), str(place.root))
    return run("chmod", f"{'u' if path.stat().st_uid == user.uid else 'g'}+{_letters(want)}", str(path))


def _join(place: Place, user: Account, group: int) -> str:
    """Let user and store have a group in common."""
    if user.alone:
        return run("chgrp", "-R", group_name(user.groups[0]), str(place.root))
    name = group_name(group)
    if group != 0 and name != str(group):
        return run("usermod", "-aG", name, user.name)
    made, joined, given = (run("groupadd", "-f", "fastgrey"), run("usermod", "-aG", "fastgrey", user.name),
                           run("chgrp", "-R", "fastgrey", str(place.root)))
    return " && ".join([made, *(remedy.removeprefix("run: ") for remedy in (joined, given))])


def _caveat(place: Place, user: Account) -> str:
    group = layout.root_status(place).st_gid
    if user.alone or group not in user.groups[1:]:
        return ""
    return (f" by its further group {group_name(group)}, which tcpserver -g and setuidgid take away: then look with "
            f"--user {user.name}:GROUP")


def _letters(want: int) -> str:
    return "".join(letter for letter, bit in (("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK)) if want & bit)


def _verbs(want: int) -> str:
    return "enter" if want == os.X_OK else "read and write" if want == BOTH else "enter, read and write"
