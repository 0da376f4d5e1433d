"""Other users, small disks: what a test needs of the machine, and mostly root for."""

import contextlib
import os
import shutil
import subprocess

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


PACKAGES = {"tcpserver": "ucspi-tcp-ipv6", "tcprules": "ucspi-tcp-ipv6", "multilog": "daemontools", "swaks": "swaks"}


def tool(name):
    """Where a program is that a test is nothing without; a test that wants it fails where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"no {name} here; Debian: apt-get install {PACKAGES[name]} (make test-packages does, as root)")
    return found
