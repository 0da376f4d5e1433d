"""The second before, the second itself and the second after, of every span in the decision."""

import pytest

import aging
import fastgrey

REQUEST = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": "b@example.net"}
START = 1_700_000_000


@pytest.fixture
def opened(make_store):
    """Open a store with settings; closed at the end of the test."""
    stores = []

    def make(*assignments):
        stores.append(fastgrey.open(make_store(*assignments)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def ask(store, after, **other):
    """Action and reason of a check so many seconds after the start."""
    return store.check(**REQUEST | other, now=START + after)[:2]


@pytest.mark.parametrize(("after", "reason"), [(299, "early"), (300, "retry"), (301, "retry")])
def test_delay(opened, after, reason):
    store = opened()
    ask(store, 0)
    assert ask(store, after)[1] == reason


@pytest.mark.parametrize(("after", "reason"), [(1799, "retry"), (1800, "retry"), (1801, "new")])
def test_retry_window(opened, after, reason):
    store = opened("retry_window=30m", "pool_window=10m")
    ask(store, 0)
    assert ask(store, after)[1] == reason


@pytest.mark.parametrize(("after", "reason"), [(3599, "known-domain"), (3600, "known-domain"), (3601, "new")])
def test_lifetime(opened, after, reason):
    store = opened("lifetime=1h", "retry_window=10m", "pool_window=10m")
    ask(store, -300)
    assert ask(store, 0)[1] == "retry"
    assert ask(store, after)[1] == reason


@pytest.mark.parametrize(("after", "written"), [(599, False), (600, True), (601, True)])
def test_refresh(opened, path, after, written):
    store = opened("refresh=10m")
    ask(store, -300)
    ask(store, 0)
    assert ask(store, after)[1] == "known-domain"
    assert store.counters()["events"]["refreshed"] == written
    store.close()
    records = aging.records(path / "passed.000001")
    assert [aging.unpack(value)[0] for value in records["domain"].values()] == [START + (after if written else 0)]
    # Only the record that matched.
    assert [aging.unpack(value)[0] for value in records["triplet"].values()] == [START]


@pytest.mark.parametrize(("last_hop", "reason"), [(299, "new"), (300, "pool"), (14_400, "pool"), (14_401, "new")])
def test_pool(opened, last_hop, reason):
    store = opened("pool_hops=3")
    for after, network in ((0, 1), (10, 2), (last_hop, 3)):
        answer = ask(store, after, client=f"198.51.{network}.1")
    assert answer[1] == reason
    assert ask(store, last_hop + 1, client="203.0.113.1")[1] == ("known-pair" if reason == "pool" else
                                                                "pool" if last_hop == 299 else "new")


@pytest.mark.parametrize(("setting", "passes_at"), [("allow_client_after=0", None), ("allow_client_after=2", 3)])
def test_client(opened, setting, passes_at):
    store = opened(setting, "allow_domain_after=0")
    reasons = []
    for number in range(1, 5):
        sender = f"a@{number}.example"
        if ask(store, number * 1000, sender=sender)[1] == "known-client":
            reasons.append("known-client")
            continue
        reasons.append(ask(store, number * 1000 + 300, sender=sender)[1])
    assert reasons == ["retry"] * 4 if passes_at is None else ["retry", "retry", "known-client", "known-client"]


def test_dead_record_starts_again_at_one(opened, path):
    store = opened("lifetime=1h", "allow_domain_after=2", "retry_window=10m", "pool_window=10m")
    for begin in (0, 10_000):
        ask(store, begin)
        assert ask(store, begin + 300)[1] == "retry"
    store.close()
    for kind in ("client", "domain", "triplet"):
        (value,) = aging.records(path / "passed.000001")[kind].values()
        assert aging.unpack(value) == (START + 10_300, 1)


def test_clock_that_steps_back(opened, path):
    store = opened("refresh=0s")
    ask(store, 0)
    assert ask(store, -5000) == ("defer", "early")
    assert ask(store, 300)[1] == "retry"
    assert ask(store, -90_000)[1] == "known-domain"
    store.close()
    (value,) = aging.records(path / "passed.000001")["domain"].values()
    assert aging.unpack(value)[0] == START + 300


def test_late_retry_waits_from_anew(opened):
    store = opened("retry_window=30m", "pool_window=10m", "pool_hops=0")
    ask(store, 0)
    assert ask(store, 1801)[1] == "new"
    assert ask(store, 2100)[1] == "early"
    assert ask(store, 2101)[1] == "retry"
