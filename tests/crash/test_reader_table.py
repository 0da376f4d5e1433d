"""The table of readers exhausted on purpose: by the living, by the dead, by both, and in a lock file made small."""

import contextlib
import re
import struct
import subprocess
import sys

import pytest

import aging
import fastgrey
import readers
from conftest import HOOK

SLOTS = 8192

# Holds reader slots by transactions of one process, which is what LMDB counts; 0 for all that there are.
HELD = """
import lmdb, sys
environment = lmdb.open(sys.argv[1], max_dbs=16, max_readers=int(sys.argv[2]), readonly=True)
held = []
try:
    while len(held) < (int(sys.argv[3]) or 1 << 20):
        held.append(environment.begin())
except lmdb.ReadersFullError:
    pass
print(len(held), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def slots_held(environment, number=0, slots=SLOTS):
    """A process that holds so many slots of an LMDB environment; gives it and how many it got."""
    with subprocess.Popen([sys.executable, "-c", HELD, environment, str(slots), str(number)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        try:
            yield holder, int(holder.stdout.readline())
        finally:
            holder.kill()


@pytest.fixture(params=["accept", "defer"])
def on_error(request):
    """What hooks do when they cannot decide."""
    return request.param


@pytest.fixture
def store(make_store, path, on_error, run_hook):
    """A store with a known sender and a stranger."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", f"on_error={on_error}")
    for words in (["defer", "new"], ["accept", "retry"], ["accept", "known-domain"]):
        assert run_hook(sender="a@known.example").words == words
    return path


def assert_full(done, on_error):
    """The hook's answer where the table has no slot left."""
    assert done.words == [on_error, "error"]
    assert "too many processes read the store" in done.line
    assert "fuser -v STORE/*/lock.mdb; ask: fastgrey doctor" in done.line


def test_living_readers_of_passed(store, on_error, run_hook, run_fastgrey):
    """Every hook answers by on_error, in a line that says why; when they are gone, all is as before."""
    with slots_held(store / "passed.000001") as (_, held):
        assert held == SLOTS
        for sender in ("a@known.example", "a@stranger.example"):
            done = run_hook(sender=sender)
            assert_full(done, on_error)
        doctor = run_fastgrey("doctor")
        assert doctor.returncode == 2
        assert re.search(r"^wrong .*too many processes read the store.*\(passed\).*fuser -v STORE/\*/lock.mdb$",
                         doctor.stdout, re.MULTILINE)
    assert run_hook(sender="a@known.example").words == ["accept", "known-domain"]
    assert run_hook(sender="a@stranger.example").words == ["defer", "new"]
    assert run_hook(sender="a@stranger.example").words == ["accept", "retry"]
    assert run_fastgrey("verify").returncode == 0


def test_living_readers_of_pending(store, on_error, run_hook, pending_path):
    """Strangers are answered by on_error; known senders notice nothing."""
    with slots_held(pending_path) as (_, held):
        assert held == SLOTS
        assert run_hook(sender="a@known.example").words == ["accept", "known-domain"]
        assert_full(run_hook(sender="a@stranger.example"), on_error)
    assert run_hook(sender="a@stranger.example").words == ["defer", "new"]


@pytest.mark.parametrize("living", [0, 100])
def test_the_dead_make_room(store, run_hook, pending_path, living):
    """While somebody has the store open, what the killed left stays until the table is full; who finds it full clears
    it and goes on, the living beside it or not."""
    for environment in (store / "passed.000001", pending_path):
        with fastgrey.open(store) as opened, slots_held(environment, living or 1) as (_, alive):
            opened.check(client="192.0.2.1", sender="a@other.example", recipient="b@example.net", dry_run=True)
            with slots_held(environment) as (dying, dead):
                pass
            dying.wait(60)
            assert len(readers.stale(environment)) == dead > SLOTS - alive - 3
            assert run_hook(sender="a@known.example").words == ["accept", "known-domain"]
            sender = f"a@{environment.name[:7]}.example"
            for words in (["defer", "new"], ["accept", "retry"], ["accept", "known-domain"]):
                assert run_hook(sender=sender).words == words
            assert readers.stale(environment) == []
            assert len(readers.slots(environment)) >= alive


def test_a_lock_file_made_by_another_program(store, on_error, run_hook):
    """Who makes the lock file decides how many may read. With four, the fifth is answered by on_error; what the killed
    left is cleared; and once all are gone the table has its size again."""
    generation = store / "passed.000001"
    (generation / "lock.mdb").unlink()
    with slots_held(generation, 3, slots=4) as (_, held):
        assert held == 3
        assert run_hook(sender="a@known.example").words == ["accept", "known-domain"]
        with slots_held(generation, slots=4) as (last, more):
            assert more == 1
            assert_full(run_hook(sender="a@known.example"), on_error)
        last.wait(60)
        assert len(readers.stale(generation)) == 1
        assert run_hook(sender="a@known.example").words == ["accept", "known-domain"]
        assert readers.stale(generation) == []
    assert run_hook(sender="a@known.example").words == ["accept", "known-domain"]
    with fastgrey.open(store) as opened:
        assert fastgrey._core.reader_table(opened, False)["slots"] >= SLOTS


def test_a_dead_reader_costs_room_only_until_the_map_is_full(make_store, path, pending_path, run_hook):
    """Its snapshot pins every page freed since. The stranger that finds the map full clears it: nothing is given up."""
    make_store("pending_size=4M", "pool_hops=0")
    run_hook()
    with fastgrey.open(path) as store:
        store.check(client="192.0.2.1", sender="a@open.example", recipient="b@example.net")
        with slots_held(pending_path, 1) as (holder, _):
            pass
        holder.wait(60)
        assert len(readers.stale(pending_path)) == 1
        for number in range(3000):
            verdict = store.check(client="192.0.2.1", sender=f"a@h{number}.example", recipient="b@example.net")
            assert (verdict.reason, verdict.cause) == ("new", None)
        events = store.counters()["events"]
        assert (events["strangers"], events["not recorded"], events["partitions given up"]) == (3002, 0, 0)
    assert readers.stale(pending_path) == []


def test_many_hooks_and_few_slots(make_store, path, run_hook, tmp_path):
    """A table of four and many hooks at once: each passes, or says that the table was full."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0")
    for _ in range(2):
        run_hook(sender="a@known.example")
    generation = path / "passed.000001"
    (generation / "lock.mdb").unlink()
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}
    with slots_held(generation, 3, slots=4):
        hooks = [subprocess.Popen([HOOK, "a@known.example", "b@example.net"], env=environment, stderr=subprocess.PIPE)
                 for _ in range(200)]
        lines = [hook.communicate(timeout=60)[1] for hook in hooks]
    assert {hook.returncode for hook in hooks} == {0}
    passed = [line for line in lines if b"accept known-domain" in line]
    assert passed
    assert all(b"accept error" in line and b"too many processes" in line for line in lines if line not in passed)


# Where the lock file has the number of the last transaction (lock format 1), before the number of slots in use.
LAST_TRANSACTION_AT = 48


def test_a_table_whose_maker_was_killed(store, on_error, run_hook, pending_path):
    """Who makes the table and is killed before its last step leaves it to whoever waited for it, without the number of
    the last transaction. Nobody decides or writes by it; when all have let go of it, it is made anew."""
    assert run_hook(sender="a@waiting.example").words == ["defer", "new"]
    for environment, sender in ((store / "passed.000001", "a@known.example"), (pending_path, "a@waiting.example")):
        before = {place: aging.records(place) for place in (store / "passed.000001", pending_path)}
        # Somebody shares it all the time.
        with slots_held(environment, 1):
            with open(environment / "lock.mdb", "r+b") as file:
                file.seek(LAST_TRANSACTION_AT)
                (number,) = struct.unpack("=Q", file.read(8))
                assert number > 1
                file.seek(LAST_TRANSACTION_AT)
                file.write(struct.pack("=Q", 0))
            done = run_hook(sender=sender)
            assert done.words == [on_error, "error"]
            assert "cannot open the store" in done.line
        assert {place: aging.records(place) for place in before} == before
        assert run_hook(sender="a@known.example").words == ["accept", "known-domain"]
    assert run_hook(sender="a@waiting.example").words == ["accept", "retry"]
