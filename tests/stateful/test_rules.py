"""The rule lists against the independent model: entries of every kind, alone, together, by thousands, set after set."""

import ipaddress
import itertools
import random
import subprocess

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fastgrey
from conftest import HOOK
from fastgrey import _core, policy
from fastgrey.errors import PolicyError
from model import Model
from rule_strategies import entries_of, requests
from rules_model import LISTS, Rules, file_entries

NOW = 1_700_000_000
CHOICES = {"trust_client_name": [False, True], "null_sender": ["greylist", "accept"], "mode": ["enforce", "learn"]}
SETTINGS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in CHOICES.items()})
RULINGS = {"denied", "allowed", "opted-out"}
REQUEST = {"client": b"192.0.2.1", "sender": b"a@example.org", "recipient": b"b@example.net"}
many_requests = st.lists(requests(), min_size=1, max_size=15)
several = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all examples: nothing but its rules and settings ever changes."""
    with new_store(tmp_path_factory) as opened:
        yield opened


@pytest.fixture(scope="module")
def recording_store(tmp_path_factory):
    """Another, because the executable records what it sees."""
    with new_store(tmp_path_factory) as opened:
        yield opened


def new_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("rules") / "store"
    fastgrey.create(path)
    return fastgrey.open(path)


def numbers(chosen):
    """Settings as a store holds them."""
    return fastgrey.settings.defaults() | {
        name: fastgrey.settings.BY_NAME[name].parse(str(value).lower()) for name, value in chosen.items()}


def put(store, rules, chosen=None):
    """Put rules and settings in force; gives what the model makes of a request under them."""
    policy.put(store, rules, numbers(chosen or {}))
    lists = Rules(rules)
    return lambda request: Model(rules=lists, **chosen or {}).check(now=NOW, **request)


def answer(store, request):
    """What a check says; an explanation has to say the same."""
    verdict = store.check(**request, now=NOW, dry_run=True)[:3]
    told = _core.explain(store, **request, now=NOW)["verdict"]
    assert (told["action"], told["reason"], told["wait"]) == verdict
    return tuple(verdict)


def compare(store, rules, chosen, asked):
    """Put rules in force and hold every answer against the model's."""
    expected = put(store, rules, chosen)
    for request in asked:
        assert answer(store, request) == expected(request), (rules, request)


def lists_of(names, most):
    """Some of the lists, each with a few entries."""
    return st.fixed_dictionaries({}, optional={name: st.lists(entries_of(name), max_size=most) for name in names})


@several
@given(st.lists(entries_of("deny_clients"), min_size=1, max_size=3), many_requests, SETTINGS)
def test_clients(store, entries, asked, chosen):
    compare(store, {"deny_clients": entries}, chosen, asked)


@several
@given(st.sampled_from(LISTS[1:3] + LISTS[4:]), st.lists(entries_of("deny_senders"), min_size=1, max_size=2),
       many_requests)
def test_senders_and_recipients(store, name, entries, asked):
    compare(store, {name: entries}, {}, asked)


@several
@given(lists_of(LISTS, 3), many_requests, SETTINGS)
@example({name: [] for name in LISTS}, [REQUEST], {})
def test_all_lists_at_once(store, rules, asked, chosen):
    compare(store, rules, chosen, asked)


@several
@given(lists_of(LISTS, 2), lists_of(LISTS, 2), many_requests)
def test_only_the_last_rules_count(store, before, after, asked):
    put(store, before)
    for rules in (after, {}, before):
        compare(store, rules, {}, asked)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(lists_of(LISTS, 2), st.lists(requests(), min_size=1, max_size=4), SETTINGS)
def test_the_executable_says_the_same(recording_store, rules, asked, chosen):
    """What it finds beyond the rules depends on what it has seen before, and is not compared."""
    expected = put(recording_store, rules, chosen)
    for request in asked:
        request = request | {"name_trusted": None}
        environment = {"FASTGREY_STORE": recording_store.path, "TCPREMOTEIP": request["client"],
                       "TCPREMOTEHOST": request["client_name"]}
        done = subprocess.run([HOOK, request["sender"], request["recipient"]], env=environment, capture_output=True,
                              timeout=60)
        action, reason = done.stderr.decode("ascii").split()[1:3]
        if {reason, expected(request)[1]} & RULINGS:
            assert (action, reason) == expected(request)[:2]


# Where a description is easily read otherwise, written out by hand.
@pytest.mark.parametrize(("name", "entry", "part", "ruling"), [
    # Perl notation in classes, and POSIX classes, which the model does not know.
    ("deny_clients", r"/^[\w-]+\d\.example\.org$/", {"client_name": "mx-a_1.example.org"}, "denied"),
    ("deny_clients", r"/^[\d.]+$/", {"client_name": "1.2"}, "denied"),
    ("deny_clients", "/^[[:alpha:]]+$/", {"client_name": "MAIL"}, "denied"),
    ("deny_senders", "/a/b/", {"sender": "a/b@example.org"}, "denied"),
    ("deny_senders", "/ /", {"sender": "a b@example.org"}, "denied"),
    ("deny_senders", "/^.{5}$/", {"sender": b"\xc3\xa9\xff@x"}, "denied"),
    ("deny_senders", "/CAF\u00c9/", {"sender": "CAF\u00c9@example.org"}, "denied"),
    # Long: the longest address there is, and each end of it.
    ("deny_senders", "/^x.*y@example.org$/", {"sender": "x" + "z" * 986 + "y@example.org"}, "denied"),
    ("deny_senders", "x*y@*", {"sender": "x" + "z" * 986 + "y@example.org"}, "denied"),
    ("deny_senders", "x" * 900 + "@example.org", {"sender": "x" * 900 + "+y@example.org"}, "denied"),
    ("opt_in", "*@example.net", {"recipient": "x" * 988 + "@example.net"}, None),
    ("deny_clients", "/^x+$/", {"client_name": "X" * 1000}, "denied"),
    ("deny_clients", "/^x+$/", {"client_name": "X" * 1001}, None),
    # A name is no address, and an IPv6 network holds no IPv4 client.
    ("deny_clients", "10.20.30.40", {"client_name": "10.20.30.40"}, None),
    ("deny_clients", "::/0", {"client": "::ffff:192.0.2.1"}, None),
    ("deny_clients", "0.0.0.0/0", {"client": "::ffff:192.0.2.1"}, "denied"),
    ("deny_clients", "2001:db8::1", {"client": "2001:db8::2"}, None),
])
def test_examples(store, name, entry, part, ruling):
    policy.put(store, {name: [entry]}, numbers({}))
    verdict = store.check(**REQUEST | part, name_trusted=True, now=NOW, dry_run=True)
    assert verdict.reason == (ruling or "new")


FILES = {
    "allow_clients": b"# ours\r\n\r\n  10.20. # two octets\r\n\t/^mx\\d+\\./ \t\n2001:db8::/33#none\n#\n"
                     b" \t\n192.0.2.1\n x.Example",
    "deny_senders": b"caf\xe9@example.org # Latin-1\ncaf\xc3\xa9@\n#a@example.org\n *%* \n\n/a\\s+b@/\n@example.net",
}


def test_files_hold_one_entry_a_line(make_store, config, run_fastgrey, tmp_path):
    make_store("trust_client_name=true")
    config("trust_client_name = true\n" + "".join(f'{name} = [{{ file = "{name}" }}]\n' for name in FILES))
    for name, text in FILES.items():
        (tmp_path / "etc" / name).write_bytes(text)
    assert run_fastgrey("apply").returncode == 0
    lists = Rules({name: file_entries(text) for name, text in FILES.items()})
    clients = [b"10.20.1.1", b"10.21.1.1", b"2001:db8::1", b"2001:db8:8000::", b"192.0.2.1"]
    names = [b"", b"mx1.example", b"mxx.example", b"a.x.example"]
    senders = [b"caf\xe9@example.org", b"caf\xc3\xa9@x", b"a@example.org", b"a%b@c", b"a  b@c", b"a@x.example.net"]
    with fastgrey.open(tmp_path / "store") as opened:
        for client, name, sender in itertools.product(clients, names, senders):
            request = {"client": client, "client_name": name, "sender": sender, "recipient": b"b@c"}
            assert answer(opened, request) == Model(rules=lists, trust_client_name=True).check(now=NOW, **request)


@pytest.mark.parametrize("entry", ["user name@x", "/unclosed", "/(/", "/[a/", "/a{2,1}/", "/a{1,99999}/", "//", "@"])
@pytest.mark.parametrize("name", ["deny_senders", "allow_recipients", "opt_out", "opt_in"])
def test_a_bad_address_is_refused(store, name, entry):
    refused(store, name, entry)


@pytest.mark.parametrize("entry", [
    "10.20.300", "256", "1.2.3.4.5", "1..2", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/x", "::1/129", "::1/",
    ":::", "2001:db8::g", "mail example.org", "/unclosed", "/(/", "/a{1,99999}/", "//",
])
@pytest.mark.parametrize("name", ["deny_clients", "allow_clients"])
def test_a_bad_client_is_refused(store, name, entry):
    refused(store, name, entry)


def refused(store, name, entry):
    """The whole is refused in one line, and rules and settings stay what they were."""
    put(store, {"deny_senders": ["example.org"]}, {"delay": 60})
    other = REQUEST | {"sender": b"a@other.example"}
    rules = {"allow_senders": ["example.org"], "deny_recipients": ["b@example.net"]}
    rules[name] = ["192.0.2.1" if name.endswith("_clients") else "b@example.net", entry]
    with pytest.raises(PolicyError) as caught:
        policy.put(store, rules, numbers({"delay": 120}))
    text = str(caught.value)
    assert name in text
    assert text.isprintable()
    assert answer(store, REQUEST) == ("reject", "denied", 0)
    assert answer(store, other) == ("defer", "new", 60)


class Thousands:
    """Entries and requests by chance, from a world so large that most meet only where one was made of the other."""

    WORDS = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "ar", "en", "il", "os")]

    def __init__(self, seed):
        self.pick = random.Random(seed)

    def domain(self):
        return ".".join(self.pick.choice(self.WORDS) for _ in range(self.pick.choice((2, 3, 3, 4))))

    def user(self):
        extension = "+" + self.pick.choice(self.WORDS) if self.pick.random() < 0.2 else ""
        return f"{self.pick.choice(self.WORDS)}{self.pick.randrange(200)}{extension}"

    def address(self):
        if self.pick.random() < 0.6:
            return ipaddress.IPv4Address(self.pick.getrandbits(32))
        return ipaddress.IPv6Address((0x20010DB8 << 96) + self.pick.getrandbits(96))

    def client_entry(self):
        kind = self.pick.randrange(3)
        if kind == 0:
            return self.domain()
        address = self.address()
        if kind == 1:
            return str(address)
        return f"{address}/{self.pick.randrange(12 if address.version == 4 else 40, address.max_prefixlen + 1)}"

    def address_entry(self):
        domain = self.domain()
        return self.pick.choice((f"{self.user()}@{domain}", f"{self.user()}@{domain}", domain, f"@{domain}"))

    def lists(self, names, total):
        return {name: [self.client_entry() if name.endswith("_clients") else self.address_entry()
                       for _ in range(total // len(names))] for name in names}

    def near_client(self, entry):
        """A request that the entry covers, or nearly."""
        if not entry[0].isdigit() or entry[-1].isalpha() and ":" not in entry:
            return {"client_name": self.near_domain(entry)}
        network = ipaddress.ip_network(entry, strict=False)
        number = int(network.network_address) ^ self.pick.getrandbits(network.max_prefixlen - network.prefixlen)
        if network.prefixlen and self.pick.random() < 0.2:
            number ^= 1 << (network.max_prefixlen - network.prefixlen)
        return {"client": str(type(network.network_address)(number))}

    def near_domain(self, domain):
        return self.pick.choice((domain, domain, self.pick.choice(self.WORDS) + "." + domain, "x" + domain,
                                 domain.partition(".")[2], domain + ".net"))

    def near_address(self, entry):
        user, _, domain = entry.rpartition("@")
        user = self.pick.choice((user, user + "+x", user.partition("+")[0], "x" + user)) if user else self.user()
        return f"{user}@{self.near_domain(domain)}"

    def request(self, rules):
        """Each part near an entry of some list, or anything."""
        request = {"client": str(self.address()), "client_name": self.domain(),
                   "name_trusted": self.pick.random() < 0.8, "sender": f"{self.user()}@{self.domain()}",
                   "recipient": f"{self.user()}@{self.domain()}"}
        lists = self.pick.sample(list(rules), self.pick.choice((0, 1, 1, 2)))
        for name in lists:
            entry = self.pick.choice(rules[name])
            if name.endswith("_clients"):
                request |= self.near_client(entry)
            else:
                request["sender" if name.endswith("_senders") else "recipient"] = self.near_address(entry)
        return {part: value.encode() if isinstance(value, str) else value for part, value in request.items()}


@pytest.mark.parametrize("without", ["opt_in", "opt_out"])
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_entries(store, seed, without):
    chance = Thousands(seed)
    rules = chance.lists([name for name in LISTS if name != without], 10_000)
    expected = put(store, rules)
    seen = set()
    for _ in range(1500):
        request = chance.request(rules)
        verdict = answer(store, request)
        assert verdict == expected(request), request
        seen.add(verdict[1])
    assert seen == RULINGS | {"new"}
