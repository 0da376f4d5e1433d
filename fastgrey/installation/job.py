"""What is to be installed, where and for whom, found out before anything is written."""

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from .. import directory
from ..errors import InstallationError, SettingsError
from ..health.account import Account, account
from ..hooks import Hook

QMAIL = "/var/qmail"
USER = "qmaild"
GROUP = "fastgrey"
KEPT = ".before-fastgrey"


class Job(NamedTuple):
    """A hook, the home of qmail, the directory for the program, who runs it, and the store.

    account: the hook's user with the store's group alone, as tcpserver -g has it; None while there is no such group.
    """

    hook: Hook
    qmail: Path
    folder: Path
    user: str
    group: str
    account: Account | None
    store: str

    @property
    def target(self) -> Path:
        """The program in its place."""
        return self.folder / self.hook.installed

    @property
    def kept(self) -> Path:
        """What was in its place before."""
        return self.folder / f"{self.hook.installed}{KEPT}"

    @property
    def new(self) -> Path:
        """The program while it is written."""
        return self.folder / f".{self.hook.installed}.fastgrey-new"

    def again(self) -> "Job":
        """The same, after the group was made."""
        return self._replace(account=account(f"{self.user}:{self.group}"))

    def command(self, *options: str) -> list[str]:
        """The words that call install-hook for this very job."""
        said = ["fastgrey", "install-hook", self.hook.name, *options]
        for option, value, usual in (
            ("--qmail", str(self.qmail), QMAIL),
            ("--to", str(self.folder), str(usual_folder(self.hook, self.qmail))),
            ("--user", self.user, USER),
            ("--group", self.group, GROUP),
            ("--store", self.store, directory.DEFAULT_STORE),
        ):
            said += [option, value] if value != usual else []
        return said


def plan(hook: Hook, qmail: str, to: str | None, user: str, group: str, store: str) -> Job:
    """The job for these wishes; SettingsError for a user that is not there."""
    home = Path(os.path.abspath(qmail))
    folder = Path(os.path.abspath(to)) if to is not None else usual_folder(hook, home)
    known_user(user)
    there = group.isdecimal() or has_group(group)
    return Job(hook, home, folder, user, group, account(f"{user}:{group}") if there else None, os.path.abspath(store))


def usual_folder(hook: Hook, qmail: Path) -> Path:
    """Where this qmail has programs of that kind."""
    plugins = qmail / "plugins"
    return plugins if hook.name == "spp" and plugins.is_dir() else qmail / "bin"


def known_user(name: str) -> None:
    """SettingsError where there is no such user: who runs qmail-smtpd is not ours to make."""
    if name.isdecimal():
        return
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(f"--user {name}: there is no such user; name the one that runs qmail-smtpd (after "
                            "tcpserver -u)") from None


def has_group(name: str) -> bool:
    """Whether there is a group of that name."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def make_group(name: str) -> None:
    """Make a group, as a system's own. Raises InstallationError."""
    program = shutil.which("groupadd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise InstallationError(f"there is no groupadd here; make the group {name} by hand, then run this again")
    done = subprocess.run([program, "--system", "--", name], capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise InstallationError(f"cannot make the group {name}: {said}; make it by hand, then run this again")
