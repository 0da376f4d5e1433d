"""Replay gives what the independent model gives, row by row."""

import json
import random

import pytest

import fastgrey
from fastgrey import _core, policy
from model import Model, Window
from rules_model import Rules

SETTINGS = {
    "defaults": {},
    "names trusted": {"trust_client_name": True},
    "no shortcuts": {"allow_client_after": 0, "allow_domain_after": 0, "pool_hops": 0},
    "eager": {"delay": 60, "allow_client_after": 1, "pool_hops": 2, "refresh": 0},
    "short lives": {"lifetime": 7200, "retry_window": 1800, "pool_window": 900, "refresh": 60},
    "wide networks": {"ipv4_prefix": 16, "trust_client_name": True, "pool_window": 400_000},
    "learning": {"mode": "learn", "null_sender": "accept"},
}
POLICIES = {
    "clients": {"deny_clients": ["192.0.3", "2001:db8:0:4::/64", "192.0.2.1"],
                "allow_clients": ["192.0.0.0/23", "::ffff:192.0.2.77", "2001:db8:0:5::1"]},
    "names": {"deny_clients": [r"/^mx[02]\.pool\./", "out1.example.org"],
              "allow_clients": ["pool.example.org", r"/-77\.dsl/"]},
    "addresses": {"deny_senders": ["/^srs0=ab[0-4]?[0-9]=/", "anna+x@"],
                  "allow_senders": ["*-1*7@list.*", "@pool.example"]},
    "only some": {"opt_in": ["info@example.net", "*@example.org"], "deny_senders": ["postmaster@"],
                  "allow_senders": ["/^$/", "*+*"], "allow_clients": ["192.0.5"]},
    "not these": {"opt_out": ["/^sales@.*t$/"], "opt_in": ["net"], "allow_clients": ["2001:db8:0:3::/63"]},
}
RULINGS = {"deny": "denied", "allow": "allowed", "opt": "opted-out"}
START = 1_700_000_000
HEADER = b"time\tclient_ip\tclient_name\tsender\trecipient\tlabel\n"


def expected(lines, settings):
    """What the model says of the rows, as replay prints it; the settings may hold rules and windows as well."""
    model = Model(**settings)
    for number, line in enumerate(lines, 1):
        time, client, name, sender, recipient, _ = line.split(b"\t")
        action, reason, wait = model.check(now=int(time), client=client, sender=sender, recipient=recipient,
                                           client_name=name)
        yield {"row": number, "action": action, "reason": reason, "wait": wait}


def assignments(settings):
    """The settings as arguments of the command line."""
    for name, value in settings.items():
        yield "--set"
        yield f"{name}={str(value).lower() if isinstance(value, bool) else value}"


def differences(run_fastgrey, file, settings, *options):
    """Rows in which replay and model differ, and the reasons that came up."""
    done = run_fastgrey("replay", str(file), "--jsonl", *(options or assignments(settings)))
    assert (done.returncode, done.stderr) == (0, "")
    ours = [json.loads(line) for line in done.stdout.splitlines()]
    theirs = list(expected(file.read_bytes().splitlines()[1:], settings))
    assert len(ours) == len(theirs) > 0
    return [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]], {row["reason"] for row in ours}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_real_envelopes(run_fastgrey, envelopes, settings):
    wrong, reasons = differences(run_fastgrey, envelopes, settings)
    assert wrong == []
    assert len(reasons) >= 4


def made_up(seed, rows):
    """Envelopes of pools, lists, named hosts, null senders and nonsense: few of each, so that they meet again."""
    pick = random.Random(seed)
    now = START
    for _ in range(rows):
        now += pick.choice((0, 1, 30, 200, 301, 900, 4000, 90_000)) if pick.random() < 0.97 else pick.choice(
            (-500, -7000, 190_000, 3_200_000))
        octets = pick.randrange(6), pick.choice((1, 77))
        client = pick.choice((f"192.0.{octets[0]}.{octets[1]}", f"2001:db8:0:{octets[0]}::{octets[1]}",
                              f"::ffff:192.0.{octets[0]}.{octets[1]}"))
        if pick.random() < 0.02:
            client = "unknown"
        name = pick.choice(("", f"mx{octets[0]}.pool.example.org", f"out{octets[1]}.example.org", "example.org",
                            f"h-{octets[0]}-{octets[1]}.dsl.example"))
        sender = pick.choice(("<>", f"bounce-{pick.randrange(10**9)}@list.example", "anna@example.org",
                              "anna+x@example.org", "postmaster", "carl@pool.example",
                              f"SRS0=ab{pick.randrange(99)}=3G=e.example=bert@f.example"))
        recipient = pick.choice(("info@example.net", "<Info@Example.net>", "sales@example.net"))
        yield "\t".join((str(now), client, name, sender, recipient, "x")).encode() + b"\n"


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_made_up_envelopes(run_fastgrey, tmp_path, settings, seed):
    file = tmp_path / "envelopes.tsv"
    file.write_bytes(HEADER + b"".join(made_up(seed, 1500)))
    wrong, _ = differences(run_fastgrey, file, settings)
    assert wrong == []


def test_made_up_envelopes_reach_every_reason(run_fastgrey, tmp_path):
    file = tmp_path / "envelopes.tsv"
    seen = set()
    for seed, settings in enumerate(SETTINGS.values()):
        file.write_bytes(HEADER + b"".join(made_up(seed, 1500)))
        seen |= differences(run_fastgrey, file, settings)[1]
    assert seen == {"new", "early", "retry", "pool", "known-client", "known-domain", "known-triplet", "known-pair",
                    "allowed", "learn", "error"}


WINDOWS = [Window(b"info@example.net", b"example", START + 5_000_000),
           Window(b"sales@example.net", b"", START + 2_000_000), Window(b"info@example.net", b"x.example", START)]


def store_with(path, settings, rules):
    """A store with these settings and rules in force and the windows open."""
    values = [assignment for assignment in assignments(settings) if assignment != "--set"]
    fastgrey.create(path, fastgrey.settings.parse_assignments(tuple(values)))
    with fastgrey.open(path) as store:
        policy.put(store, rules)
        for window in WINDOWS:
            _core.open_window(store, window.recipient.decode(), window.domain.decode() or None, START, window.until)


@pytest.mark.parametrize("name", POLICIES)
def test_rules_and_windows_in_their_place(run_fastgrey, tmp_path, name):
    rules, seen = POLICIES[name], set()
    file = tmp_path / "envelopes.tsv"
    file.write_bytes(HEADER + b"".join(made_up(name, 700)))
    for number, settings in enumerate(SETTINGS.values()):
        path = tmp_path / str(number)
        store_with(path, settings, rules)
        wrong, reasons = differences(run_fastgrey, file, settings | {"rules": Rules(rules), "windows": WINDOWS},
                                     "--store", str(path))
        assert wrong == []
        seen |= reasons
    from_rules = {RULINGS[name.partition("_")[0]] for name in rules}
    assert seen >= {"expected", "new", "known-domain"} | from_rules
