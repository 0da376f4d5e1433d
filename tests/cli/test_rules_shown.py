"""Rules and windows in list, stats and Prometheus: what decided, how often, and what never did."""

import json

import pytest


@pytest.fixture
def ruled(make_store, config, run_fastgrey, run_hook):
    """A store with four rules, of which two decided, one of them twice; and two open windows."""
    make_store()
    main = config('deny_senders = ["bad.example", "never.example"]\nopt_out = ["*@out.example", "b@out.example"]\n')
    assert run_fastgrey("apply").returncode == 0
    for sender, recipient in (("a@bad.example", "b@example.net"), ("a@x.example", "a@out.example"),
                              ("c@x.example", "a@out.example"), ("a@x.example", "b@example.net")):
        run_hook(sender=sender, recipient=recipient)
    run_fastgrey("expect", "late@example.net", "--for", "20m")
    run_fastgrey("expect", "soon@example.net", "--from", "x.example", "--for", "10m")
    return main


def test_list_rules(ruled, run_fastgrey):
    listed = json.loads(run_fastgrey("list", "rules", "--json").stdout)
    assert listed == {"what": "rules", "left_out": 0, "records": [
        {"list": "deny_senders", "entry": "bad.example", "place": f"{ruled}:1", "hits": 1},
        {"list": "deny_senders", "entry": "never.example", "place": f"{ruled}:1", "hits": 0},
        {"list": "opt_out", "entry": "*@out.example", "place": f"{ruled}:2", "hits": 2},
        {"list": "opt_out", "entry": "b@out.example", "place": f"{ruled}:2", "hits": 0}]}
    done = run_fastgrey("list", "rules", "--sort", "count", "--limit", "2")
    assert [line.split()[1:3] for line in done.stdout.splitlines()[1:]] == [
        ["*@out.example", "2"], ["bad.example", "1"]]
    assert done.stderr == "2 left out; --limit 0 shows all\n"
    done = run_fastgrey("list", "rules", "--sort", "seen")
    assert (done.returncode, done.stderr) == (2, "fastgrey: --sort seen: rules have none; there are count, key\n")


def test_list_windows(ruled, run_fastgrey):
    rows = [line.split() for line in run_fastgrey("list", "windows").stdout.splitlines()]
    assert [row[1:4] for row in rows[1:]] == [["one", "sender", "domain"], ["any", "sender", rows[2][3]]]
    long = json.loads(run_fastgrey("list", "windows", "--long", "--sort", "seen", "--json").stdout)["records"]
    assert [window["one_domain"] for window in long] in ([True, False], [False, True])
    assert {window["key"][:12] for window in long} == {row[0] for row in rows[1:]}


def test_overview(ruled, run_fastgrey):
    facts = json.loads(run_fastgrey("list", "--json").stdout)
    assert facts["rules"] == {"deny_senders": {"rules": 2, "hits": 1, "never_hit": 1},
                              "opt_out": {"rules": 2, "hits": 2, "never_hit": 1}}
    assert facts["windows"]["open"] == 2
    assert facts["windows"]["next_closes"] == json.loads(
        run_fastgrey("expect", "--list", "--json").stdout)[0]["until"]
    text = run_fastgrey("list").stdout
    assert "windows open: 2, the next closes " in text
    assert ["deny_senders", "2", "1", "1"] in [line.split() for line in text.splitlines()]


def test_stats(ruled, run_fastgrey):
    facts = json.loads(run_fastgrey("stats", "--json").stdout)
    assert [(rule["entry"], rule["hits"]) for rule in facts["rules"]] == [
        ("*@out.example", 2), ("bad.example", 1), ("never.example", 0), ("b@out.example", 0)]
    assert facts["policy"]["number"] == 1
    text = run_fastgrey("stats").stdout
    assert f"opt_out: *@out.example ({ruled}:2)" in text
    assert "2 of 4 rules; fastgrey list rules" in text


def test_prometheus(ruled, path, run_fastgrey):
    lines = run_fastgrey("stats", "--prometheus").stdout.splitlines()
    for name, numbers in (("rules", (2, 2)), ("rules_never_hit", (1, 1)), ("rule_hits_total", (2, 1))):
        for of, number in zip(("opt_out", "deny_senders"), numbers, strict=True):
            assert f'fastgrey_{name}{{store="{path}",list="{of}"}} {number}' in lines
