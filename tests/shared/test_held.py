"""The commands of an administrator on records that an engine holds: a real PostgreSQL, and the store's own table as an
engine, where they must say what they say without one."""

import asyncio
import json
import random
import subprocess
import time

import pytest

from shared import postgres_server
from conftest import FASTGREY
from fastgrey import amend, directory, explanation, records
from fastgrey.errors import EngineError
from fastgrey.shared import held as held_
from fastgrey.shared.embedded import Embedded
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.merging import Spans
from fastgrey.shared.postgresql import Postgresql

REQUEST = {"client": "192.0.2.7", "sender": "a@example.org", "recipient": "b@example.net"}
WORDS = list(REQUEST.values())


@pytest.fixture(scope="module")
def database():
    """One server for the module; each test has a name space of its own."""
    with postgres_server.server() as server:
        yield server


@pytest.fixture
def engine(database, request):
    """name: of the test's name space; decide(now): a request decided on the engine."""
    name = f"fg{abs(hash(request.node.name)) % 10**9}"
    return database.url, name


@pytest.fixture
def shared(engine, make_store, config, path):
    """A store whose records are on the engine: decide(when, **request) asks as serve would; gives action and reason."""
    url, name = engine
    make_store("shared=true")
    config(f'[serve]\nengine = "{url}"\nname = "{name}"\n')

    def decide(now=None, **request):
        async def ask():
            one = Postgresql(url, namespace=name, timeout=30)
            await one.open()
            try:
                with directory.open_store(path) as store:
                    verdict = await Greylist(store, one).check(**(REQUEST | request), now=now)
                return verdict.action, verdict.reason
            finally:
                await one.close()

        return asyncio.run(ask())

    return decide


def said(done):
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_explain_goes_by_the_engine(shared, run_fastgrey):
    first = int(time.time()) - 60
    assert shared(first) == ("defer", "new")
    told = json.loads(said(run_fastgrey("explain", *WORDS, "--json")))
    assert (told["verdict"]["action"], told["verdict"]["reason"]) == ("defer", "early")
    assert told["steps"][-1]["facts"] == {
        "triplets": [{"place": "network", "first": first,
                      "first_date": told["steps"][-1]["facts"]["triplets"][0]["first_date"]}],
        "pair": {"first": first, "hops": 1, "first_date": told["steps"][-1]["facts"]["pair"]["first_date"]}}
    assert told["passes_from"] == first + 300
    # This machine knows nothing of it.
    assert json.loads(said(run_fastgrey("explain", *WORDS, "--json", "--local")))["verdict"]["reason"] == "new"
    # Looking at it writes nothing.
    assert shared(first + 299) == ("defer", "early")
    assert shared(first + 300) == ("accept", "retry")
    assert "=>  7 known domain" in said(run_fastgrey("explain", *WORDS))


def test_explain_of_a_rule_asks_the_engine_for_nothing_it_would_need(shared, run_fastgrey):
    assert "=>  5 expected" not in said(run_fastgrey("explain", *WORDS))
    run_fastgrey("expect", WORDS[2], "--for", "15m")
    assert "=>  5 expected" in said(run_fastgrey("explain", *WORDS))


@pytest.mark.parametrize(("parts", "reason"), [
    (WORDS, "known-triplet"), (WORDS[:1], "known-client"), (WORDS[:2], "known-domain"), (["-", *WORDS[1:]], "known-pair"),
])
def test_pass(shared, run_fastgrey, parts, reason):
    assert "would make known" in said(run_fastgrey("pass", *parts, "--dry-run"))
    assert shared() == ("defer", "new")
    assert "made known" in said(run_fastgrey("pass", *parts))
    assert shared() == ("accept", reason)


def test_pass_tells_since_when_it_waited(shared, run_fastgrey):
    shared(int(time.time()) - 100)
    assert "it waited since" in said(run_fastgrey("pass", *WORDS))


def test_passes_at_the_same_time_all_count(shared, path, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "FASTGREY_STORE": str(path),
                   "FASTGREY_CONFIG": str(tmp_path / "etc" / "fastgrey.toml")}
    running = [subprocess.Popen([FASTGREY, "pass", "-", *WORDS[1:], "--json"], env=environment, stdout=subprocess.PIPE)
               for _ in range(6)]
    counts = [json.loads(process.communicate(timeout=120)[0])["passed"][0]["promotions"] for process in running]
    assert sorted(counts) == [1, 2, 3, 4, 5, 6]


def test_forget(shared, run_fastgrey):
    """All of it, and what was forgotten is told once."""
    begun = int(time.time()) - 400
    assert shared(begun) == ("defer", "new")
    assert shared(begun + 300) == ("accept", "retry")
    would = said(run_fastgrey("forget", *WORDS, "--dry-run")).splitlines()
    assert shared()[0] == "accept"
    gone = said(run_fastgrey("forget", *WORDS)).splitlines()
    assert [line.split()[1:4] for line in gone] == [line.split()[2:5] for line in would]
    assert sorted(" ".join(line.split()[1:3]) for line in gone) == [
        "known client", "known domain", "known triplet", "pending pair", "pending triplet"]
    assert "(192.0.2.0/24 a@example.org b@example.net): first seen" in gone[-2]
    done = run_fastgrey("forget", *WORDS)
    assert (done.returncode, done.stderr) == (1, "fastgrey: there is no such record; nothing to forget\n")
    assert shared() == ("defer", "new")


def test_forget_only(shared, run_fastgrey):
    begun = int(time.time()) - 400
    shared(begun)
    shared(begun + 300)
    assert said(run_fastgrey("forget", *WORDS, "--only", "domain")).startswith("forgot known domain")
    assert shared() == ("accept", "known-triplet")


def test_what_is_forgotten_is_not_brought_back_by_a_copy(shared, engine, path, run_fastgrey):
    """Machines have copies of what is known: what was forgotten since is later than they are."""
    now = int(time.time())
    shared(now - 400)
    shared(now - 100)
    url, name = engine
    with directory.open_store(path) as store, held_.opened(store, Postgresql(url, namespace=name)) as held:
        slots = [(kind, key) for kind, _, key in held.keys(*WORDS) if kind in records.KINDS]
        copies = held.fetch(slots)
        # As late as a copy can be.
        copies = [record and (record >> 40 << 40) + int(time.time()) for record in copies]
        assert sum(map(bool, copies)) == 3
        amend.forget(held_.HeldView(held), amend.targets(held_.HeldView(held), amend.parts(*WORDS, None)), False)
        stored = held._runner.run(held.engine.fetch(slots))
        joined = [Spans.of(store).joined(kind, copy, record)
                  for (kind, _), copy, record in zip(slots, copies, stored, strict=True)]
        assert [record >> 40 for record in joined] == [0] * len(slots)
        assert held.fetch(slots) == [0] * len(slots)
        # And made known in the same second, it is known.
        amend.make_known(held_.HeldView(held), amend.parts(*WORDS, None), False)
        made = held._runner.run(held.engine.fetch(slots))
        assert sum(record >> 40 > 0 for record in made) == 1
        assert [Spans.of(store).joined(kind, new, old) for (kind, _), new, old in zip(slots, made, stored, strict=True)
                ] == made


def test_forget_takes_the_copy_of_this_machine_too(shared, path, run_fastgrey):
    """It would let the mail pass while the engine is away."""
    with directory.open_store(path) as store:
        amend.make_known(records.View(store), amend.parts(*WORDS, None), False)
        assert store.known()["triplet"] == 1
        assert said(run_fastgrey("forget", *WORDS)).startswith("forgot known triplet")
        assert store.known()["triplet"] == 0


def test_show_by_a_whole_key(shared, run_fastgrey):
    shared()
    told = json.loads(said(run_fastgrey("explain", *WORDS, "--json")))
    done = run_fastgrey("show", told["key"][:12])
    assert done.returncode == 2
    assert done.stderr.startswith(f"fastgrey: {told['key'][:12]}: postgresql://")
    assert "by all 32 digits of its key; from addresses to records and keys: fastgrey explain" in done.stderr
    said(run_fastgrey("pass", *WORDS))
    shown = said(run_fastgrey("show", told["key"])).splitlines()
    assert shown[0] == f"known triplet {told['key']}"
    assert "promotions  1" in shown[1]
    assert said(run_fastgrey("forget", "--key", told["key"])).startswith("forgot known triplet")
    assert run_fastgrey("show", told["key"]).returncode == 1


def test_what_looks_at_this_machine_says_so(shared, run_fastgrey):
    shared()
    for words in (["list"], ["list", "pending"], ["stats"]):
        done = run_fastgrey(*words)
        assert done.returncode == 0
        assert done.stderr.startswith("fastgrey: the records are with postgresql://")
        assert done.stderr.count("\n") == 1
    for words in (["list", "rules"], ["stats", "--json"], ["stats", "--prometheus"]):
        assert run_fastgrey(*words).stderr == ""
    assert run_fastgrey("expect", WORDS[2], "--for", "5m").stderr == (
        "fastgrey: windows are of this machine alone; on each of the others, say the same\n")


@pytest.mark.parametrize("words", [["explain", *WORDS], ["pass", *WORDS], ["forget", *WORDS], ["show", "0" * 32]])
def test_the_engine_is_away(make_store, config, run_fastgrey, words):
    """One line, and nothing is written; the table of this machine can be looked at all the same."""
    make_store("shared=true")
    config('[serve]\nengine = "postgresql://nobody@127.0.0.1:1/nothing"\n')
    done = run_fastgrey(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastgrey: ")
    assert "127.0.0.1:1" in done.stderr
    assert done.stderr.count("\n") == 1
    local = run_fastgrey(*words, "--local")
    assert local.returncode == (0 if words[0] in ("explain", "pass") else 1)
    assert "127.0.0.1" not in local.stderr


def test_a_store_with_another_secret(shared, run_fastgrey, tmp_path, engine):
    shared()
    said(run_fastgrey("explain", *WORDS))
    directory.create(tmp_path / "other", {"shared": 1})
    done = run_fastgrey("explain", *WORDS, "--store", str(tmp_path / "other"))
    assert done.returncode == 1
    assert f"under another secret than that of {tmp_path / 'other'}" in done.stderr
    assert "fastgrey restore FILE" in done.stderr


def test_a_store_that_is_shared_with_hooks_only(make_store, config, run_fastgrey):
    """Without an engine, the records are here."""
    make_store("shared=true")
    config('delay = "1m"\n')
    assert said(run_fastgrey("pass", *WORDS))
    assert "known triplet" in said(run_fastgrey("explain", *WORDS))
    assert said(run_fastgrey("list"))


class _Busy(Embedded):
    """Somebody else is always first."""

    async def swap(self, slots, writes):
        return False


def test_a_change_that_is_always_too_late_gives_up(make_store, path):
    make_store()
    with directory.open_store(path) as store, held_.opened(store, _Busy(store)) as held:
        with pytest.raises(EngineError, match="mail changes these records all the time; run this again"):
            amend.make_known(held_.HeldView(held), amend.parts(*WORDS, None), False)


def counting(told):
    """An explanation without what was seen too long ago: the store forgets whole days of that, an engine each by itself."""
    now, step = told["now"], told["steps"][-1]
    if step["title"] == "pending":
        facts = step["facts"]
        facts["triplets"] = [seen for seen in facts["triplets"] if now - seen["first"] <= 2 * 86400]
        if facts["pair"] and now - facts["pair"]["first"] > 4 * 3600:
            facts["pair"] = None
        step["text"] = step["text"].replace("seen longer ago than retry_window, which counts as new",
                                            "never seen, or forgotten")
    return told


def test_the_own_table_as_an_engine(make_store, path):
    """explain, pass and forget (what it would) say through an engine what they say of the same table without one."""
    make_store("trust_client_name=true", "allow_client_after=3", "pool_hops=2", "refresh=1h")
    chance = random.Random(8)
    now = int(time.time()) - 30 * 86400
    seen = set()
    with directory.open_store(path) as store, held_.opened(store, Embedded(store)) as held:
        for _ in range(150):
            now += chance.choice([1, 100, 301, 5000, 90_000])
            client = f"192.0.{chance.randrange(3)}.{chance.randrange(3)}"
            sender = chance.choice(["", "x@example.org", "bounce-1@example.com", "local"])
            recipient = chance.choice(["a@example.net", "b@example.net"])
            name = chance.choice([None, "mx1.out.example.org", "mx2.out.example.org"])
            asked = (client, sender, recipient, name)
            if chance.random() < 0.1:
                given = chance.choice([(client, "-", "-"), (client, "x@example.org", "-"), (client, sender, recipient)])
                parts = amend.parts(*given, name)
                would = amend.make_known(records.View(store, now), parts, True)
                assert amend.make_known(held_.HeldView(held, now), parts, True) == would
                amend.make_known(held_.HeldView(held, now), parts, False)
            told = counting(explanation.explain(store, *asked, now=now).as_dict())
            assert counting(explanation.explain(store, *asked, now=now, held=held).as_dict()) == told
            verdict = store.check(client=client, sender=sender, recipient=recipient, client_name=name, now=now)
            seen.add(verdict.reason)
            assert verdict.reason == told["verdict"]["reason"]
            targets = amend.targets(records.View(store, now), amend.parts(client, sender, recipient, name))
            assert sorted(amend.forget(held_.HeldView(held, now), targets, True)) == sorted(
                amend.forget(records.View(store, now), targets, True))
            if chance.random() < 0.05:
                amend.forget(records.View(store, now), targets, False)
                assert explanation.explain(store, *asked, now=now).verdict["reason"] == "new"
    assert seen >= {"new", "early", "retry", "known-client", "known-domain", "known-triplet"}
