"""Which client the executable takes from its environment (docs/decision.md, "From the environment")."""

import pytest

from conftest import HOOK
from raw_exec import raw_exec

V4, V6, OTHER = "192.0.2.1", "2001:db8::1", "2001:db8:ffff::1"


def shown(result):
    return result.line.partition(" client=")[2].partition(" ")[0]


@pytest.mark.parametrize(("variables", "client"), [
    ({"PROTO": "TCP", "TCPREMOTEIP": V4}, V4),
    ({"TCPREMOTEIP": V4}, V4),
    ({"TCPREMOTEIP": V6}, V6),
    ({"TCP6REMOTEIP": V6}, V6),
    ({"PROTO": "TCP6", "TCP6REMOTEIP": V6}, V6),
    ({"PROTO": "TCP6", "TCPREMOTEIP": V6}, V6),
    ({"PROTO": "TCP", "TCP6REMOTEIP": V6}, V6),
    # Two that contradict each other: one is left from a server further up.
    ({"PROTO": "TCP", "TCPREMOTEIP": V4, "TCP6REMOTEIP": OTHER}, V4),
    ({"PROTO": "TCP6", "TCPREMOTEIP": "203.0.113.9", "TCP6REMOTEIP": V6}, V6),
    ({"PROTO": "SSL", "TCPREMOTEIP": V4, "TCP6REMOTEIP": OTHER}, V4),
    ({"PROTO": "TCP66", "TCPREMOTEIP": V4, "TCP6REMOTEIP": OTHER}, V4),
    ({"PROTO": "", "TCPREMOTEIP": V4, "TCP6REMOTEIP": OTHER}, V4),
    ({"TCPREMOTEIP": V4, "TCP6REMOTEIP": OTHER}, V4),
    # What is no address counts as missing.
    ({"PROTO": "TCP6", "TCPREMOTEIP": V4, "TCP6REMOTEIP": ""}, V4),
    ({"PROTO": "TCP6", "TCPREMOTEIP": V4, "TCP6REMOTEIP": "unknown"}, V4),
    ({"PROTO": "TCP", "TCPREMOTEIP": "", "TCP6REMOTEIP": V6}, V6),
    ({"PROTO": "TCP", "TCPREMOTEIP": "192.0.2", "TCP6REMOTEIP": V6}, V6),
    ({"TCPREMOTEIP": "%eth0", "TCP6REMOTEIP": V6}, V6),
    ({"TCPREMOTEIP": "fe80::1%eth0"}, "fe80::1%eth0"),
    ({"TCPREMOTEIPX": OTHER, "TCPREMOTEIP": V4, "XTCPREMOTEIP": OTHER}, V4),
])
def test_client(make_store, run_hook, variables, client):
    make_store()
    result = run_hook(client=None, env=variables)
    assert result.words == ["defer", "new"]
    assert shown(result) == client


@pytest.mark.parametrize("variables", [
    {}, {"PROTO": "TCP6"}, {"TCPREMOTEIP": ""}, {"TCPREMOTEIP": "", "TCP6REMOTEIP": ""},
    {"TCPREMOTEIP": "::ffff:1.2.3"},
    {"PROTO": "TCP6", "TCP6REMOTEIP": "x", "TCPREMOTEIP": "y"},
])
def test_no_client(make_store, run_hook, variables):
    make_store()
    result = run_hook(client=None, env=variables)
    assert result.words == ["accept", "error"]
    assert "no IP address" in result.line


@pytest.mark.parametrize(("one", "other"), [
    (V4, "::ffff:192.0.2.1"), (V4, "::FFFF:c000:0201"), (V6, "2001:DB8:0:0::1"), (V6, "2001:db8::2%eth0"),
    (V4, "::ffff:192.0.2.77%lo"),
])
def test_spellings_of_one_network(make_store, run_hook, one, other):
    make_store()
    assert run_hook(client=one).words == ["defer", "new"]
    assert run_hook(client=other).words == ["defer", "early"]


def test_of_two_entries_the_first_counts(make_store, path, tmp_path):
    """As for getenv and for qmail itself."""
    make_store()
    done = raw_exec(HOOK, [HOOK, "a@example.org", "b@example.net"], [
        "PROTO=TCP", "PROTO=TCP6", f"TCPREMOTEIP={V4}", "TCPREMOTEIP=203.0.113.9", f"TCP6REMOTEIP={V6}",
        f"TCP6REMOTEIP={OTHER}", f"FASTGREY_STORE={path}", f"FASTGREY_STORE={tmp_path}/nowhere",
    ])
    assert done.returncode == 111
    assert f" client={V4} ".encode() in done.stderr


@pytest.mark.parametrize(("trust", "variables", "words"), [
    ("true", {"TCPREMOTEHOST": "MX.example.org."}, ["accept", "allowed"]),
    ("false", {"TCPREMOTEHOST": "mx.example.org"}, ["defer", "new"]),
    ("true", {}, ["defer", "new"]),
    ("true", {"TCPREMOTEHOST": ""}, ["defer", "new"]),
    # tcpserver -p takes TCPREMOTEHOST away; a name left in another variable was confirmed by nobody.
    ("true", {"PROTO": "TCP6", "TCP6REMOTEHOST": "mx.example.org"}, ["defer", "new"]),
])
def test_name(make_store, config, run_fastgrey, run_hook, trust, variables, words):
    make_store()
    config(f'trust_client_name = {trust}\nallow_clients = ["mx.example.org"]')
    assert run_fastgrey("apply").returncode == 0
    assert run_hook(env=variables).words == words
