"""Files of a store, opened so that nobody can lead elsewhere whoever opens them.

The hook's user may write to the store, and commands run there as root: what stands under a name of the store may be a
link to any file of the machine, or a second name of it (link(2)), and be exchanged at any moment. So nothing here follows
a link, files are looked at once they are open, and what is to be a new file is made as one. The path of the store itself
is the administrator's, who may use links in it.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Directories of a store; every other directory is the store itself, or none of one.
DIRECTORIES = ("passed.", "pending.", "damaged.")
SEE = "see who made it, and remove it"
# Directories one in the other that are removed. A store has one below it; each costs an open file.
DEPTH = 32


@contextmanager
def folder(path: Path) -> Iterator[int]:
    """A descriptor of a store, or of a directory in it, whose names then cannot be led elsewhere. OSError."""
    nofollow = os.O_NOFOLLOW if path.name.startswith(DIRECTORIES) else 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | nofollow)
    except NotADirectoryError:
        if path.is_symlink():
            raise _linked(path) from None
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def opened(path: Path, flags: int) -> int:
    """A descriptor of a regular file of a store, which has the group of its directory and one name. OSError."""
    with folder(path.parent) as place:
        # A pipe of this name must not keep anybody waiting.
        with told_by(path):
            descriptor = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o660, dir_fd=place)
        try:
            _own(path, os.fstat(descriptor), _group(path.parent, os.fstat(place)))
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def read(path: Path, most: int = -1) -> bytes:
    """What a file of a store holds, most bytes of it at most. OSError."""
    with open(opened(path, os.O_RDONLY), "rb") as file:
        return file.read(most)


def made(path: Path) -> int:
    """A descriptor for reading and writing of a new file of a store, in place of what has the name. OSError."""
    with folder(path.parent) as place:
        with told_by(path), suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=place)
        with told_by(path):
            return os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660,
                           dir_fd=place)


def removed(path: Path) -> None:
    """Remove a directory of a store and what is in it. OSError.

    shutil.rmtree opens what was a directory a moment ago, through a link that took its place by then, or waits for a
    pipe that did.
    """
    with folder(path.parent) as place, told_by(path):
        _remove(path.name, place, DEPTH)


def _remove(name: str, place: int, depth: int) -> None:
    if not depth:
        raise OSError(errno.ENAMETOOLONG, f"is nested too deep to be a directory of a store; {SEE}")
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    try:
        for entry in os.listdir(descriptor):
            try:
                os.unlink(entry, dir_fd=descriptor)
            except IsADirectoryError:
                _remove(entry, descriptor, depth - 1)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=place)


@contextmanager
def told_by(path: Path) -> Iterator[None]:
    """What goes wrong with a name in a directory that is open is told with the whole path."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _linked(path) from None
        error.filename, error.filename2 = os.fspath(path), None
        raise


def _group(folder: Path, status: os.stat_result) -> int:
    """The group that a file in this directory has to have. Members of the store's group make directories, too, with any
    group that they are in."""
    if status.st_uid != 0 and folder.name.startswith(DIRECTORIES):
        return folder.parent.stat().st_gid
    return status.st_gid


def _own(path: Path, status: os.stat_result, group: int) -> None:
    """The group tells what the number of names does not: a name may go between opening and looking, but nobody can give
    the store's group to a file that is not his."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"is no regular file; {SEE}", os.fspath(path))
    if status.st_nlink > 1:
        raise OSError(errno.EMLINK, f"has another name beside this one; {SEE}", os.fspath(path))
    if os.geteuid() == 0 and status.st_gid != group:
        raise PermissionError(errno.EACCES, f"has another group than the store; {SEE}, or run: chgrp "
                              f"{group} {path}", os.fspath(path))


def _linked(path: Path) -> OSError:
    return OSError(errno.ELOOP, f"is a symbolic link; {SEE}", os.fspath(path))
