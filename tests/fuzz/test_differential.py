"""The core against the independent model on random and mutated input: normalising, rules, and decisions in sequences.

Each batch follows from its number, which a failure names.
"""

import random
import shutil

import pytest

import fastgrey
import model
import mutation
from effort import times, tried
from fastgrey import _core, policy, rules
from fastgrey.errors import PolicyError
from rules_model import Rules

pytestmark = pytest.mark.torture

BATCH = 1000
START = 1_700_000_000
SETTINGS = {
    "delay": [0, 1, 60, 300, 300], "retry_window": [1800, 7200, 172_800], "lifetime": [3600, 36 * 86_400],
    "refresh": [0, 60, 86_400], "ipv4_prefix": [24, 24, 0, 16, 32, 23], "ipv6_prefix": [64, 64, 0, 48, 128, 33],
    "allow_client_after": [0, 1, 5], "allow_domain_after": [0, 1, 2], "pool_hops": [0, 1, 2, 3],
    "pool_window": [0, 900, 14_400, 400_000], "trust_client_name": [False, True], "null_sender": ["greylist", "accept"],
    "mode": ["enforce", "enforce", "learn"], "on_error": ["accept", "defer"],
}
CLIENT_ENTRIES = ["192.0.2", "192.0.0.0/23", "192.0.3.77", "::ffff:192.0.1.1", "2001:db8:2::/48", "2001:db8:3::1",
                  "2001:db8::/47", "pool.example.org", "example.org", "dsl.example", "/^mx[0-9]+\\./", "/-77\\.dsl/"]
ADDRESS_ENTRIES = ["anna@example.org", "carl+news@list.example", "user@", "+x@", "example.org", "@pool.example", "org",
                   "*-4711-*", "*%*", "bounce-*@*", "*+news*", "carl@", "/^srs0=/", "/[0-9]+@/", "/(^|[.@])example/",
                   "/^$/", "/\\+.*@.*\\.example$/", "caf\u00e9.example", "prvs=*", "/a.*b.*c/"]


def outcome(function, *arguments):
    """What it gives, or that it refuses."""
    try:
        return function(*arguments)
    except ValueError:
        return "refused"


def modelled_client(text, ipv4_prefix, ipv6_prefix):
    exact, network = model.normalise_client(text, ipv4_prefix, ipv6_prefix)
    return (exact.version, exact.network_address.packed, network.network_address.packed)


def modelled_parent(name, text):
    return model.name_parent(name, model.normalise_client(text)[0])


def compare_texts(pick, sender, recipient, client, name):
    """Hold all that is normalised against the model."""
    prefixes = pick.randrange(33), pick.randrange(129)
    for ours, theirs, arguments in (
            (_core.normalise_sender, model.normalise_sender, (sender,)),
            (_core.normalise_recipient, model.normalise_recipient, (recipient,)),
            (_core.normalise_client, modelled_client, (client, *prefixes)),
            (_core.client_name_parent, modelled_parent, (name, client))):
        assert outcome(ours, *arguments) == outcome(theirs, *arguments), (ours.__name__, arguments)


def test_normalising():
    batches = times(12)
    for batch in range(batches):
        pick = random.Random(f"normalising {batch}")
        for _ in range(BATCH):
            compare_texts(pick, mutation.address(pick), mutation.address(pick), mutation.client(pick),
                          mutation.name(pick))
    tried("differential: normalising, made up", cases=batches * BATCH * 4, differences=0)


def rows(file):
    """Client, name, sender and recipient of the real envelopes."""
    return [tuple(line.split(b"\t")[1:5]) for line in file.read_bytes().splitlines()[1:]]


def test_normalising_real_envelopes_mutated(envelopes):
    found, batches = rows(envelopes), times(5)
    for batch in range(batches):
        pick = random.Random(f"real {batch}")
        for client, name, sender, recipient in pick.choices(found, k=BATCH):
            compare_texts(pick, mutation.mutated(pick, sender), mutation.mutated(pick, recipient),
                          mutation.mutated(pick, client, (b":", b".", b"0", b"%")),
                          mutation.mutated(pick, name, (b".", b"0", b"-")))
    tried("differential: normalising, real and mutated", cases=batches * BATCH * 4, differences=0)


def chosen_settings(pick):
    return {name: pick.choice(values) for name, values in SETTINGS.items()}


def stored(chosen):
    """Settings as a store holds them; room enough that no batch fills it."""
    return fastgrey.settings.defaults() | {"pending_size": 1 << 28} | {
        name: fastgrey.settings.BY_NAME[name].parse(str(value).lower()) for name, value in chosen.items()}


def is_entry(name, entry):
    try:
        rules.parse(rules.Rule(name, entry, "test", 1))
    except PolicyError:
        return False
    return True


def chosen_rules(pick):
    """Some of the lists with some entries, of which the odd one is mutated as far as it still is one."""
    lists = {}
    for name in pick.sample(list(rules.LISTS), pick.choice((1, 2, 3, 8))):
        entries = pick.choices(CLIENT_ENTRIES if name.endswith("clients") else ADDRESS_ENTRIES, k=pick.randrange(4))
        for place, entry in enumerate(entries):
            if not entry.startswith("/") and pick.random() < 0.3:
                changed = mutation.mutated(pick, entry.encode()).decode(errors="surrogateescape")
                if not changed.startswith("/") and is_entry(name, changed) and not changed.isspace():
                    entries[place] = changed
        lists[name] = entries
    return lists


def made_up_request(pick):
    sender = pick.choice((b"<>", b"")) if pick.random() < 0.1 else mutation.address(pick)
    return {"client": mutation.client(pick), "client_name": mutation.name(pick), "sender": sender,
            "recipient": mutation.address(pick), "name_trusted": pick.choice((None, None, True, False)),
            "relay": pick.random() < 0.01}


def compare(store, theirs, now, request, where, **options):
    """One request; gives the reason."""
    verdict = tuple(store.check(**request, now=now, **options)[:3])
    expected = theirs.check(now=now, **request)
    assert verdict == expected, (where, now, request)
    return verdict[1]


def test_rules(in_memory):
    """Each batch has rules of its own; nothing is recorded, so a verdict follows from them alone."""
    batches, reasons, cases = times(40), set(), 200
    fastgrey.create(in_memory / "store")
    with fastgrey.open(in_memory / "store") as store:
        for batch in range(batches):
            pick = random.Random(f"rules {batch}")
            chosen, lists = chosen_settings(pick), chosen_rules(pick)
            policy.put(store, lists, stored(chosen))
            compiled = Rules(lists)
            for _ in range(cases):
                theirs = model.Model(rules=compiled, **chosen)
                reasons.add(compare(store, theirs, START, made_up_request(pick), (batch, chosen, lists), dry_run=True))
    assert reasons >= {"denied", "allowed", "opted-out", "new", "error", "relay"}
    tried("differential: rules", policies=batches, cases=batches * cases, differences=0)


def sequence(pick, found):
    """Times and requests that meet again: few of each kind, some mutated, sometimes one of before once more."""
    now = START
    few = [made_up_request(pick) for _ in range(60)]
    if found:
        few += [dict(zip(("client", "client_name", "sender", "recipient"), row, strict=True))
                for row in pick.choices(found, k=30)]
    for _ in range(BATCH):
        now += pick.choice((0, 1, 30, 200, 301, 900, 4000, 90_000)) if pick.random() < 0.97 else pick.choice(
            (-500, -7000, 190_000, 3_200_000))
        request = dict(pick.choice(few))
        if pick.random() < 0.3:
            part = pick.choice(("client", "client_name", "sender", "recipient"))
            request[part] = pick.choice(few)[part]
        if pick.random() < 0.1:
            part = pick.choice(("client", "client_name", "sender", "recipient"))
            request[part] = mutation.mutated(pick, request[part])
        yield now, request


def compare_sequences(in_memory, name, batches, found):
    """Whole decisions, each batch on an empty store of its own; gives the reasons."""
    seen = set()
    for batch in range(batches):
        pick = random.Random(f"{name} {batch}")
        chosen, lists = chosen_settings(pick), chosen_rules(pick) if pick.random() < 0.3 else {}
        path = in_memory / str(batch)
        fastgrey.create(path, stored(chosen))
        store = fastgrey.Store(str(path), throw_away=True)
        try:
            policy.put(store, lists, stored(chosen))
            theirs = model.Model(rules=Rules(lists), **chosen)
            for now, request in sequence(pick, found):
                seen.add(compare(store, theirs, now, request, (name, batch, chosen, lists)))
        finally:
            store.close()
            shutil.rmtree(path)
    tried(f"differential: decisions, {name}", sequences=batches, cases=batches * BATCH, differences=0)
    return seen


def test_sequences(in_memory):
    seen = compare_sequences(in_memory, "made up", times(40), None)
    assert seen >= {"new", "early", "retry", "pool", "known-client", "known-domain", "known-triplet", "known-pair",
                    "allowed", "denied", "opted-out", "learn", "error", "relay"}


def test_sequences_of_real_envelopes_mutated(in_memory, envelopes):
    seen = compare_sequences(in_memory, "real and mutated", times(12), rows(envelopes))
    assert seen >= {"new", "early", "retry", "known-domain"}
