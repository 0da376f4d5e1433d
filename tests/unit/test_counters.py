"""The page of counters: totals that lose nothing, periods that are right to one interval, waits and their median."""

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgrey
import page
from conftest import HOOK
from fastgrey import _core, directory
from fastgrey import statistics as facts

REQUEST = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": "b@example.net"}
# Requests that end at once, whatever was decided before them.
SIMPLE = {
    "accept relay": REQUEST | {"relay": True},
    "accept error": REQUEST | {"client": "x"},
    "accept allowed": REQUEST | {"sender": ""},
}
START = 1_700_000_000


class Watch:
    """A store whose clock is ours, and the list of what happened to it."""

    def __init__(self, path, now=START):
        directory.make_counters(path, False)
        self.store = _core.Store(str(path), throw_away=True)
        self.now = now
        self.past = []

    def check(self, verdict):
        """Let one check end so, now."""
        with patch("time.time", lambda: self.now):
            found = self.store.check(**SIMPLE[verdict])
        assert f"{found.action} {found.reason}" == verdict
        self.past.append((self.now, verdict))

    def recent(self):
        """What was counted by period and verdict."""
        counters = self.store.counters()
        return {name: Counter(facts.recent(counters, name, self.now)) for name in page.PERIODS}

    def since(self, start):
        """What truly happened since then, by verdict."""
        return Counter(verdict for moment, verdict in self.past if moment >= start)

    def compare(self):
        """The totals are exact, the periods exact to one interval."""
        assert self.store.counters()["verdicts"] == self.since(0)
        for name, counted in self.recent().items():
            start = self.now - page.PERIODS[name]
            assert self.since(start + page.RINGS[name][2]) <= counted <= self.since(start), name

    def close(self):
        """Give the store back."""
        self.store.close()


@pytest.fixture
def watch(make_store):
    """A store with our own clock."""
    watch = Watch(make_store("null_sender=accept"))
    yield watch
    watch.close()


GAPS = st.one_of(*(st.integers(0, most) for most in (1, 12, 70, 700, 8_000, 100_000)))
STEPS = st.lists(st.tuples(GAPS, st.sampled_from(sorted(SIMPLE)), st.integers(1, 5)), min_size=1, max_size=40)


def test_periods_against_a_list(make_store):
    store = make_store("null_sender=accept")

    @settings(max_examples=150, deadline=None)
    @given(st.integers(START, START + 100_000), STEPS, GAPS)
    def compare(now, steps, rest):
        watch = Watch(store, now)
        for gap, verdict, times in steps:
            watch.now += gap
            watch.compare()
            for _ in range(times):
                watch.check(verdict)
            watch.compare()
        watch.now += rest
        watch.compare()
        watch.close()

    compare()


def test_periods_of_a_busy_day(watch):
    """A check every 7 seconds for 30 hours: every ring has gone round."""
    pick = random.Random(1)
    while watch.now < START + 30 * 3600:
        watch.now += 7
        watch.check(pick.choice(sorted(SIMPLE)))
        if pick.random() < 0.01:
            watch.compare()
    watch.compare()
    assert sum(watch.recent()["day"].values()) >= 86_400 // 7 * 23 // 24


def test_a_hook_that_is_late(watch):
    """It waited for a lock, and is the only one of its interval: its snapshot is newer than its stamp says."""
    watch.now += 15
    for _ in range(5):
        watch.check("accept relay")
    watch.now -= 7
    watch.check("accept error")
    watch.now = START + 66
    watch.compare()
    assert watch.recent()["minute"] == {"accept relay": 5, "accept error": 1}


def test_a_clock_that_steps_back(watch):
    """Periods never hold more than there was, and are right again when their ring has gone round."""
    for step in range(2000):
        watch.now += 60
        watch.check("accept relay")
    watch.now -= 20_000
    before = len(watch.past)
    for step in range(2000):
        watch.now += 60
        watch.check("accept error")
        for counted in watch.recent().values():
            assert counted <= watch.since(0)
            # What was counted a second time at a moment that had been before is not lost.
            assert counted["accept error"] >= 1
    watch.past, first = watch.past[before:], watch.past[:before]
    for name, counted in watch.recent().items():
        start = watch.now - page.PERIODS[name]
        assert watch.since(start + page.RINGS[name][2]) <= counted <= watch.since(start), name
    assert len(first) == 2000


def test_a_clock_that_was_years_ahead(watch):
    watch.check("accept relay")
    watch.now += 10 * 365 * 86_400
    watch.check("accept relay")
    watch.now = START + 5
    watch.check("accept error")
    for counted in watch.recent().values():
        assert Counter({"accept error": 1}) <= counted <= watch.since(0)
    watch.now = START + 90_000
    watch.check("accept error")
    assert watch.recent() == {name: {"accept error": 1} for name in page.PERIODS}


@pytest.mark.parametrize("now", [-5, 0, 1 << 41])
def test_a_clock_that_is_no_clock(watch, path, now):
    watch.now = now
    watch.check("accept relay")
    assert page.read(path / "stats").totals == {0: 1}
    assert {stamp for _, _, stamp, _ in page.slots(path / "stats")} == {0}


def test_periods_go_by_the_clock_whatever_time_is_given(make_store, path):
    """A replay on a store in use must not put last year into its rings, nor next year."""
    make_store()
    before = int(time.time())
    with fastgrey.open(path) as store:
        for now in (1, 1_000_000_000, before + 10**8):
            store.check(**REQUEST, now=now)
        found = store.counters()
    stamps = {stamp for _, _, stamp, _ in page.slots(path / "stats")} - {0}
    assert all(before <= stamp <= time.time() for stamp in stamps)
    assert sum(facts.recent(found, "minute", int(time.time())).values()) == 3


def test_totals_past_32_bits(watch, path):
    """Snapshots keep the low 32 bits."""
    with open(path / "stats", "r+b") as file:
        file.seek(16)
        file.write(((1 << 32) - 2).to_bytes(8, sys.byteorder))
    for _ in range(5):
        watch.now += 1000
        watch.check("accept relay")
    assert watch.store.counters()["verdicts"] == {"accept relay": (1 << 32) + 3}
    assert watch.recent()["day"] == {"accept relay": 5}
    assert watch.recent()["minute"] == {"accept relay": 1}


def test_snapshots_newer_than_the_totals(watch, path):
    """The page is not flushed: after a power cut parts of it may be of different moments."""
    watch.check("accept relay")
    watch.check("accept error")
    watch.now += 4000
    watch.check("accept error")
    with open(path / "stats", "r+b") as file:
        file.seek(16)
        file.write(bytes(8))
    assert watch.recent()["day"] == {"accept error": 2}


def mine(path, watch):
    """The slots of the watch's own moment: stamp and totals by ring."""
    return {name: (stamp, totals) for name, index, stamp, totals in page.slots(path / "stats")
            if watch.now // page.RINGS[name][2] % page.RINGS[name][1] == index}


def test_a_snapshot_that_is_being_taken(watch, path):
    """Another hook has begun it: nobody waits, nobody reads it, and nobody writes into it."""
    for _ in range(3):
        watch.now += 3600
        watch.check("accept relay")
    watch.now += 3600
    page.stamp_all(path / "stats", -watch.now)
    before = mine(path, watch)
    watch.check("accept relay")
    assert mine(path, watch) == before
    assert watch.store.counters()["snapshots"] == {"minute": [], "hour": [], "day": []}
    assert watch.store.counters()["verdicts"] == {"accept relay": 4}


def test_a_hook_killed_within_a_snapshot(watch, path):
    """Its slot stays unfinished, until a hook ten seconds later takes it over."""
    for _ in range(3):
        watch.now += 3600
        watch.check("accept relay")
    # At no boundary of an interval of 300 seconds.
    watch.now += 3600 - watch.now % 300 + 100
    page.stamp_all(path / "stats", -watch.now)
    watch.now += 9
    watch.check("accept relay")
    assert [stamp for stamp, _ in mine(path, watch).values()] == [9 - watch.now] * 3
    watch.now += 1
    watch.check("accept relay")
    assert mine(path, watch) == {name: (watch.now, [4] + [0] * 15) for name in page.RINGS}


def hook(path, relay=False):
    """Start the real executable."""
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"} | ({"RELAYCLIENT": ""} if relay else {})
    return subprocess.Popen([HOOK, "a@example.org", "b@example.net"], env=environment, stderr=subprocess.DEVNULL)


def test_the_hook_takes_over_what_a_killed_one_left(make_store, path):
    make_store()
    page.stamp_all(path / "stats", -int(time.time() - 15))
    before = int(time.time())
    assert hook(path, relay=True).wait(30) == 0
    done = [(name, totals) for name, _, stamp, totals in page.slots(path / "stats") if before <= stamp <= time.time()]
    assert done == [(name, [0] * 16) for name in page.RINGS]


def test_killed_hooks_leave_rings_that_work(make_store, path):
    """SIGKILL at random moments while every hook takes snapshots; afterwards they are taken and read as ever."""
    make_store()
    pick = random.Random(3)
    for _ in range(150):
        page.stamp_all(path / "stats", 1)
        process = hook(path, relay=True)
        time.sleep(pick.random() * 0.0008)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    counted = page.read(path / "stats").totals.get(0, 0)
    page.stamp_all(path / "stats", -int(time.time() - 15))
    assert hook(path, relay=True).wait(30) == 0
    with fastgrey.open(path) as store:
        found = store.counters()
    assert found["verdicts"] == {"accept relay": counted + 1}
    for name in page.PERIODS:
        assert facts.recent(found, name, int(time.time())) == {"accept relay": 1}


COUNTING = """
import fastgrey, sys
with fastgrey.open(sys.argv[1]) as store:
    for number in range(int(sys.argv[2])):
        store.check(client="192.0.2.1", sender="a", recipient="b", relay=True)
"""


def test_many_at_once_lose_nothing(make_store, path):
    """Hooks and stores of several processes count while snapshots are taken all the time, and while they are read."""
    make_store()
    each, processes, hooks = 40_000, 4, 300
    running = [subprocess.Popen([sys.executable, "-c", COUNTING, str(path), str(each)]) for _ in range(processes)]
    started = taken = 0
    with fastgrey.open(path) as store:
        while started < hooks or any(process.poll() is None for process in running):
            # Whoever counts next finds every snapshot due.
            page.stamp_all(path / "stats", 1)
            if started < hooks:
                running.append(hook(path, relay=True))
                started += 1
            found = store.counters()
            for snapshots in found["snapshots"].values():
                for stamp, totals in snapshots:
                    taken += stamp > 1
                    assert totals[0] <= found["totals"][0]
                    assert totals[1:] == [0] * 15
    assert {process.returncode for process in running} == {0}
    assert page.read(path / "stats").totals == {0: each * processes + hooks}
    assert taken > 100


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 172_800), min_size=1, max_size=60))
def test_median_is_right_to_its_bucket(waits):
    counts = [0] * (len(_core.WAIT_BOUNDS) + 1)
    for wait in waits:
        counts[bisect_left(_core.WAIT_BOUNDS, wait)] += 1
    true, found = statistics.median_low(waits), facts.median(_core.WAIT_BOUNDS, counts)
    bucket = bisect_left(_core.WAIT_BOUNDS, true)
    assert (0, *_core.WAIT_BOUNDS)[bucket] <= found <= _core.WAIT_BOUNDS[bucket]


def test_median_of_nothing_and_of_the_endless():
    counts = [0] * (len(_core.WAIT_BOUNDS) + 1)
    assert facts.median(_core.WAIT_BOUNDS, counts) is None
    assert facts.median(_core.WAIT_BOUNDS, [*counts[:-1], 3]) == 172_800


def test_waits_of_strangers_that_came_back(make_store, path):
    """Each at its own time; a wait on a bound belongs below it."""
    make_store("delay=1m", "retry_window=30d", "pool_hops=0", "allow_domain_after=0", "allow_client_after=0")
    waits = [60, 61, 300, 301, 450, 4000, 172_800, 172_801]
    with fastgrey.open(path) as store:
        for number, wait in enumerate([*waits, None]):
            request = REQUEST | {"sender": f"a@{'x' * (number + 1)}.example"}
            assert store.check(**request, now=START).reason == "new"
            assert store.check(**request, now=START + 1).reason == "early"
            if wait:
                assert store.check(**request, now=START + wait).reason == "retry"
        found = facts.strangers(store.counters())
    assert (found["seen"], found["came_back"], found["share"]) == (9, 8, 0.8889)
    bounds = [*_core.WAIT_BOUNDS, None]
    assert [bounds[i] for i, number in enumerate(found["waits"]["counts"]) for _ in range(number)] == [
        60, 120, 300, 360, 480, 5400, 172_800, None]
    assert found["waits"]["seconds"] == sum(waits)
    assert 300 <= found["median_wait"] <= 360


def test_wait_of_a_pool_is_that_of_its_first_hop(make_store, path):
    make_store("delay=5m", "pool_hops=3")
    with fastgrey.open(path) as store:
        for hop, seconds, reason in ((0, 0, "new"), (1, 100, "new"), (2, 700, "pool"), (2, 800, "known-domain")):
            assert store.check(**REQUEST | {"client": f"192.0.{hop}.1"}, now=START + seconds).reason == reason
        found = facts.strangers(store.counters())
    # The hop that passes leaves no triplet behind.
    assert (found["seen"], found["came_back"], found["waits"]["seconds"]) == (2, 1, 700)


def test_strangers_are_counted_where_they_are_recorded(make_store, path, run_hook):
    make_store("mode=learn")
    for _ in range(3):
        assert run_hook().words == ["accept", "learn"]
    run_hook(sender="other@example.org", env={"TCPREMOTEHOST": "mx.pool.example"})
    with fastgrey.open(path) as store:
        store.check(**REQUEST | {"sender": "third@else.example"}, dry_run=True)
        assert store.counters()["events"]["strangers"] == 2


def test_every_way_a_decision_ends_has_its_place(make_store, path):
    """As far as there are requests for it; the other places are those of docs/decision.md."""
    make_store("delay=1m", "allow_client_after=3", "allow_domain_after=2", "null_sender=accept", "pool_hops=2")
    verdicts = Counter()

    def check(now, **changes):
        verdict = store.check(**REQUEST | changes, now=START + now)
        verdicts[f"{verdict.action} {verdict.reason}"] += 1

    with fastgrey.open(path) as store:
        check(0, relay=True)
        check(0, sender="")
        check(0, client="x")
        for now in (0, 10, 70, 71):
            check(now)
        for now, client in ((80, "198.51.100.1"), (200, "203.0.113.1")):
            check(now, client=client, sender="pool@pool.example")
        check(210, client="198.51.102.1", sender="pool@pool.example")
        for number in range(2):
            for now in (300, 400):
                check(now, recipient=f"b{number}@other.example")
        check(500, recipient="c@other.example")
        check(500, recipient="c@other.example", sender="b@new.example")
        counted = store.counters()["verdicts"]
    assert counted == verdicts
    assert {name.split()[1] for name in verdicts} >= {
        "relay", "allowed", "error", "new", "early", "retry", "pool", "known-triplet", "known-pair", "known-domain"}
    assert page.read(path / "stats").totals == {
        _core.VERDICTS.index(tuple(name.split())): number for name, number in verdicts.items()}


def test_a_page_of_version_1_is_not_used(make_store, path, run_hook, run_fastgrey):
    """Nothing is counted, doctor says so, and init makes a new page."""
    make_store("delay=0s")
    old = b"fgstats\0" + (1).to_bytes(4, sys.byteorder) + bytes(4084)
    (path / "stats").write_bytes(old)
    for words in (["defer", "new"], ["accept", "retry"]):
        assert run_hook().words == words
    assert (path / "stats").read_bytes() == old
    with fastgrey.open(path) as store:
        assert store.counters() is None
    assert "of another version; run: fastgrey init" in run_fastgrey("doctor").stdout
    assert "counting starts anew" in run_fastgrey("init").stderr
    run_hook()
    found = page.read(path / "stats")
    assert (found.version, found.totals) == (2, {5: 1})
    assert os.stat(path / "stats").st_size == page.SIZE
