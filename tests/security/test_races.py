"""A member of the store's group who exchanges names of it, without a pause, while commands of root's run."""

import pytest
from effort import times, tried
from machine import needs_root
from planted import swapped

pytestmark = [needs_root, pytest.mark.torture]

# What LMDB opens by name; the directory around it; what Python makes anew and renames.
RACES = {
    "passed.000002/lock.mdb": ("link", ["pass", "198.51.100.7", "new@example.com", "b@example.net"]),
    "passed.000002/data.mdb": ("link", ["pass", "198.51.100.7", "new@example.com", "b@example.net"]),
    "passed.000002": ("folder", ["pass", "198.51.100.7", "new@example.com", "b@example.net"]),
    "PENDING": ("folder", ["forget", "192.0.2.9", "a@example.org", "b@example.net"]),
    "passed.000003": ("folder", ["compact", "--verify", "copy"]),
    "compaction.status.new": ("link", ["compact", "--if-needed"]),
    "passed.000001": ("folder", ["rollback", "--dry-run"]),
}


@pytest.mark.parametrize("name", RACES)
def test_names_that_change_meanwhile(shared_store, victim, run_fastgrey, name):
    kind, command = RACES[name]
    done = refused = 0
    with swapped(shared_store, name, kind, victim):
        for _ in range(times(2)):
            ended = run_fastgrey(*command)
            assert victim.unchanged(), (name, ended)
            assert "Traceback" not in ended.stderr, ended.stderr
            assert ended.returncode == 0 or ended.stderr.count("\n") == 1, ended
            done += ended.returncode == 0
            refused += ended.returncode != 0
    assert victim.unchanged()
    tried("names exchanged under a command of root's", commands=done + refused, refused=refused, written_outside=0)


def test_opening_again_and_again(shared_store, victim):
    """The same without the start of a command: each opening takes the names from a directory that changes."""
    from fastgrey._core import Store
    from fastgrey.errors import StoreError

    opened = refused = 0
    with swapped(shared_store, "passed.000002/lock.mdb", "link", victim):
        # On a busy machine the member may not come to anything for a while.
        while opened + refused < times(300) or not opened or not refused:
            try:
                with Store(str(shared_store)) as store:
                    store.check(client="198.51.100.7", sender=f"a@{opened}.example", recipient="b@example.net")
                opened += 1
            except StoreError:
                refused += 1
            assert victim.unchanged()
            assert opened + refused < 200_000
    tried("lock files exchanged while a table is opened", openings=opened + refused, refused=refused, written_outside=0)
