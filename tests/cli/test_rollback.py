"""fastgrey rollback: what it says. That nothing goes wrong with it is in tests/crash/test_succession.py."""

import json
import time

import pytest

import fastgrey
from fastgrey import compaction, directory, policy, soundness, windows
from terminal import on_terminal


@pytest.fixture
def store(make_store, path):
    """Generation 2 in force, which has a triplet, rules, a setting and a window more than generation 1."""
    make_store("pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
    promote(path, "a@one.example")
    compaction.compact(str(path))
    promote(path, "a@two.example")
    with fastgrey.open(path) as opened:
        windows.open_window(opened, "b@example.net", None, "10m")
        policy.put(opened, {"deny_senders": ["bulk.example"]}, {"delay": 60, "on_error": 1, "pool_hops": 0,
                                                               "allow_client_after": 0, "allow_domain_after": 0})
    return path


def promote(path, sender):
    with fastgrey.open(path) as opened:
        for ago in (400, 100):
            opened.check(client="192.0.2.1", sender=sender, recipient="b@example.net", now=time.time() - ago)


def test_what_is_lost(store, run_fastgrey, path):
    dry = run_fastgrey("rollback", "--dry-run").stdout.splitlines()
    assert directory.current_number(path) == 2
    done = run_fastgrey("rollback").stdout.splitlines()
    assert done[0] == (f"{path}: passed.000003, a copy of passed.000001 with 3 known records, is in force instead of "
                       "passed.000002")
    assert dry[0] == done[0].replace("is in force", "would be in force")
    assert dry[1:] == done[1:-1]
    assert done[1:5] == [
        "  2 known records of passed.000002 are lost: 1 domain, 1 triplet",
        "  1 known record of passed.000002 is as it was before: 1 client",
        "  setting delay: 1m -> 5m",
        "  setting on_error: defer -> accept",
    ]
    assert done[5].startswith("  policy: 1 rule of ")
    assert done[5].endswith(" -> none")
    assert done[6:] == ["  windows: 1 -> 0", "to undo this: fastgrey rollback"]
    with fastgrey.open(path) as opened:
        assert not opened.counters()["defer_on_error"]
        assert fastgrey._core.windows(opened) == []
        assert policy.in_force(opened).rules == ()


def test_undone_by_going_back_once_more(store, run_fastgrey, path):
    before = soundness.contents(path / "passed.000002").manifest.parts
    assert run_fastgrey("rollback").returncode == 0
    undone = run_fastgrey("rollback").stdout
    assert "passed.000004, a copy of passed.000002 with 5 known records" in undone
    assert "2 known records of passed.000003 come back: 1 domain, 1 triplet" in undone
    after = soundness.contents(path / "passed.000004").manifest.parts
    assert [name for name in after if after[name] != before[name]] == ["head", "policy"]
    with fastgrey.open(path) as opened:
        assert [rule.entry for rule in policy.in_force(opened).rules] == ["bulk.example"]
        assert opened.counters()["defer_on_error"]
    assert json.loads(run_fastgrey("verify", "--json").stdout)["status"] == 0


def test_nothing_lost(make_store, path, run_fastgrey):
    make_store()
    compaction.compact(str(path))
    assert run_fastgrey("rollback", "--dry-run").stdout.splitlines()[1:] == ["  nothing is lost"]


def test_json(store, run_fastgrey):
    facts = json.loads(run_fastgrey("rollback", "--json").stdout)
    assert facts["records"] == {"client": 1, "domain": 1, "triplet": 1, "pair": 0}
    assert facts["loss"]["changed"] == {"client": 1, "domain": 0, "triplet": 0, "pair": 0}
    assert facts["loss"]["windows"] == [1, 0]
    assert (facts["dry_run"], facts["damage"], facts["generation"]) == (False, None, 3)


def test_progress_on_a_terminal(store, path):
    assert "contents" in on_terminal(["rollback"], path)
