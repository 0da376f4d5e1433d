"""list, show, forget and pass: the real commands on what the real hook left, and what the hook says afterwards."""

import json
import re
import time

import lmdb
import pytest

import aging
import fastgrey
from fastgrey import listing, overview, records

REQUEST = ("192.0.2.1", "a@example.org", "b@example.net")
KINDS = ("client", "domain", "triplet", "pair")


@pytest.fixture
def said(run_fastgrey):
    """Run a command that is to fail with this status; its one line."""

    def run(status, *arguments):
        done = run_fastgrey(*arguments)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("fastgrey: ")
        assert done.stderr.count("\n") == 1
        return done.stderr

    return run


@pytest.fixture
def answer(run_fastgrey):
    """Run a command with --json; what it gave."""

    def run(*arguments):
        done = run_fastgrey(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def printed(run_fastgrey):
    """Run a command; the lines it printed."""

    def run(*arguments, **options):
        done = run_fastgrey(*arguments, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.fixture
def promote(run_hook, path, pending_path):
    """Let the hook defer a request and, when it is old enough, promote it; the key of its log line."""

    def run(**request):
        assert run_hook(**request).words == ["defer", "new"]
        aging.age(path, pending_path, 400)
        done = run_hook(**request)
        assert done.words == ["accept", "retry"]
        return key_of(done)

    return run


def key_of(done):
    """The short key of a log line."""
    return re.search(r" key=([0-9a-f]{12})$", done.line.strip())[1]


def known(path, kind):
    """Time and promotions of the records of a kind by key, as another LMDB reads them."""
    return {key.hex(): aging.unpack(value)
            for key, value in aging.records(path / (path / "current").readlink())[kind].items()}


def pending(pending_path):
    """The same of pending, whatever the partition."""
    return {key.hex(): aging.unpack(value) for partition in aging.records(pending_path).values()
            for key, value in partition.items()}


def everything(path, pending_path):
    """Every byte of the records, in force and pending."""
    return [(place / "data.mdb").read_bytes() for place in (path / (path / "current").readlink(), pending_path)]


def put_known(path, kind, entries):
    """Write records behind the program's back: keys in hex, times and promotions."""
    with lmdb.open(str(path / (path / "current").readlink()), max_dbs=8, map_size=1 << 28) as environment:
        handle = environment.open_db(kind.encode())
        with environment.begin(db=handle, write=True) as txn:
            for key, (seen, count) in entries.items():
                txn.put(bytes.fromhex(key), aging.pack(seen, count))


def local(utc):
    """A time of JSON as the text has it, where local time is UTC."""
    return utc.replace("T", " ").replace("Z", "+0000")


def test_show_while_waiting_and_after_promotion(make_store, run_hook, answer, path, pending_path):
    make_store("pool_hops=3")
    key = key_of(run_hook())
    (waiting,) = answer("show", key)["records"]
    assert (waiting["where"], waiting["kind"], waiting["key"][:12]) == ("pending", "triplet", key)
    assert (waiting["state"], waiting["lets_pass"], waiting["passed"]) == ("waits", False, False)
    (stored, pair) = sorted(pending(pending_path), key=lambda name: pending(pending_path)[name][1])
    assert stored == waiting["pair"] + waiting["key"]
    (hops,) = answer("show", pair)["records"]
    assert (hops["kind"], hops["hops"], hops["state"]) == ("pair", 1, "1 of 3 hops")
    aging.age(path, pending_path, 400)
    (waiting,) = answer("show", key.upper())["records"]
    assert (waiting["state"], waiting["lets_pass"]) == ("a retry passes now", True)
    assert 400 <= waiting["age"] <= 410
    assert key_of(run_hook()) == key
    triplet, waiting = answer("show", key)["records"]
    assert (triplet["where"], triplet["kind"], triplet["promotions"], triplet["alive"]) == ("known", "triplet", 1, True)
    assert [triplet["key"]] == list(known(path, "triplet"))
    assert (waiting["where"], waiting["passed"], waiting["state"]) == ("pending", True, "known by now")
    aging.age(path, pending_path, 37 * 86_400)
    triplet, waiting = answer("show", triplet["key"])["records"]
    assert [(record["alive"], record["state"]) for record in (triplet, waiting)] == [(False, "expired")] * 2


def test_show_says_the_same_in_text_and_json(make_store, promote, run_hook, answer, printed):
    make_store()
    key = promote()
    run_hook(sender="new@other.example")
    facts = answer("show", key)["records"]
    text = "\n".join(printed("show", key, env={"TZ": "UTC0"}))
    assert len(facts) == 2
    for fact in facts:
        assert f"{fact['where']} {fact['kind']} {fact['key']}\n" in text
        assert fact["state"] in text
        for name in ("last_seen", "first_seen", "passes_from", "expires"):
            if name in fact:
                assert local(fact[name]) in text
    assert "promotions  1\n" in text
    assert "(in 3" in text


def test_show_and_what_does_not_let_mail_pass(make_store, promote, answer, run_fastgrey):
    make_store("allow_client_after=3", "allow_domain_after=2")
    promote()
    states = {kind: answer("list", f"{kind}s")["records"][0]["state"] for kind in ("client", "domain", "triplet")}
    assert states == {"client": "1 of 3 promotions", "domain": "1 of 2 promotions", "triplet": "its mail passes"}
    run_fastgrey("init", "--set", "allow_domain_after=0")
    (domain,) = answer("list", "domains")["records"]
    assert (domain["lets_pass"], domain["state"]) == (False, "counts for nothing: allow_domain_after is 0")


def test_show_finds_nothing(make_store, promote, said):
    make_store()
    key = promote()
    line = said(1, "show", f"{(int(key, 16) + 1) % (1 << 48):012x}")
    assert "may have expired" in line
    assert "a rule" in line


@pytest.mark.parametrize("key", ["123", "xyzw", "", "0" * 33, "12 34", "12345g"])
def test_show_wants_a_key(make_store, said, key):
    make_store()
    assert "hex digits" in said(2, "show", key)


def test_prefix_of_an_odd_number_of_digits(make_store, answer, said, path):
    make_store()
    keys = [f"{digits}{'5' * 26}" for digits in ("abcde0", "abcdef", "abcdf0")]
    put_known(path, "client", {key: (int(time.time()), 1) for key in keys})
    assert [record["key"] for record in answer("show", "abcde")["records"]] == keys[:2]
    assert [record["key"] for record in answer("show", "abcd")["records"]] == keys
    assert [record["key"] for record in answer("show", keys[1])["records"]] == keys[1:2]
    said(1, "show", "abcdd")


def test_forget_makes_a_stranger_of_a_request(make_store, promote, run_hook, printed, said, path, pending_path):
    make_store("pool_hops=3")
    key = promote()
    assert run_hook(recipient="c@example.net").words == ["accept", "known-domain"]
    lines = printed("forget", *REQUEST)
    assert [" ".join(line.split()[:3]) for line in lines] == [
        "forgot known client", "forgot known domain", "forgot known triplet", "forgot pending triplet",
        "forgot pending pair"]
    assert f"known triplet {key} (192.0.2.0/24 a@example.org b@example.net): promotions 1, last seen" in lines[2]
    assert all(known(path, kind) == {} for kind in KINDS)
    assert pending(pending_path) == {}
    assert "nothing to forget" in said(1, "forget", *REQUEST)
    assert run_hook().words == ["defer", "new"]


def test_forget_after_a_pool(make_store, run_hook, answer, path, pending_path):
    make_store("pool_hops=2")
    run_hook()
    aging.age(path, pending_path, 400)
    assert run_hook(client="198.51.100.1").words == ["accept", "pool"]
    assert run_hook(client="203.0.113.1").words == ["accept", "known-pair"]
    gone = answer("forget", "-", *REQUEST[1:])["forgotten"]
    assert [(one["where"], one["kind"], one["what"]) for one in gone] == [
        ("known", "pair", "a@example.org b@example.net"), ("pending", "pair", "a@example.org b@example.net")]
    assert (gone[0]["promotions"], gone[1]["hops"]) == (1, 2)
    assert run_hook(client="203.0.113.1").words == ["defer", "new"]


@pytest.mark.parametrize(("arguments", "gone"), [
    (["192.0.2.1"], {"client"}), (["192.0.2.1", "x@EXAMPLE.org"], {"client", "domain"}),
    (["192.0.2.99", "@example.org"], {"domain"}), (["192.0.2.1", "@example.org", "--only", "domain"], {"domain"}),
    ([*REQUEST, "--only", "triplet"], {"triplet"}), ([*REQUEST, "--only", "client", "--only", "pair"], {"client"}),
    (["192.0.2.1", ""], {"client"}),
])
def test_forget_takes_what_the_parts_determine(make_store, promote, printed, path, arguments, gone):
    make_store("pool_hops=0")
    promote()
    printed("forget", *arguments)
    assert {kind for kind in ("client", "domain", "triplet") if not known(path, kind)} == gone


def test_forget_with_a_name(make_store, run_hook, promote, printed, path, run_fastgrey):
    make_store("trust_client_name=true", "pool_hops=0")
    named = {"TCPREMOTEHOST": "mx1.pool.example"}
    promote(env=named)
    assert [len(known(path, kind)) for kind in ("client", "domain", "triplet")] == [1, 2, 2]
    printed("forget", *REQUEST)
    assert [len(known(path, kind)) for kind in ("client", "domain", "triplet")] == [0, 1, 1]
    assert run_hook(env=named).words == ["accept", "known-domain"]
    lines = printed("forget", *REQUEST, "--name", "MX7.pool.example.")
    assert sum("*.pool.example" in line for line in lines) == 3
    assert run_hook(env=named).words == ["defer", "new"]
    done = run_fastgrey("forget", *REQUEST, "--name", "pool.example", "--dry-run")
    assert "fewer than three labels" in done.stderr


def test_forget_by_key(make_store, promote, run_hook, printed, said, path, pending_path):
    make_store("pool_hops=0", "allow_domain_after=0")
    key = promote()
    (whole,) = known(path, "triplet")
    assert "8 to 32" in said(2, "forget", "--key", key[:7])
    assert "nothing to forget" in said(1, "forget", "--key", key, "--only", "client")
    lines = printed("forget", "--key", key)
    assert [" ".join(line.split()[:4]).rstrip(":") for line in lines] == [
        f"forgot known triplet {key}", f"forgot pending triplet {key}"]
    assert (known(path, "triplet"), pending(pending_path)) == ({}, {})
    assert len(known(path, "client")) == 1
    assert run_hook().words == ["defer", "new"]
    printed("forget", "--key", whole)
    assert pending(pending_path) == {}


def test_ambiguous_key(make_store, printed, said, path):
    make_store()
    first, second, third = ("abcdef01" + digit * 24 for digit in "123")
    put_known(path, "triplet", {first: (int(time.time()), 1), second: (int(time.time()), 2)})
    put_known(path, "client", {third: (int(time.time()), 3)})
    line = said(2, "forget", "--key", "abcdef01")
    assert all(name in line for name in (f"known triplet {first}", f"known triplet {second}", f"known client {third}"))
    assert "is ambiguous" in said(2, "forget", "--key", "abcdef01", "--only", "triplet")
    assert (len(known(path, "triplet")), len(known(path, "client"))) == (2, 1)
    printed("forget", "--key", "abcdef01", "--only", "client")
    printed("forget", "--key", "abcdef012")
    assert list(known(path, "triplet")) == [first]
    assert known(path, "client") == {}


def test_pass_a_triplet(make_store, run_hook, printed, path, pending_path):
    make_store()
    key = key_of(run_hook())
    (line,) = printed("pass", *REQUEST)
    assert line.startswith(f"made known: triplet {key} (192.0.2.0/24 a@example.org b@example.net): promotions 1, until")
    assert "; it waited since " in line
    assert run_hook().words == ["accept", "known-triplet"]
    assert run_hook(recipient="c@example.net").words == ["defer", "new"]
    ((seen, count),) = known(path, "triplet").values()
    assert (time.time() - seen < 60, count) == (True, 1)
    assert (known(path, "client"), known(path, "domain")) == ({}, {})
    printed("pass", *REQUEST)
    assert [count for _, count in known(path, "triplet").values()] == [2]
    aging.age(path, pending_path, 37 * 86_400)
    (line,) = printed("pass", *REQUEST)
    assert "waited" not in line
    assert [count for _, count in known(path, "triplet").values()] == [1]


def test_pass_with_a_name(make_store, run_hook, answer):
    make_store("trust_client_name=true")
    made = answer("pass", *REQUEST, "--name", "mx1.pool.example")["passed"]
    assert [one["what"].split()[0] for one in made] == ["192.0.2.0/24", "*.pool.example"]
    assert run_hook(client="203.0.113.9", env={"TCPREMOTEHOST": "mx9.pool.example"}).words == [
        "accept", "known-triplet"]


def test_pass_of_domain_client_and_pair(make_store, run_hook, answer, path):
    make_store("allow_domain_after=3", "allow_client_after=4")
    (domain,) = answer("pass", "192.0.2.9", "x@example.org")["passed"]
    assert (domain["kind"], domain["promotions"], domain["promotions_before"]) == ("domain", 3, None)
    assert run_hook().words == ["accept", "known-domain"]
    (client,) = answer("pass", "192.0.2.1")["passed"]
    assert (client["kind"], client["promotions"], client["what"]) == ("client", 4, "192.0.2.1")
    assert run_hook(sender="x@other.example").words == ["accept", "known-client"]
    answer("pass", "-", *REQUEST[1:])
    assert run_hook(client="203.0.113.9").words == ["accept", "known-pair"]
    put_known(path, "client", {client["key"]: (int(time.time()) - 86_400, 9)})
    (client,) = answer("pass", "192.0.2.1")["passed"]
    assert (client["promotions"], client["promotions_before"]) == (9, 9)
    ((seen, count),) = known(path, "client").values()
    assert (time.time() - seen < 60, count) == (True, 9)


@pytest.mark.parametrize(("setting", "arguments"), [
    ("pool_hops", ["-", "a@example.org", "b@example.net"]), ("allow_client_after", ["192.0.2.1"]),
    ("allow_domain_after", ["192.0.2.1", "@example.org"]),
])
def test_pass_refuses_what_is_switched_off(make_store, said, run_fastgrey, setting, arguments, path):
    make_store(f"{setting}=0")
    line = said(1, "pass", *arguments)
    assert f"{setting} is 0" in line
    assert all(known(path, kind) == {} for kind in KINDS)
    run_fastgrey(*re.search(r"fastgrey (init --set \S+)$", line)[1].split())
    assert run_fastgrey("pass", *arguments).returncode == 0


@pytest.mark.parametrize("command", ["forget", "pass"])
@pytest.mark.parametrize(("arguments", "what"), [
    (["nonsense"], "no IP address"), (["192.0.2.1", "a" * 1001], "longer than 1000 bytes"),
    ([*REQUEST[:2], "b\n@example.net"], "the recipient"), (["-"], "give"), (["-", "a@example.org"], "no record"),
    (["192.0.2.1", "-", "b@example.net"], "whole sender"), (["192.0.2.1", "@example.org", "b@c"], "whole sender"),
    (["-", *REQUEST[1:], "--name", "a.b.c"], "--name goes with"),
])
def test_parts_that_cannot_be_used(make_store, said, command, arguments, what):
    make_store()
    assert what in said(2, command, *arguments)


@pytest.mark.parametrize(("arguments", "what"), [
    (["pass", "192.0.2.1", ""], "no domain"), (["pass", "-", "", "b@example.net"], "null sender"),
    (["pass"], "CLIENT"), (["forget", "192.0.2.1", "--key", "12345678"], "either"), (["forget"], "either"),
    (["forget", "192.0.2.1", "--only", "pair"], "--only pair"), (["list", "nonsense"], "nonsense"),
    (["list", "clients", "--limit", "-1"], "--limit"), (["list", "clients", "--sort", "size"], "--sort"),
])
def test_wrong_usage(make_store, said, arguments, what):
    make_store()
    assert what in said(2, *arguments)


@pytest.mark.parametrize("command", [["list"], ["list", "clients"], ["show", "1234"], ["forget", "192.0.2.1"],
                                     ["pass", "192.0.2.1"]])
def test_no_store(said, command):
    assert "fastgrey init" in said(1, *command)


@pytest.mark.parametrize("arguments", [
    ["forget", *REQUEST], ["forget", "--key", "KEY"], ["pass", *REQUEST], ["pass", "192.0.2.1", "new@other.example"],
])
def test_dry_run_writes_nothing(make_store, promote, run_hook, answer, path, pending_path, arguments):
    make_store()
    key = promote()
    run_hook(sender="new@other.example")
    arguments = [key if argument == "KEY" else argument for argument in arguments]
    before = everything(path, pending_path)
    foretold = answer(*arguments, "--dry-run")
    assert everything(path, pending_path) == before
    done = answer(*arguments)
    assert everything(path, pending_path) != before
    assert (foretold.pop("dry_run"), done.pop("dry_run")) == (True, False)
    ((name, rows),) = done.items()
    for row, other in zip(rows, foretold[name], strict=True):
        assert {key: row[key] for key in ("where", "kind", "key", "what")} == {
            key: other[key] for key in ("where", "kind", "key", "what")}
        assert row.get("promotions") == other.get("promotions")


def test_forget_says_the_same_in_text_and_json(make_store, promote, answer, printed):
    make_store()
    promote()
    facts = answer("forget", *REQUEST, "--dry-run")["forgotten"]
    lines = printed("forget", *REQUEST, env={"TZ": "UTC0"})
    assert len(facts) == 5
    for fact, line in zip(facts, lines, strict=True):
        assert f"forgot {fact['where']} {fact['kind']} {fact['key'][:12]} ({fact['what']}): " in line
        assert local(fact.get("last_seen") or fact["first_seen"]) in line
        for name in ("promotions", "hops"):
            if name in fact:
                assert f"{name} {fact[name]}, " in line


def test_forget_in_a_full_pending(make_store, path, pending_path, printed, run_hook):
    make_store("pending_size=4M")
    with fastgrey.open(path) as store:
        for number in range(60_000):
            store.check(client=f"10.{number % 250}.{number // 250}.1", sender=f"a@h{number}.example",
                        recipient="b@example.net")
    assert (pending_path / "data.mdb").stat().st_size > 3 << 20
    last = ("10.249.239.1", "a@h59999.example", "b@example.net")
    assert [" ".join(line.split()[:3]) for line in printed("forget", *last)] == [
        "forgot pending triplet", "forgot pending pair"]
    assert run_hook(client=last[0], sender=last[1]).words == ["defer", "new"]


def test_overview(make_store, promote, run_hook, answer, printed, path, pending_path):
    make_store("pool_window=2d")
    assert answer("list")["known"]["client"] == {"alive": 0, "expired": 0, "oldest": None, "newest": None,
                                                 "next_expires": None}
    promote()
    now = int(time.time())
    put_known(path, "triplet", {f"{number:032x}": (now - age, 1) for number, age in enumerate(
        [100, 3_000_000, 3_110_401, 4_000_000])})
    run_hook(sender="old@other.example")
    aging.age(path, pending_path, 1000)
    run_hook(sender="new@other.example")
    facts = answer("list")
    triplets = facts["known"]["triplet"]
    assert (triplets["alive"], triplets["expired"]) == (3, 2)
    utc = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 3_001_000 + later)) for later in (0, 3_110_400)]
    assert [triplets["oldest"], triplets["next_expires"]] == utc
    assert triplets["newest"] > triplets["oldest"]
    assert facts["pending"] == {"waiting": 2, "passing": 1, "passed": 1, "pairs": 3, "expired": 0, "partitions": 1}
    text = printed("list", env={"TZ": "UTC0"})
    (row,) = [line for line in text if line.startswith("triplets")]
    assert row.split()[1:3] == ["3", "2"]
    assert all(local(moment) in row for moment in [*utc, triplets["newest"]])
    assert [line.split()[-1] for line in text if line.startswith("  ")] == ["2", "1", "1", "3", "0", "1"]
    aging.age(path, pending_path, 40 * 86_400)
    facts = answer("list")
    assert [facts["known"][kind]["alive"] for kind in KINDS] == [0] * 4
    assert (facts["pending"]["waiting"], facts["pending"]["expired"]) == (0, 6)


def test_list_of_known_records(make_store, answer, printed, run_fastgrey, path):
    make_store()
    now = int(time.time())
    entries = {f"{number * 7919 % 9973:06x}{'0' * 26}": (now - number * 60, number + 1) for number in range(9000)}
    gone = {f"{'f' * 28}{number:04x}": (now - 4_000_000, 1) for number in range(30)}
    put_known(path, "domain", entries | gone)
    facts = answer("list", "domains")
    assert (len(facts["records"]), facts["left_out"], facts["expired"]) == (50, 8950, 30)
    assert [record["promotions"] for record in facts["records"]] == list(range(9000, 8950, -1))
    counted = answer("list", "domains", "--sort", "count", "--limit", "3")
    assert [record["promotions"] for record in counted["records"]] == [9000, 8999, 8998]
    seen = answer("list", "domains", "--sort", "seen", "--limit", "2")
    assert [record["promotions"] for record in seen["records"]] == [1, 2]
    by_key = answer("list", "domains", "--sort", "key", "--limit", "7")
    assert [record["key"] for record in by_key["records"]] == sorted(entries)[:7]
    whole = answer("list", "domains", "--limit", "0")
    assert [record["key"] for record in whole["records"]] == sorted(entries)
    assert (whole["left_out"], whole["expired"]) == (0, 30)
    done = run_fastgrey("list", "domains", "--sort", "seen", "--limit", "2", env={"TZ": "UTC0"})
    title, *rows = done.stdout.splitlines()
    assert title.split()[:2] == ["key", "promotions"]
    for row, fact in zip(rows, seen["records"], strict=True):
        assert row.split()[:2] == [fact["key"][:12], str(fact["promotions"])]
        assert local(fact["last_seen"]) in row
        assert local(fact["expires"]) in row
    assert done.stderr == "8998 left out; --limit 0 shows all\n30 expired are not shown\n"
    assert printed("list", "domains", "--long", "--limit", "1")[1].split()[0] == facts["records"][0]["key"]
    assert printed("list", "pairs") == ["no pairs"]


def test_list_of_pending(make_store, promote, run_hook, answer, printed, path, pending_path):
    make_store("pool_hops=3")
    promote()
    first = key_of(run_hook(client="198.51.100.1", sender="x@other.example"))
    aging.age(path, pending_path, 100)
    second = key_of(run_hook(client="203.0.113.1", sender="x@other.example"))
    facts = answer("list", "pending", "--sort", "seen")
    assert (facts["passed"], facts["left_out"]) == (1, 0)
    assert [record["key"][:12] for record in facts["records"] if record["kind"] == "triplet"] == [second, first]
    assert sorted(record["hops"] for record in facts["records"] if record["kind"] == "pair") == [1, 2]
    rows = printed("list", "pending", "--sort", "count", "--limit", "1", env={"TZ": "UTC0"})
    assert rows[1].split()[1:3] == ["pair", "2"]
    assert "the next hop" not in rows[1]
    aging.age(path, pending_path, 300)
    assert "the next hop passes" in printed("list", "pending", "--sort", "count", "--limit", "1")[1]


def test_what_was_known_and_expired_waits_again(make_store, promote, answer, path, pending_path):
    make_store("lifetime=1h", "pool_hops=0")
    key = promote()
    assert answer("list", "pending")["records"] == []
    aging.age(path, pending_path, 3700)
    (waiting,) = answer("list", "pending")["records"]
    assert (waiting["key"][:12], waiting["passed"], waiting["state"]) == (key, False, "a retry passes now")
    assert answer("list")["pending"]["waiting"] == 1


def test_walks_are_batched(make_store, path):
    """No transaction reads more than a batch, and nothing is missed or told twice where one ends."""
    make_store()
    total = 2 * records.BATCH + 1
    put_known(path, "pair", {f"{number:032x}": (1_700_000_000, 1) for number in range(total - 1)}
              | {"f" * 32: (1_700_000_000, 1)})
    asked = []

    class Counted:
        def __init__(self, real):
            self.real = real

        def known(self, kind, start, limit):
            asked.append(limit)
            return self.real.known(kind, start, limit)

    with fastgrey.open(path) as store:
        view = records.View(store, 1_700_000_001)
        view.records = Counted(view.records)
        keys = [record.stored for record in view.known("pair")]
        assert keys == sorted(set(keys))
        assert len(keys) == total
        assert asked == [records.BATCH] * 3
        assert overview._known(view, "pair").alive == total
        assert len(list(listing.LISTS["pairs"](view, listing.Query(limit=5)).rows)) == 5
