"""What a member of the store's group can put under a name of the store: he may do all in it, but is not root."""

import os
import shutil
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

from machine import NOBODY

from fastgrey import directory

# Has no name.
GROUP = 64231
# The header of a page of counters, and enough behind it to pass for one, for hits or for the first pages of a table.
CONTENT = b"fgstats\0\2\0\0\0" + b"nothing of the store's\n" * 600


class Victim:
    """A file of root's that nobody else may write to, alone in its folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        self.folder, self.file = folder, folder / "shadow"
        self.file.write_bytes(CONTENT)
        self.file.chmod(0o600)
        self.look()

    def _facts(self):
        status = self.file.stat()
        return self.file.read_bytes(), status.st_mode, status.st_uid, status.st_gid, sorted(os.listdir(self.folder))

    def look(self):
        """Take it as it is now for what it was."""
        self.before = self._facts()

    def unchanged(self):
        """Whether it is what it was."""
        return self._facts() == self.before


def place_of(store, name):
    """The path of a name in the store; PENDING stands for that of this boot."""
    return store / name.replace("PENDING", f"pending.{directory.boot_id()}")


def put(path, kind, victim):
    """Put it there, in place of what is: a link to the victim's file or its folder, a second name of the file, a pipe,
    or directories one in the other."""
    if os.path.lexists(path):
        (shutil.rmtree if path.is_dir() and not path.is_symlink() else os.unlink)(path)
    if kind == "link":
        os.symlink(victim.file, path)
    elif kind == "folder":
        os.symlink(victim.folder, path)
    elif kind == "name":
        os.link(victim.file, path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "deep":
        os.mkdir(path)
        os.chdir(path)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")


def member(work, *others):
    """The process of a child that does this as an ordinary user in the store's group, and in these others."""
    child = os.fork()
    if not child:
        # No program of its own: the member may have no way to that of the checkout.
        status = 1
        try:
            os.setgroups(others)
            os.setresgid(GROUP, GROUP, GROUP)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def plant(store, name, kind, victim):
    """put() as a member; the path."""
    path = place_of(store, name)
    child = member(lambda: put(path, kind, victim))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return path


@contextmanager
def swapped(store, name, kind, victim):
    """While this lasts, a member lets the name stand for what was there and for put() in turn, without a pause."""
    path = place_of(store, name)
    aside = path.with_name(f"{path.name}.aside")

    tests = os.getpid()

    def work():
        # It ends with the tests, however those do.
        while os.getppid() == tests:
            # Whoever removes or makes one of these under its hands is only another state.
            with suppress(OSError):
                os.rename(path, aside)
            with suppress(OSError):
                put(path, kind, victim)
            with suppress(OSError):
                os.rename(aside, path)

    child = member(work)
    try:
        yield
        # It was at work all the time.
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
