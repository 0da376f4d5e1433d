"""Clocks that leap, stores that lie idle, settings that change: what is kept, what may go, and to the second when."""

import itertools

import pytest

import aging
import fastgrey
from fastgrey import _core, compaction, settings

REQUEST = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": "b@example.net"}
START = 1_700_000_000
DAY = 86_400
YEAR = 365 * DAY


class Greylist:
    """A store with a clock of its own."""

    def __init__(self, path):
        self.path = path
        self.store = fastgrey.open(path)
        self.now = START

    def ask(self, **other):
        """Reason of a check now."""
        verdict = self.store.check(**REQUEST | other, now=self.now)
        assert verdict.cause is None
        return verdict.reason

    def stranger(self, number):
        """Reason of a check of the stranger with a number; all of them are at home in one network and domain."""
        return self.ask(recipient=f"{number}@example.net")

    def compact(self):
        return compaction.compact(self.path, self.now)

    def configure(self, *assignments):
        values = settings.by_name(self.store.head()["settings"]) | settings.parse_assignments(assignments)
        self.store.configure(list(values.values()))

    def partitions(self):
        """Start and part of each, from the beginning of the one that START is in."""
        return [(p["start"] - (START - START % p["length"]), p["part"]) for p in self.store.partitions()]

    def given_up(self):
        return self.store.counters()["events"]["partitions given up"]


@pytest.fixture
def greylist(make_store):
    """Make a greylist with settings; closed at the end of the test."""
    made = []

    def make(*assignments):
        made.append(Greylist(make_store("pool_hops=0", "allow_domain_after=0", "allow_client_after=0", *assignments)))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


# The boundary of two partitions.

@pytest.mark.parametrize("first", [0, 1, 1799, 3599, 3600])
@pytest.mark.parametrize(("after", "reason"), [(1799, "retry"), (1800, "retry"), (1801, "new")])
@pytest.mark.parametrize("compacted", [False, True])
def test_retry_window_wherever_the_partition_ends(greylist, first, after, reason, compacted):
    """A length of an hour, as the least there is, and of 30 minutes until a retry is late."""
    it = greylist("retry_window=30m", "pool_window=10m")
    it.now += -START % 3600 + first
    assert it.ask() == "new"
    it.now += after
    if compacted:
        it.compact()
    assert it.ask() == reason


@pytest.mark.parametrize(("after", "reason"), [(3599, "retry"), (3600, "retry"), (3601, "new")])
@pytest.mark.parametrize("first", [0, 3599])
def test_retry_window_as_long_as_a_partition(greylist, after, reason, first):
    """Compaction drops a partition in the second in which its last record is too old, and not before."""
    it = greylist("retry_window=1h", "pool_window=1h")
    it.now += -START % 3600 + first
    assert it.ask() == "new"
    it.now += after
    it.compact()
    assert len(it.partitions()) == (0 if first + after >= 7200 else 1)
    assert it.ask() == reason


def test_hops_on_both_sides_of_a_boundary(greylist):
    it = greylist("pool_hops=3", "pool_window=1h", "retry_window=30m")
    it.now += -START % 3600 + 3590
    assert it.ask(client="198.51.1.1") == "new"
    it.now += 20
    assert it.ask(client="198.51.2.1") == "new"
    it.now += 3580
    assert it.ask(client="198.51.3.1") == "pool"


# Compaction.

@pytest.mark.parametrize(("after", "kept"), [(3599, 2), (3600, 2), (3601, 0)])
def test_compaction_expires_to_the_second(greylist, after, kept):
    """The triplet is kept, and the client and domain with it, for as long as a check finds them."""
    it = greylist("lifetime=1h", "retry_window=30m", "pool_window=10m")
    it.ask()
    it.now += 300
    assert it.ask() == "retry"
    it.now += after
    assert it.ask(recipient="other@example.net") == "new"
    summary = it.compact()
    assert (summary.alive, summary.expired) == ((3, 0) if kept else (0, 3))
    assert it.ask() == ("known-triplet" if kept else "new")


@pytest.mark.parametrize(("after", "open_"), [(899, True), (900, True), (901, False)])
@pytest.mark.parametrize("compacted", [False, True])
def test_window_closes_to_the_second(greylist, after, open_, compacted):
    it = greylist()
    _core.open_window(it.store, REQUEST["recipient"], None, it.now, it.now + 900)
    it.now += after
    if compacted:
        it.compact()
        assert len(_core.windows(it.store)) == open_
    assert it.ask() == ("expected" if open_ else "new")


# Leaps.

def test_a_leap_of_a_year_and_back_forgets_nobody(greylist):
    it = greylist()
    assert it.stranger(1) == "new"
    it.now += YEAR
    assert it.stranger(2) == "new"
    assert it.stranger(2) == "early"
    it.now -= YEAR - 300
    assert it.stranger(1) == "retry"
    # Seen in a time to come: as old as nothing until then.
    assert it.stranger(2) == "early"
    it.now += YEAR - 1
    assert it.stranger(2) == "early"
    it.now += 1
    assert it.stranger(2) == "retry"


def test_further_spans_under_another_clock_drop_the_present(greylist):
    """One partition with each, as they would have gone without the leap."""
    it = greylist("retry_window=1h", "pool_window=1h")
    it.now += -START % 3600
    it.stranger(0)
    it.now += 3600
    it.stranger(1)
    before = it.partitions()
    it.now += YEAR
    for spans in range(1, 4):
        it.stranger(f"leapt{spans}")
        assert [part for part in it.partitions() if part in before] == before[spans - 1:]
        it.now += 3600
    assert it.given_up() == 0


def test_time_that_passes_as_it_should_drops_what_is_past(greylist):
    """At any time three partitions, of which one is past; never more."""
    it = greylist("retry_window=1h", "pool_window=1h")
    for number in range(50):
        it.stranger(number)
        assert len(it.partitions()) == min(3, number + 1)
        it.now += 3600
    assert it.given_up() == 0


def test_a_clock_that_ran_ahead_for_long_hides_nothing(greylist):
    """Of more partitions than a check looks into, those go that are farthest from the clock's time."""
    it = greylist("retry_window=1h", "pool_window=1h")
    it.now += 10 * DAY
    for number in range(30):
        it.stranger(f"ahead{number}")
        it.now += 3600
    it.now -= 10 * DAY + 30 * 3600
    # More spans than there are places.
    for number in range(30):
        assert it.stranger(number) == "new"
        assert it.stranger(number) == "early"
        it.now += 300
        assert it.stranger(number) == "retry"
        assert it.stranger(f"late{number}") == "new"
        it.now += 3300
        assert it.stranger(f"late{number}") == "retry"
        assert len(it.partitions()) <= 12


def test_leaps_to_many_times(greylist):
    it = greylist()
    for number, years in enumerate(itertools.chain(range(1, 31), reversed(range(1, 31)))):
        it.now = START + years * YEAR
        assert it.stranger(f"{number}") == "new"
        assert it.stranger(f"{number}") == "early"
    it.now = START
    assert it.stranger("present") == "new"
    it.now += 300
    assert it.stranger("present") == "retry"


def test_known_records_keep_the_later_time(greylist, path):
    """Refreshed a year ahead, a record is not refreshed back, and is alive at both times."""
    it = greylist("refresh=10m")
    it.ask()
    it.now += 300
    assert it.ask() == "retry"
    for leap in (30 * DAY, -30 * DAY, 0, 15 * DAY):
        it.now += leap
        assert it.ask() == "known-triplet"
    it.store.close()
    (value,) = aging.records(path / "passed.000001")["triplet"].values()
    assert aging.unpack(value) == (START + 300 + 30 * DAY, 1)


@pytest.mark.parametrize("compacted", [False, True])
def test_idle_for_months(greylist, compacted):
    it = greylist()
    it.stranger(1)
    it.now += 300
    assert it.stranger(1) == "retry"
    assert it.stranger(2) == "new"
    it.now += 200 * DAY
    if compacted:
        summary = it.compact()
        assert (summary.alive, summary.expired, summary.partitions_dropped) == (0, 3, 1)
        assert it.partitions() == []
    for number in (1, 2):
        assert it.stranger(number) == "new"
    it.now += 300
    for number in (1, 2):
        assert it.stranger(number) == "retry"


# Settings that change.

def test_written_anew_in_a_longer_partition(greylist):
    """The hour's partition stands behind the four hours' one by name, though it began no later."""
    it = greylist("retry_window=10m", "pool_window=1h")
    it.now += -START % 14_400
    assert it.ask() == "new"
    it.configure("pool_window=4h")
    it.now += 601
    assert it.ask() == "new"
    assert len(it.partitions()) == 2
    it.now += 299
    assert it.ask() == "early"
    it.now += 1
    assert it.ask() == "retry"


def test_hops_written_anew_in_a_longer_partition(greylist):
    it = greylist("pool_hops=2", "pool_window=10m", "retry_window=1h")
    it.now += -START % 14_400
    assert it.ask(client="198.51.1.1") == "new"
    it.configure("retry_window=4h")
    it.now += 601
    assert it.ask(client="198.51.2.1") == "new"
    it.now += 300
    assert it.ask(client="198.51.3.1") == "pool"


@pytest.mark.parametrize(("before", "after"), [("1h", "2d"), ("2d", "1h"), ("9d", "90m"), ("90m", "9d")])
def test_waiting_across_a_change_of_the_length(greylist, before, after):
    it = greylist(f"retry_window={before}", "pool_window=10m")
    assert it.stranger(1) == "new"
    it.configure(f"retry_window={after}")
    assert it.stranger(2) == "new"
    assert it.stranger(1) == "early"
    it.now += 3000
    it.compact()
    assert it.stranger(1) == "retry"
    assert it.stranger(2) == "retry"
