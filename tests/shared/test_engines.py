"""What every engine has to do, and that decisions on each are the same: against the model, and against the store."""

import asyncio
import os
import tempfile
import threading
import time
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import effort
import fastgrey
from fastgrey import replay
from fastgrey import settings as settings_
from fastgrey._core import Case
from fastgrey.shared.engine import KINDS, Write
from fastgrey.shared.greylist import Greylist
from shared.conftest import opened
from shared.engines import new_space
from stateful.test_machine import ByInterface

NOW = 1_700_000_000
# A record has 64 bits, and none is 0.
RECORDS = st.one_of(st.integers(1, 9), st.integers(1, (1 << 64) - 1), st.sampled_from([(1 << 63), (1 << 64) - 1]))
TIMES = [NOW, NOW + 1, NOW + 2]
DAY = 86_400


def slots_of(count):
    """New slots, of all kinds in turn."""
    return [(KINDS[number % len(KINDS)], os.urandom(16)) for number in range(count)]


def test_nothing_is_there_at_first(make_engine, store, space):
    async def run():
        async with opened(make_engine(store, space)) as (engine,):
            assert await engine.fetch(slots_of(9)) == [0] * 9
            assert await engine.fetch([]) == []

    asyncio.run(run())


def test_what_was_written_is_found_by_everybody(make_engine, store, space):
    async def run():
        async with opened(make_engine(store, space), make_engine(store, space)) as (one, other):
            slots = slots_of(9)
            now = int(time.time())
            records = [now + (number << 40) for number in range(9)]
            assert await one.swap(slots, [Write(i, 0, record, 3600) for i, record in enumerate(records)]) is True
            assert await other.fetch(slots) == records
            assert await other.fetch(slots[::-1]) == records[::-1]

    asyncio.run(run())


def test_a_key_is_another_one_in_every_kind(make_engine, store, space):
    async def run():
        async with opened(make_engine(store, space)) as (engine,):
            key = os.urandom(16)
            # The store's own table has both kinds of strangers in one place; their keys differ by what is hashed.
            slots = [(kind, key) for kind in KINDS if make_engine.url is not None or kind != "hops"]
            now = int(time.time())
            for number, slot in enumerate(slots):
                assert await engine.swap([slot], [Write(0, 0, now + number, 3600)])
            assert await engine.fetch(slots) == [now + number for number in range(len(slots))]

    asyncio.run(run())


@pytest.mark.parametrize("bad", range(9))
def test_all_or_nothing(make_engine, store, space, bad):
    async def run():
        async with opened(make_engine(store, space)) as (engine,):
            slots = slots_of(9)
            now = int(time.time())
            assert await engine.swap(slots, [Write(bad, 0, now, 3600)])
            assert await engine.swap(slots, [Write(i, 0, now + 1, 3600) for i in range(9)]) is False
            another = [Write(i, now + 5 if i == bad else 0, now + 1, 3600) for i in range(9)]
            assert await engine.swap(slots, another) is False
            assert await engine.fetch(slots) == [now if i == bad else 0 for i in range(9)]
            assert await engine.swap(slots, [Write(i, now if i == bad else 0, now + 1, 3600) for i in range(9)]) is True
            assert await engine.fetch(slots) == [now + 1] * 9
            # What was to be there, and is not.
            assert await engine.swap(slots_of(1), [Write(0, now, now + 1, 3600)]) is False

    asyncio.run(run())


def test_of_many_who_write_at_once_one_does(make_engine, store, space):
    async def run():
        async with opened(*(make_engine(store, space) for _ in range(4))) as engines:
            now = int(time.time())
            for _ in range(effort.times(10)):
                slots = slots_of(6)
                done = await asyncio.gather(*(engine.swap(slots, [Write(i, 0, now + number, 3600) for i in range(6)])
                                              for number, engine in enumerate(engines * 2)))
                assert done.count(True) == 1
                assert await engines[0].fetch(slots) == [now + done.index(True)] * 6

    asyncio.run(run())


@pytest.mark.torture
def test_sums_of_many_threads_are_right(make_engine, store, space):
    """Every thread adds one to two records at once, again and again; then both hold the sum."""
    threads, rounds = 3, effort.times(20)
    slots = slots_of(2)
    base = int(time.time())
    failed = []

    def work():
        async def run():
            async with opened(make_engine(store, space)) as (engine,):
                for _ in range(rounds):
                    while True:
                        old = await engine.fetch(slots)
                        assert old[0] == old[1]
                        new = old[0] + 1 if old[0] else base + 1
                        if await engine.swap(slots, [Write(i, old[i], new, 3600) for i in range(2)]):
                            break

        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failed == []

    async def total():
        async with opened(make_engine(store, space)) as (engine,):
            return await engine.fetch(slots)

    assert asyncio.run(total()) == [base + threads * rounds] * 2
    effort.tried("engine sums", swaps=threads * rounds)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_writes_against_a_dictionary(make_engine, store, data):
    """A dictionary that compares and sets, and the engine."""
    if make_engine.url is None:
        pytest.skip("the store's own table takes times that a clock can show")

    async def run():
        async with opened(make_engine(store, new_space())) as (engine,):
            held = {}
            slots = slots_of(6)
            for _ in range(data.draw(st.integers(1, 8))):
                writes = [Write(index, held.get(index, 0) if data.draw(st.integers(0, 5)) else data.draw(RECORDS),
                                data.draw(RECORDS), data.draw(st.integers(60, 10**8)))
                          for index in data.draw(st.lists(st.integers(0, 5), min_size=1, unique=True))]
                right = all(held.get(write.index, 0) == write.old for write in writes)
                assert await engine.swap(slots, writes) is right
                if right:
                    held |= {write.index: write.new for write in writes}
                assert await engine.fetch(slots) == [held.get(index, 0) for index in range(6)]

    asyncio.run(run())


def test_the_first_secret_is_everybodys(make_engine, store, space):
    own = [os.urandom(192) for _ in range(5)]

    async def run():
        async with opened(*(make_engine(store, space) for _ in own)) as engines:
            found = await asyncio.gather(*(engine.secret(secret) for engine, secret in zip(engines, own, strict=True)))
            assert len(set(found)) == 1
            if make_engine.url is not None:
                assert found[0] in own
            assert await engines[0].secret(os.urandom(192)) == found[0]
        # Also once all have gone.
        async with opened(make_engine(store, space)) as (engine,):
            assert await engine.secret(os.urandom(192)) == found[0]

    asyncio.run(run())


def test_name_spaces_keep_apart_and_one_is_dropped(make_engine, store):
    if make_engine.url is None:
        pytest.skip("a store has no name spaces")
    spaces = [new_space(), new_space()]
    slots = slots_of(2500)
    now = int(time.time())

    async def run():
        async with opened(*(make_engine(store, space) for space in spaces)) as (one, other):
            secrets = [await engine.secret(os.urandom(192)) for engine in (one, other)]
            assert secrets[0] != secrets[1]
            for engine in (one, other):
                for first in range(0, len(slots), 100):
                    assert await engine.swap(slots[first:first + 100], [Write(i, 0, now, 3600) for i in range(100)])
            await one.drop()
            assert sum(await other.fetch(slots)) == now * len(slots)
            assert await other.secret(b"x" * 192) == secrets[1]
        async with opened(make_engine(store, spaces[0])) as (one,):
            assert sum(await one.fetch(slots)) == 0
            assert await one.secret(secrets[1]) == secrets[1]
            await one.drop()

    asyncio.run(run())


def test_a_closed_one_can_be_opened_again(make_engine, store, space):
    async def run():
        engine = make_engine(store, space)
        slots = slots_of(1)
        now = int(time.time())
        for number in range(3):
            async with opened(engine):
                assert await engine.swap(slots, [Write(0, now + number - 1 if number else 0, now + number, 3600)])
                assert await engine.fetch(slots) == [now + number]

    asyncio.run(run())


def test_upkeep_leaves_what_lives(make_engine, store, space):
    async def run():
        async with opened(make_engine(store, space)) as (engine,):
            slots = slots_of(6)
            now = int(time.time())
            assert await engine.swap(slots, [Write(i, 0, now, 3600) for i in range(6)])
            await engine.upkeep(now)
            assert await engine.fetch(slots) == [now] * 6

    asyncio.run(run())


# Decisions.

def new_store():
    """A store for a decision of its own, to be used with `with`."""
    return replay.replay_store(None, settings_.defaults())


def ask(number=0, **changed):
    """A request of one of many strangers."""
    return {"client": f"192.0.2.{number}", "sender": f"anna{'x' * number}@example.org",
            "recipient": "info@example.net", "now": NOW} | changed


def count_of(slots, records, kind):
    """The counts of the records of that kind."""
    return [record >> 40 for (slot_kind, _), record in zip(slots, records, strict=True) if slot_kind == kind]


@pytest.mark.parametrize("turn", range(4))
def test_two_retries_at_once_count_once(make_engine, store, space, turn):
    async def run():
        async with opened(*(make_engine(store, space) for _ in range(6))) as engines:
            greylists = [Greylist(store, engine) for engine in engines]
            assert (await greylists[0].check(**ask(turn)))[1:3] == ("new", 300)
            verdicts = await asyncio.gather(*(greylist.check(**ask(turn, now=NOW + 400)) for greylist in greylists))
            assert {verdict.action for verdict in verdicts} == {"accept"}
            reasons = [verdict.reason for verdict in verdicts]
            assert reasons.count("retry") >= 1 and set(reasons) <= {"retry", "known-domain", "known-triplet"}
            slots = Case(store, **ask(turn)).slots
            records = await engines[0].fetch(slots)
            assert count_of(slots, records, "client") == [1]
            assert count_of(slots, records, "domain") == [1]
            assert count_of(slots, records, "triplet") == [1]

    asyncio.run(run())


def test_a_promotion_that_lost_decides_anew(make_engine, store, space):
    """Both have read before either writes: the second finds the sender known, and nobody is counted twice."""
    async def run():
        async with opened(make_engine(store, space), make_engine(store, space)) as engines:
            assert (await Greylist(store, engines[0]).check(**ask()))[:2] == ("defer", "new")
            cases = [Case(store, **ask(now=NOW + 400)) for _ in engines]
            writes = [[Write(*write) for write in case.judge(await engine.fetch(case.slots))]
                      for case, engine in zip(cases, engines, strict=True)]
            assert [case.settled for case in cases] == ["retry", "retry"]
            assert await engines[0].swap(cases[0].slots, writes[0]) is True
            assert await engines[1].swap(cases[1].slots, writes[1]) is False
            assert cases[1].judge(await engines[1].fetch(cases[1].slots)) == []
            assert cases[1].finish().reason == "known-domain"

    asyncio.run(run())


def test_of_two_strangers_at_once_one_is_first(make_engine, store, space):
    async def run():
        async with opened(*(make_engine(store, space) for _ in TIMES)) as engines:
            verdicts = await asyncio.gather(*(Greylist(store, engine).check(**ask(now=now))
                                              for engine, now in zip(engines, TIMES, strict=True)))
            reasons = [verdict.reason for verdict in verdicts]
            assert sorted(reasons) == ["early", "early", "new"]
            first = TIMES[reasons.index("new")]
            slots = Case(store, **ask()).slots
            records = await engines[0].fetch(slots)
            assert [record for (kind, _), record in zip(slots, records, strict=True) if kind == "waiting"] == [first]
            assert count_of(slots, records, "hops") == [1]

    asyncio.run(run())


def test_hops_at_once_are_all_counted(make_engine, store, space):
    """A pool whose members knock in the same moment."""
    async def run():
        async with opened(*(make_engine(store, space) for _ in range(5))) as engines:
            await asyncio.gather(*(Greylist(store, engine).check(**ask(client=f"198.51.{number}.1"))
                                   for number, engine in enumerate(engines)))
            slots = Case(store, **ask()).slots
            assert count_of(slots, await engines[0].fetch(slots), "hops") == [5]

    asyncio.run(run())


def test_of_many_promotions_at_once_none_is_an_error(make_engine, space):
    """Bounces to many people, sent again in the same moment: each promotes the client that all have in common."""
    count = 40
    with replay.replay_store(None, settings_.defaults() | {"allow_client_after": 0, "on_error": 1}) as store:
        async def run():
            async with opened(make_engine(store, space)) as (engine,):
                greylist = Greylist(store, engine)
                bounces = [ask(sender="", recipient=f"u{number}@example.net") for number in range(count)]
                await asyncio.gather(*(greylist.check(**bounce) for bounce in bounces))
                verdicts = await asyncio.gather(*(greylist.check(**bounce | {"now": NOW + 400}) for bounce in bounces))
                assert [verdict.reason for verdict in verdicts] == ["retry"] * count
                slots = Case(store, **bounces[0]).slots
                assert count_of(slots, await engine.fetch(slots), "client") == [count]

        asyncio.run(run())


def test_machines_know_what_the_others_let_pass(make_engine):
    """Two machines, each with a store of its own and one secret."""
    with new_store() as one:
        async def run(space):
            async with opened(make_engine(one, space), make_engine(one, space)) as engines:
                here, there = (Greylist(one, engine) for engine in engines)
                assert (await here.check(**ask()))[:2] == ("defer", "new")
                assert (await there.check(**ask(now=NOW + 100)))[:3] == ("defer", "early", 200)
                assert (await there.check(**ask(now=NOW + 300)))[:2] == ("accept", "retry")
                assert (await here.check(**ask(now=NOW + 301)))[:2] == ("accept", "known-domain")

        asyncio.run(run(new_space()))


class OnEngine(ByInterface):
    """Every check goes to a store and to another one whose records an engine holds."""

    def __init__(self, make_engine):
        super().__init__()
        self.make_engine = make_engine

    def begin(self):
        super().begin()
        fastgrey.create(self.parent / "shared", settings_.by_name(self.store.head()["settings"]))
        self.shared = fastgrey.open(self.parent / "shared")
        self.runner = asyncio.Runner()
        self.engine = self.make_engine(self.shared, new_space())
        self.runner.run(self.engine.open())
        self.greylist = Greylist(self.shared, self.engine)

    def end(self):
        if self.make_engine.url is not None:
            self.runner.run(self.engine.drop())
        self.runner.run(self.engine.close())
        self.runner.close()
        self.shared.close()
        super().end()

    def ask_store(self, request, **options):
        verdict = super().ask_store(request, **options)
        shared = self.runner.run(self.greylist.check(
            client=request["client"], sender=request["sender"], recipient=request["recipient"],
            client_name=request["name"], relay=request["relay"], now=self.now, **options))
        assert tuple(shared[:3]) == verdict
        return verdict


@pytest.mark.torture
def test_decisions_are_those_of_the_model_and_of_the_store(make_engine, in_memory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(in_memory))
    run_state_machine_as_test(partial(OnEngine, make_engine), settings=settings(
        max_examples=effort.times(8), stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck),
        print_blob=True,
    ))
