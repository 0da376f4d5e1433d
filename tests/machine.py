"""Other users, small disks: what a test needs of the machine, and mostly root for."""

import contextlib
import ctypes
import errno
import functools
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534


def as_nobody(*groups):
    """Options of subprocess that make the child an ordinary user in these groups."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": list(groups)}


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def open_the_way(tmp_path):
    """Let every user pass through the directories of the test."""
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(parent.stat().st_mode | 0o055)


@contextlib.contextmanager
def small_disk(place, size, *options):
    """A file system of so many bytes; skips where none can be mounted."""
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(place)],
                          capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(file):
    """Write until nothing more fits."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, b"x" * 4096)
    os.close(descriptor)


def lower(steps):
    """The priority (nice(2)) of a process of the test that gives way by so many steps to the others."""
    return min(19, os.getpriority(os.PRIO_PROCESS, 0) + steps)


PACKAGES = {"tcpserver": "ucspi-tcp-ipv6", "tcprules": "ucspi-tcp-ipv6", "multilog": "daemontools", "strace": "strace",
            "swaks": "swaks", "postconf": "postfix"}


def tool(name):
    """Where a program is that a test is nothing without; a test that wants it fails where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"no {name} here; Debian: apt-get install {PACKAGES[name]} (make test-packages does, as root)")
    return found


@functools.cache
def _traces(program):
    return subprocess.run([program, "-o", "/dev/null", "true"], capture_output=True).returncode == 0


@contextlib.contextmanager
def in_memory():
    """A directory where no disk can stall for seconds. Where memory has no such place, or a small one, as in
    containers, any other must do."""
    roomy = os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 256 << 20
    with tempfile.TemporaryDirectory(prefix="fastgrey-test-", dir="/dev/shm" if roomy else None) as place:
        yield Path(place)


@contextlib.contextmanager
def public_place():
    """A directory into which every user may look; pytest's own is closed whenever another pytest begins."""
    with tempfile.TemporaryDirectory(prefix="fastgrey-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


def strace():
    """Where strace(1) is; skips where no process may be traced, as in some containers."""
    program = tool("strace")
    if not _traces(program):
        pytest.skip("no process may be traced here (ptrace(2))")
    return program


# Numbers of fsync, fdatasync, msync, sync, syncfs and sync_file_range.
FLUSHES = {"x86_64": (74, 75, 26, 162, 306, 277), "aarch64": (82, 83, 227, 81, 267, 84)}.get(platform.machine())
needs_filters = pytest.mark.skipif(FLUSHES is None, reason="knows no system calls of this processor")


def refuse_to_flush():
    """Let every flush of this process and what it runs fail with EIO (seccomp(2)); for preexec_fn."""
    # Load the number of the call; where it is one of these, go to the answer behind the last one.
    steps = [(0x20, 0, 0, 0)]
    steps += [(0x15, len(FLUSHES) - place, 0, number) for place, number in enumerate(FLUSHES)]
    steps += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | errno.EIO)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *values in ((38, 1, 0, 0, 0), (22, 2, ctypes.addressof(program), 0, 0)):
        if libc.prctl(option, *map(ctypes.c_ulong, values)) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
