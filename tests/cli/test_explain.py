"""fastgrey explain: where a mail is, told in the words and numbers that the hook and the store have."""

import json
import re
import shlex
import time

import pytest

import aging

REQUEST = ("192.0.2.7", "Bounce-4711+x@lists.example.org", "You@example.net")


@pytest.fixture
def explain(run_fastgrey):
    """Run the command for a request; gives its JSON and its text."""

    def run(*arguments):
        as_json, text = (run_fastgrey("explain", *arguments, *option) for option in (["--json"], []))
        assert (as_json.returncode, text.returncode, as_json.stderr, text.stderr) == (0, 0, "", "")
        return json.loads(as_json.stdout), text.stdout

    return run


def step(facts):
    """The step that decided, which is the last one told."""
    (decider,) = [step for step in facts["steps"] if step["decides"]]
    assert decider is facts["steps"][-1]
    assert [step["number"] for step in facts["steps"]] == list(range(1, decider["number"] + 1))
    return decider


def verdict(facts):
    return facts["verdict"]["action"], facts["verdict"]["reason"]


def test_new_then_early_then_known(make_store, path, pending_path, explain, run_hook):
    make_store()
    before = (path / "passed.000001" / "data.mdb").read_bytes(), (path / "stats").read_bytes()
    facts, text = explain(*REQUEST)
    assert ((path / "passed.000001" / "data.mdb").read_bytes(), (path / "stats").read_bytes()) == before
    assert not pending_path.exists()
    assert verdict(facts) == ("defer", "new")
    assert facts["normalised"]["network"] == "192.0.2.0/24"
    assert facts["normalised"]["sender"] == "bounce-#@lists.example.org"
    assert facts["normalised"]["recipient"] == "you@example.net"
    assert "Bounce-4711+x@lists.example.org, keyed as bounce-#@lists.example.org" in text
    assert facts["passes_from"] - facts["now"] == 300

    line = run_hook(client=REQUEST[0], sender=REQUEST[1], recipient=REQUEST[2]).line
    key = re.search(r"key=([0-9a-f]{12})", line)[1]
    assert facts["key"].startswith(key)
    assert f"key        {key}\n" in text
    aging.age(path, pending_path, 120)
    facts, text = explain(*REQUEST)
    assert verdict(facts) == ("defer", "early")
    assert (step(facts)["title"], step(facts)["number"]) == ("pending", 10)
    first = step(facts)["facts"]["triplets"][0]["first"]
    assert 119 <= facts["now"] - first <= 170
    assert facts["verdict"]["wait"] == first + 300 - facts["now"] == facts["passes_from"] - facts["now"]
    assert facts["passes_until"] == first + 2 * 86400
    assert facts["passes_from_date"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(first + 300))
    assert re.search(r"defer early: a retry from \S+ \S+ \(in [23]m( \d+s)?\) until \S+ \S+ \(in 1d 23h\) passes", text)

    aging.age(path, pending_path, 200)
    facts, text = explain(*REQUEST)
    assert verdict(facts) == ("accept", "retry")
    assert run_hook(client=REQUEST[0], sender=REQUEST[1], recipient=REQUEST[2]).words == ["accept", "retry"]
    facts, text = explain(*REQUEST)
    assert verdict(facts) == ("accept", "known-domain")
    (record,) = step(facts)["facts"]["records"]
    assert (record["count"], record["needed"], record["alive"]) == (1, 1, True)
    assert record["expires"] == record["last"] + 36 * 86400
    assert "=>  7 known domain" in text
    assert facts["remedies"] == []


def test_the_commands_it_names_let_the_mail_pass(make_store, path, explain, run_fastgrey, run_hook):
    make_store()
    facts, text = explain("192.0.2.7", "it's@lists.example.org", "you@example.net")
    passing, expecting = facts["remedies"]
    assert f"to let it pass now: {passing}\n" in text
    assert shlex.split(expecting)[:3] == ["fastgrey", "expect", "you@example.net"]
    assert run_fastgrey(*shlex.split(expecting)[1:]).returncode == 0
    answer = run_hook(client="192.0.2.7", sender="it's@lists.example.org", recipient="you@example.net")
    assert answer.words == ["accept", "expected"]
    facts, text = explain("192.0.2.7", "it's@lists.example.org", "you@example.net")
    assert verdict(facts) == ("accept", "expected")
    assert "a window for one sender domain is open since" in text
    run_fastgrey("expect", "you@example.net", "--from", "lists.example.org", "--close")
    assert run_fastgrey(*shlex.split(passing)[1:]).returncode == 0
    answer = run_hook(client="192.0.2.7", sender="it's@lists.example.org", recipient="you@example.net")
    assert answer.words == ["accept", "known-triplet"]


def test_rules(make_store, config, explain, run_fastgrey):
    make_store()
    main = config('deny_senders = [\n  "*%*",\n]\nallow_clients = ["192.0.2"]\nopt_in = ["example.net"]\n'
                  'null_sender = "accept"\n')
    run_fastgrey("apply")
    facts, text = explain("198.51.100.1", "a%b@c.example", "b@example.net")
    assert verdict(facts) == ("reject", "denied")
    assert step(facts)["facts"] == {"list": "deny_senders", "entry": "*%*", "place": f"{main}:2"}
    assert f"deny_senders: *%* ({main}:2)" in text
    assert facts["remedies"] == [f"remove '*%*' at {main}:2, then: fastgrey apply"]
    facts, text = explain("192.0.2.9", "a@c.example", "b@example.net")
    assert (verdict(facts), step(facts)["facts"]["entry"]) == (("accept", "allowed"), "192.0.2")
    facts, text = explain("198.51.100.1", "", "b@example.net")
    assert (verdict(facts), step(facts)["facts"]) == (("accept", "allowed"), {"setting": "null_sender"})
    assert "the null sender, by null_sender = accept" in text
    facts, text = explain("198.51.100.1", "a@c.example", "b@other.example")
    assert verdict(facts) == ("accept", "opted-out")
    assert "the recipient is in none of 1 opt_in rules" in text


def test_a_name_counts_when_it_is_trusted(make_store, explain):
    make_store()
    facts, text = explain(*REQUEST, "--name", "mx1.pool.example.org")
    assert "not trusted, so not used" in text
    assert not facts["normalised"]["name_trusted"]
    facts, text = explain(*REQUEST, "--name", "mx1.pool.example.org", "--trust-name")
    assert facts["normalised"]["parent"] == "pool.example.org"
    assert "by name parent: no record" in text
    assert facts["remedies"][0].endswith("--name mx1.pool.example.org")


def test_what_is_switched_off_and_what_expired(make_store, path, pending_path, explain, run_hook):
    make_store("delay=0s", "allow_client_after=0", "allow_domain_after=9", "pool_hops=0", "retry_window=1h")
    for _ in range(2):
        run_hook()
    facts, text = explain("192.0.2.1", "a@example.org", "b@example.net")
    assert verdict(facts) == ("accept", "known-triplet")
    assert "switched off (allow_client_after = 0)" in text
    assert "1 of 9 promotions, last seen" in text
    aging.age(path, pending_path, 40 * 86400)
    facts, text = explain("192.0.2.1", "a@example.org", "b@example.net")
    assert verdict(facts) == ("defer", "new")
    assert re.search(r"last seen \S+ \S+ \(40d ago\), expired \S+ \S+ \(4d ago\)", " ".join(text.split()))
    assert "switched off (pool_hops = 0)" in text


def test_hops_of_a_pool(make_store, explain, run_hook):
    make_store()
    for client in ("192.0.2.1", "198.51.100.1"):
        run_hook(client=client)
    facts, text = explain("203.0.113.1", "a@example.org", "b@example.net")
    assert step(facts)["facts"]["pair"]["hops"] == 2
    assert "came from 2 of 3 networks since" in " ".join(text.split())


def test_a_request_that_is_none(make_store, explain):
    make_store()
    facts, text = explain("nonsense", "a@b", "c@d")
    assert verdict(facts) == ("accept", "error")
    assert (facts["steps"], facts["key"]) == ([], None)
    assert "accept error: the client address is no IP address" in text


def test_learn_mode(make_store, explain):
    make_store("mode=learn")
    facts, text = explain(*REQUEST)
    assert verdict(facts) == ("accept", "learn")
    assert "it would have to wait, but mode = learn accepts all" in text
