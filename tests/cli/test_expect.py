"""fastgrey expect: windows by the real command, seen by the real hook."""

import json
import time

import pytest

import aging
import fastgrey
from fastgrey import _core

KEY = "[0-9a-f]{12}"


@pytest.mark.parametrize(("sender", "recipient", "words"), [
    ("code@example.org", "you@example.net", "expected"), ("code@mail.Example.ORG", "You@example.net", "expected"),
    ("code@notexample.org", "you@example.net", "new"), ("code@org", "you@example.net", "new"),
    ("code@example.org", "me@example.net", "new"), ("", "you@example.net", "new"),
])
def test_from_a_domain(make_store, run_fastgrey, run_hook, sender, recipient, words):
    make_store()
    done = run_fastgrey("expect", "you@example.net", "--from", "example.org", "--for", "15m")
    assert done.returncode == 0
    assert done.stdout.startswith("open: mail from example.org and below to you@example.net passes until ")
    assert run_hook(sender=sender, recipient=recipient).words[1] == words


def test_from_anywhere_and_not_for_ever(make_store, run_fastgrey, run_hook, path):
    make_store()
    run_fastgrey("expect", "you@example.net", "--for", "5s")
    assert run_hook(sender="a@b.example", recipient="you@example.net").words == ["accept", "expected"]
    assert run_hook(sender="", recipient="YOU@example.net").words == ["accept", "expected"]
    with fastgrey.open(path) as store:
        (window,) = _core.windows(store)
        for moment, reason in ((window["until"], "expected"), (window["until"] + 1, "new")):
            assert store.check(client="192.0.2.1", sender="a@b.example", recipient="you@example.net", now=moment,
                               dry_run=True).reason == reason
    time.sleep(max(0, window["until"] + 1.1 - time.time()))
    assert run_hook(sender="a@b.example", recipient="you@example.net").words == ["defer", "new"]
    assert run_fastgrey("expect", "--list").stdout == "no window is open\n"


def test_a_deny_rule_holds(make_store, run_fastgrey, run_hook, config):
    make_store()
    config('deny_senders = ["bad.example"]')
    run_fastgrey("apply")
    run_fastgrey("expect", "you@example.net", "--for", "15m")
    assert run_hook(sender="a@bad.example", recipient="you@example.net").words == ["reject", "denied"]
    assert run_hook(sender="a@good.example", recipient="you@example.net").words == ["accept", "expected"]


def test_listed_and_closed(make_store, run_fastgrey, run_hook):
    make_store()
    run_fastgrey("expect", "a@example.net", "--for", "30m")
    run_fastgrey("expect", "b@example.net", "--from", "@example.org", "--for", "10m")
    listed = json.loads(run_fastgrey("expect", "--list", "--json").stdout)
    assert [window["one_domain"] for window in listed] == [True, False]
    lines = run_fastgrey("expect", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [window["key"][:12] for window in listed]
    assert "from one domain" in lines[0] and "from any sender" in lines[1]
    # Closing the one without naming its domain closes nothing.
    done = run_fastgrey("expect", "b@example.net", "--close")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no window is open for b@example.net" in done.stderr
    assert run_fastgrey("expect", "b@example.net", "--from", "example.org", "--close", "--dry-run").returncode == 0
    assert len(json.loads(run_fastgrey("expect", "--list", "--json").stdout)) == 2
    assert "closed: window" in run_fastgrey("expect", "b@example.net", "--from", "example.org", "--close").stdout
    assert run_hook(sender="x@example.org", recipient="b@example.net").words == ["defer", "new"]
    assert "closed: window" in run_fastgrey("expect", "--close", "--key", listed[1]["key"][:8]).stdout
    assert run_hook(sender="x@example.org", recipient="a@example.net").words == ["defer", "new"]
    assert json.loads(run_fastgrey("expect", "--list", "--json").stdout) == []


def test_opened_again_it_closes_then(make_store, run_fastgrey):
    make_store()
    for span in ("30m", "10m"):
        run_fastgrey("expect", "a@example.net", "--for", span)
    (window,) = json.loads(run_fastgrey("expect", "--list", "--json").stdout)
    assert time.time() + 590 < time.mktime(time.strptime(window["until"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone < \
        time.time() + 601


def test_compaction_keeps_what_is_open_and_drops_the_rest(make_store, path, run_fastgrey, run_hook):
    make_store()
    run_fastgrey("expect", "short@example.net", "--for", "1s")
    run_fastgrey("expect", "long@example.net", "--for", "15m")
    time.sleep(2.1)
    assert run_fastgrey("compact").returncode == 0
    meta = aging.records(path / "passed.000002", lambda table: table == b"meta")["meta"]
    assert len([name for name in meta if name.startswith(b"window.")]) == 1
    assert run_hook(recipient="long@example.net").words == ["accept", "expected"]
    assert run_hook(recipient="short@example.net").words == ["defer", "new"]


@pytest.mark.parametrize(("arguments", "what"), [
    (("a@example.net", "--for", "61m"), "a window may be open for 1h at most (expect_max)"),
    (("a@example.net", "--for", "0"), "out of range"), (("a@example.net", "--for", "soon"), "expected a duration"),
    (("a@example.net",), "say one of"), ((), "say one of"), (("a@b", "--for", "5m", "--close"), "say one of"),
    (("--for", "5m"), "RECIPIENT goes with"), (("--list", "a@b"), "RECIPIENT goes with"),
    (("--list", "--key", "ab"), "--key with --close"), (("--list", "--from", "b"), "--from goes with"),
    (("", "--for", "5m"), "the recipient is empty"), (("a@b", "--for", "5m", "--from", "c@d"), "expected a domain"),
    (("a@b", "--for", "5m", "--from", ""), "expected a domain"), (("x" * 1001, "--for", "5m"), "longer than 1000"),
    (("--close", "--key", "abcd"), "0 open windows have such a key"),
])
def test_refused(make_store, run_fastgrey, path, arguments, what):
    make_store()
    done = run_fastgrey("expect", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr
    assert done.stderr.count("\n") == 1
    with fastgrey.open(path) as store:
        assert _core.windows(store) == []


def test_the_maximum_is_a_setting(make_store, run_fastgrey):
    make_store("expect_max=2h")
    assert run_fastgrey("expect", "a@example.net", "--for", "2h").returncode == 0


def test_a_dry_run_writes_nothing(make_store, path, run_fastgrey):
    make_store()
    before = (path / "passed.000001" / "data.mdb").read_bytes()
    done = run_fastgrey("expect", "a@example.net", "--for", "5m", "--dry-run")
    assert done.stdout.startswith("would be open: ")
    assert (path / "passed.000001" / "data.mdb").read_bytes() == before
