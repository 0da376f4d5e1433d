"""The directory of links by which a command opens a store: where there is no room for it, and where it is left over."""

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from machine import needs_root

from conftest import FASTGREY
from fastgrey import views

pytestmark = needs_root
HOURS_AGO = time.time() - 2 * views.OLD


class Rooms:
    """A mount namespace of its own, in which commands run; how what places there may be is mounted. 'as it is': for
    reading only."""

    def __init__(self, options):
        # What is in a place stays to be read: the command itself may be there.
        mounts = "".join(f" && mount --bind {place} {place} && mount -o remount,bind,ro {place}" if option == "as it is" else
                         f" && mount -t tmpfs -o {option} none {place}" for place, option in options.items())
        self.holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c",
                                        f"true{mounts} && echo made && exec sleep 600"], stdout=subprocess.PIPE)
        self.made = self.holder.stdout.readline() == b"made\n"

    def start(self, *words):
        return subprocess.Popen(["nsenter", f"--target={self.holder.pid}", "--mount", FASTGREY, *words],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words):
        process = self.start(*words)
        out, line = process.communicate(timeout=60)
        return process.returncode, out, line

    def views(self, place):
        return sorted(Path(f"/proc/{self.holder.pid}/root{place}").glob("fastgrey.*"))

    def end(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


@pytest.fixture
def rooms():
    """Makes one; skips where it cannot be made."""
    made = []

    def make(**options):
        made.append(Rooms({f"/{place.replace('_', '/')}": option for place, option in options.items()}))
        if not made[-1].made:
            pytest.skip("cannot mount in a namespace of its own")
        return made[-1]

    yield make
    for namespace in made:
        namespace.end()


@pytest.mark.parametrize("shm", ["ro", "nr_inodes=1", "nr_inodes=2", "nr_inodes=3"])
def test_no_room_in_memory(make_store, rooms, shm):
    """None for the directory, or for one of its links."""
    path = make_store()
    there = rooms(dev_shm=shm)
    code, _, line = there.run("stats", "--store", str(path))
    assert (code, line) == (0, "")
    assert there.views("/dev/shm") == []


def test_no_room_anywhere(make_store, rooms, tmp_path):
    path = make_store()
    if any(path.is_relative_to(place) for place in ("/tmp", "/var/tmp")):
        # Where the store is, it is written to.
        path = Path(f"/root/fastgrey-views.{os.getpid()}")
        subprocess.run(["cp", "-a", tmp_path / "store", path], check=True)
    there = rooms(dev_shm="ro", tmp="as it is", var_tmp="as it is")
    try:
        code, _, line = there.run("stats", "--store", str(path))
        assert code != 0
        assert "/dev/shm, /tmp or /var/tmp" in line
        assert "make room" in line
        assert line.count("\n") == 1
    finally:
        if path != tmp_path / "store":
            subprocess.run(["rm", "-r", path], check=True)


def test_what_a_killed_command_left_goes(make_store, rooms):
    """With the next compaction, once it is old; what others made there stays."""
    path = make_store()
    there = rooms(dev_shm="size=1M")
    shm = Path(f"/proc/{there.holder.pid}/root/dev/shm")
    for name in ("fastgrey.aaaaaa", "fastgrey.longer-name"):
        (shm / name).mkdir()
        (shm / name / "kept").touch()
        os.utime(shm / name, (HOURS_AGO, HOURS_AGO))
    others = there.views("/dev/shm")
    with (path / "passed.000001" / "lock.mdb").open("r+b") as lock:
        # Whoever opens the store waits for this, as for a stopped process.
        fcntl.lockf(lock, fcntl.LOCK_EX)
        process = there.start("stats", "--store", str(path))
        deadline = time.monotonic() + 60
        while not (left := [view for view in there.views("/dev/shm")
                            if view not in others and len(list(view.iterdir())) == 2]):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    assert there.run("compact", "--store", str(path))[0] == 0
    assert set(there.views("/dev/shm")) == {*others, *left}
    os.utime(left[0], (HOURS_AGO, HOURS_AGO))
    assert there.run("compact", "--store", str(path))[0] == 0
    assert there.views("/dev/shm") == others
