"""Floods of strangers against a small bound: no error, no flush, no more disk, the oldest forgotten first, and every
verdict right for those who are not."""

import subprocess
import sys
from collections import Counter

import fastgrey
from conftest import HOOK
from fastgrey import settings
from machine import needs_filters, refuse_to_flush

START = 1_700_000_000
MEGABYTE = 1 << 20
FRIEND = {"client": "203.0.113.1", "sender": "a@friend.example", "recipient": "b@example.net"}
# A stranger a number, as stranger() below, but that a shell has no digits to turn into letters.
HOOKS = r"""
number=$1
while [ "$number" -lt "$2" ]; do
    TCPREMOTEIP=172.$((number / 65536)).$((number / 256 % 256)).$((number % 256)) \
        "$HOOK" "a@h$number.example" b@example.net
    [ $? = 111 ] || exit 1
    number=$((number + 1))
done
"""
# So many strangers by the API, with every flush refused.
WITHOUT_FLUSH = """
import sys, fastgrey
with fastgrey.open(sys.argv[1]) as store:
    for number in range(120_000):
        verdict = store.check(client="198.51.100.1", sender="a@example.com", recipient=f"b{number}@example.net")
        assert verdict[:2] == ("defer", "new"), verdict
"""


def stranger(number):
    """A sender and a network that were never seen before."""
    # A sender's digits are one token, those of its domain are not.
    return {"client": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "sender": f"a@h{number}.example",
            "recipient": "b@example.net"}


class Flood:
    """Strangers one after the other; of each, when it came and in which partition it is."""

    def __init__(self, store):
        self.store = store
        self.now = START
        self.made = []
        self.came = []

    def one(self, seconds=0.0):
        """The next stranger, so long after the one before."""
        assert len(self.came) < 200_000
        self.now += seconds
        verdict = self.store.check(**stranger(len(self.came)), now=int(self.now))
        assert verdict[:2] == ("defer", "new"), verdict
        there = self.partitions()
        current = max(partition for partition in there if partition[0] <= self.now)
        if current not in self.made:
            self.made.append(current)
            # Those that are gone came first.
            assert set(there) == set(self.made[-len(there):])
        self.came.append((int(self.now), current))

    def partitions(self):
        return [(p["start"], p["part"]) for p in self.store.partitions()]

    def given_up(self):
        return self.store.counters()["events"]["partitions given up"]

    def expected(self, delay, retry_window):
        """What each stranger is to be told now."""
        there = self.partitions()
        now = int(self.now)
        return ["new" if where not in there or now - first > retry_window else
                "early" if now - first < delay else "retry" for first, where in self.came]

    def told(self):
        """What each would be told now."""
        return [self.store.check(**stranger(number), now=int(self.now), dry_run=True).reason
                for number in range(len(self.came))]


def make_known(store, start):
    store.check(**FRIEND, now=start - 300)
    assert store.check(**FRIEND, now=start).reason == "retry"


def test_every_verdict_is_right_for_those_not_given_up(make_store, path, pending_path):
    """Four hours of a flood, with partitions that end by time and others that are given up for room."""
    make_store("pending_size=4M", "retry_window=1h", "pool_window=10m")
    with fastgrey.open(path) as store:
        flood = Flood(store)
        make_known(store, START)
        for number in range(60_000):
            flood.one(0.24)
            if number % 1000 == 0:
                assert store.check(**FRIEND, now=int(flood.now)).reason == "known-domain"
                assert (pending_path / "data.mdb").stat().st_size <= 4 * MEGABYTE
                assert len(flood.partitions()) <= 8
        expected = flood.expected(300, 3600)
        assert flood.told() == expected
        assert min(Counter(expected)[reason] for reason in ("new", "early", "retry")) > 1000
        events = store.counters()["events"]
        assert events["not recorded"] == 0
        assert events["partitions given up"] >= 3
    assert (pending_path / "data.mdb").stat().st_size <= 4 * MEGABYTE


def test_a_flood_in_one_second_costs_its_own_oldest_quarter(make_store, path):
    """However fast it comes, each time that room is made a quarter goes and three stay."""
    make_store("pending_size=4M")
    with fastgrey.open(path) as store:
        flood = Flood(store)
        alive = 0
        while flood.given_up() < 12:
            before = flood.given_up()
            flood.one()
            alive += 1
            if flood.given_up() > before:
                there = flood.partitions()
                kept = sum(where in there for _, where in flood.came)
                assert flood.given_up() == before + 1
                assert kept > alive * 0.7
                alive = kept
        assert flood.told() == flood.expected(300, 172_800)
        assert store.counters()["events"]["not recorded"] == 0


def test_thousands_through_the_hook(make_store, path, pending_path, tmp_path):
    """A full pending, and 3,000 hooks for which partitions are given up: none errs, none of their strangers is lost."""
    make_store("pending_size=4M")
    with fastgrey.open(path) as store:
        flood = Flood(store)
        make_known(store, START)
        marks = []
        while len(marks) < 8:
            before = flood.given_up()
            flood.one()
            if flood.given_up() > before:
                marks.append(len(flood.came))
        # As many as between two times that room is made, less a few.
        for _ in range(marks[-1] - marks[-2] - 1000):
            flood.one()
        before = flood.given_up()
        processes = []
        for number in range(2):
            with open(tmp_path / f"log{number}", "wb") as log:
                processes.append(subprocess.Popen(
                    ["sh", "-c", HOOKS, "sh", str(1500 * number), str(1500 * number + 1500)], stderr=log,
                    env={"FASTGREY_STORE": str(path), "HOOK": str(HOOK)}))
        assert [process.wait(120) for process in processes] == [0, 0]
        lines = [line for number in range(2) for line in (tmp_path / f"log{number}").read_text().splitlines()]
        assert len(lines) == 3000
        assert all(line.startswith("fastgrey: defer new wait=300 ") for line in lines)
        assert sum("its oldest partition was given up" in line for line in lines) == flood.given_up() - before > 0
        assert not any("not recorded" in line for line in lines)
        for number in range(3000):
            client = f"172.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            assert store.check(client=client, sender=f"a@h{number}.example", recipient="b@example.net",
                               dry_run=True).reason == "early"
        assert store.check(**FRIEND, now=START).reason == "known-domain"
    assert (pending_path / "data.mdb").stat().st_size <= 4 * MEGABYTE


@needs_filters
def test_strangers_are_never_flushed(make_store, path, run_hook):
    """With every flush refused: strangers and the giving up of partitions go on, a promotion cannot."""
    make_store("pending_size=4M", "delay=0s", "pool_hops=0")
    assert run_hook(preexec_fn=refuse_to_flush).words == ["defer", "new"]
    answer = run_hook(preexec_fn=refuse_to_flush)
    assert answer.words == ["accept", "error"]
    assert "Input/output error" in answer.line
    assert run_hook().words == ["accept", "retry"]
    subprocess.run([sys.executable, "-c", WITHOUT_FLUSH, str(path)], check=True, preexec_fn=refuse_to_flush,
                   timeout=120)
    with fastgrey.open(path) as store:
        assert store.counters()["events"]["partitions given up"] >= 1
    assert run_hook(sender="c@example.com", preexec_fn=refuse_to_flush).words == ["defer", "new"]


def test_a_flood_before_the_clock_was_set_back(make_store, path):
    """What a year ahead was recorded goes first; the present keeps what it has."""
    make_store("pending_size=4M")
    with fastgrey.open(path) as store:
        flood = Flood(store)
        flood.now = START + 365 * 86_400
        while flood.given_up() < 5:
            flood.one()
        ahead = len(flood.came)
        flood.now = START
        made = len(flood.made)
        while flood.partitions()[-1][0] > START:
            present = flood.made[made:]
            assert set(present) <= set(flood.partitions())
            flood.one()
        assert len(flood.came) - ahead > 20_000
        assert flood.told() == flood.expected(300, 172_800)


def test_a_bound_that_is_lowered(make_store, path, pending_path, run_fastgrey):
    """What is kept comes down to it with the next parts, the oldest first; the file stays, and doctor says so."""
    make_store("pending_size=16M")
    with fastgrey.open(path) as store:
        flood = Flood(store)
        for _ in range(90_000):
            flood.one()
        assert flood.given_up() == 0
        size = (pending_path / "data.mdb").stat().st_size
        assert size > 8 * MEGABYTE
        values = settings.by_name(store.head()["settings"]) | {"pending_size": 4 * MEGABYTE}
        store.configure(list(values.values()))
        parts = len(flood.made)
        while len(flood.made) == parts:
            flood.one()
        # The last part there was is kept, as the one with the latest strangers.
        assert flood.partitions() == flood.made[-2:]
        assert flood.told() == flood.expected(300, 172_800)
        for _ in range(40_000):
            flood.one()
        assert flood.told() == flood.expected(300, 172_800)
        assert sum(partition["records"] for partition in store.partitions()) < 75_000
        assert store.counters()["events"]["not recorded"] == 0
        # A file that was full to its last page needs a few more to free any.
        assert size <= (pending_path / "data.mdb").stat().st_size <= size + size // 64 + MEGABYTE // 2
    told = run_fastgrey("doctor").stdout
    assert "it grew before pending_size was lowered" in told
    assert f"rm -r {pending_path}" in told
