"""Policies under load: put in force while hooks decide, while a compaction copies, and by processes that are killed."""

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import fastgrey
from conftest import FASTGREY
from fastgrey import _core, compaction, directory, policy, regex, settings
from fastgrey.errors import PolicyError

# With these, all four ways to mix settings and rules of the two end in verdicts of their own.
DISTRUSTING = settings.defaults()
TRUSTING = DISTRUSTING | {"trust_client_name": 1}
DENYING = {"deny_clients": ["bad.example"]}
OPTING = {"allow_clients": ["bad.example"], "opt_out": ["example.net"]}
NAMED = {"TCPREMOTEHOST": "mx.bad.example"}


def test_a_check_sees_the_old_policy_or_the_new_one(make_store, path, run_hook):
    make_store()
    with fastgrey.open(path) as store:
        policy.put(store, OPTING, TRUSTING)
        assert run_hook(env=NAMED).words == ["accept", "allowed"]
        policy.put(store, DENYING, DISTRUSTING)
        assert run_hook(env=NAMED).words == ["defer", "new"]
        policy.put(store, DENYING, TRUSTING)
        done = threading.Event()
        applied = 0

        def apply():
            nonlocal applied
            while not done.is_set():
                policy.put(store, OPTING, DISTRUSTING)
                policy.put(store, DENYING, TRUSTING)
                applied += 2

        thread = threading.Thread(target=apply)
        thread.start()
        with ThreadPoolExecutor(4) as pool:
            seen = [tuple(answer.words) for answer in pool.map(lambda _: run_hook(env=NAMED), range(400))]
        done.set()
        thread.join()
    assert applied > 20
    assert set(seen) == {("reject", "denied"), ("accept", "opted-out")}


def test_hits_are_counted_exactly_and_carried_over(make_store, path, run_hook):
    make_store()
    rules = {"deny_senders": ["never.example", "example.org"], "opt_out": ["example.net"]}
    with fastgrey.open(path) as store:
        policy.put(store, rules)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: run_hook(sender="a@example.org" if number % 2 else "a@b.example"), range(200)))
        assert policy.in_force(store).hits == (0, 100, 100)
        policy.put(store, {"opt_out": ["example.net", "new.example"], "deny_senders": ["example.org"]})
        found = policy.in_force(store)
        assert {rule.entry: hits for rule, hits in zip(found.rules, found.hits, strict=True)} == {
            "example.net": 100, "new.example": 0, "example.org": 100}
        assert [entry.name for entry in path.glob("hits.*")] == ["hits.2"]
        # A check that writes nothing counts nothing.
        store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net", dry_run=True)
        assert policy.in_force(store).hits == found.hits


def test_hits_need_no_file(make_store, path, run_hook):
    make_store()
    with fastgrey.open(path) as store:
        policy.put(store, DENYING, TRUSTING)
        for damage in (lambda file: file.write_bytes(b""), lambda file: file.unlink(), lambda file: file.mkdir()):
            damage(path / "hits.1")
            assert run_hook(env=NAMED).words == ["reject", "denied"]
            assert policy.in_force(store).hits == (0,)


def test_compaction_takes_along_what_was_applied_meanwhile(make_store, path, run_hook):
    make_store()
    with fastgrey.open(path) as store:
        policy.put(store, DENYING, TRUSTING)
        target = path / directory.generation_name(2)
        target.mkdir()
        copy = _core.Copy(store, str(target), 2, int(time.time()))
        policy.put(store, OPTING, TRUSTING | {"delay": 77})
        _core.open_window(store, "b@example.com", None, int(time.time()), int(time.time()) + 900)
        while copy.copy(100):
            pass
        copy.rewind()
        while copy.compare(100):
            pass
        copy.finish(lambda: directory.swap(path, target.name))
        found = policy.in_force(store)
        assert ([rule.entry for rule in found.rules], found.settings["delay"], found.number) == (
            ["bad.example", "example.net"], 77, 2)
    assert run_hook(env=NAMED).words == ["accept", "allowed"]
    assert run_hook(recipient="b@example.com").words == ["accept", "expected"]
    assert "wait=77" in run_hook(recipient="c@example.com").line


def test_compaction_keeps_a_large_policy(make_store, path, run_hook):
    make_store()
    with fastgrey.open(path) as store:
        policy.put(store, {"deny_senders": [f"{number}@host-{number}.example" for number in range(50_000)]})
        before, _ = store.policy()
        assert len(before) > 4 << 20
    for _ in range(2):
        compaction.compact(path)
    with fastgrey.open(path) as store:
        assert store.policy()[0] == before
    assert run_hook(sender="49999@host-49999.example").words == ["reject", "denied"]
    assert run_hook(sender="49999@host-49998.example").words == ["defer", "new"]


def test_an_apply_that_is_killed_leaves_a_whole_policy(make_store, path, config, run_hook):
    make_store()
    lists = {"old": "old.example\n", "new": "".join(f"{number}.example\n" for number in range(3000)) + "new.example\n"}
    environment = {"PATH": os.environ["PATH"], "FASTGREY_STORE": str(path)}
    pair = [config(f'opt_out = [{{ file = "{name}" }}]', **lists).rename(path.parent / "etc" / f"{name}.toml")
            for name in lists]
    taken = []
    for file in (pair[1], pair[0]):
        start = time.monotonic()
        subprocess.run([FASTGREY, "apply", "--config", file], env=environment, check=True, capture_output=True)
        taken.append(time.monotonic() - start)
    outcomes = set()
    for number in range(30):
        child = subprocess.Popen([FASTGREY, "apply", "--config", pair[(number + 1) % 2]], env=environment,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Most of the time passes before anything is written; the last ones may come too late to stop it.
        time.sleep(max(taken) * (0.5 + number * 0.03))
        child.send_signal(signal.SIGKILL)
        child.wait()
        old, new = (run_hook(recipient=f"x@{name}.example").words[1] == "opted-out" for name in lists)
        assert old != new
        outcomes.add(old)
        with fastgrey.open(path) as store:
            assert len(policy.in_force(store).rules) == (1 if old else 3001)
    assert outcomes == {True, False}


def test_an_expression_that_takes_for_ever_does_not_stall_the_hook(make_store, path, run_hook, monkeypatch):
    """What apply would refuse is put in force by other means: it must not matter."""
    make_store("on_error=defer")
    slow = r"(a*)(a*)(a*)\1b\2c\3d"
    with pytest.raises(ValueError, match="refers back"):
        regex.compile(slow)
    monkeypatch.setattr(regex, "compile", lambda text: regex.Regex(text.encode(), b""))
    with fastgrey.open(path) as store:
        with pytest.raises(PolicyError):
            policy.put(store, {"deny_senders": ["/unclosed"]})
        policy.put(store, {"deny_senders": [f"/{slow}/"]}, settings.defaults() | {"on_error": 1})
    start = time.monotonic()
    answer = run_hook(sender="a" * 400 + "@example.org")
    assert time.monotonic() - start < 5
    assert (answer.words, answer.status) == (["defer", "error"], 111)
    assert "a regular expression of the rules took too long" in answer.line
    assert "rule=inline.deny_senders:1" in answer.line


def test_a_damaged_policy_is_an_error_and_no_more(make_store, path, run_hook):
    make_store()
    with fastgrey.open(path) as store:
        policy.put(store, {"deny_senders": ["bad.example", "/^x/", "*y*"]})
        good, _ = store.policy()
        values = list(policy.in_force(store).settings.values())
        for place in [*range(24, len(good), 7)]:
            broken = bytearray(good)
            broken[place] ^= 0x81
            store.configure(values, bytes(broken), lambda number: None)
            verdict = store.check(client="192.0.2.1", sender="a@bad.example", recipient="b@example.net", dry_run=True)
            assert verdict.action in ("accept", "reject", "defer")
        store.configure(values, good[:-10], lambda number: None)
    answer = run_hook()
    assert answer.words == ["accept", "error"]
    assert "a file of the store is damaged or was cut short" in answer.line
