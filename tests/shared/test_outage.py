"""When the engine is away: what a machine decides by itself, what it keeps, and what the engine learns afterwards."""

import asyncio

import pytest

from effort import chance, times, tried
from fastgrey.errors import EngineError
from fastgrey.shared.merging import count_of, time_of
from shared.memory_engine import MemoryEngine
from shared.outages import DELAY, Clock, Judged, Machine, Traffic, machine, two_machines, until, word

FRIEND = ("192.0.2.1", "a@friend.example", "u@example.net")
STRANGER = ("198.51.100.1", "a@stranger.example", "u@example.net")


async def befriend(one: Machine, mail=FRIEND):
    await one.check(mail)
    one.clock.now += DELAY
    assert (await one.check(mail)).reason == "retry"


def engines():
    """One engine, as who decides and who writes back see it."""
    engine = MemoryEngine()
    return engine, engine


def two_ways():
    """One engine, to which two machines have a way each."""
    left, right = MemoryEngine(), MemoryEngine()
    right.records = left.records
    return left, right


def test_who_is_known_passes_without_the_engine(tmp_path):
    async def run():
        engine, same = engines()
        async with machine(tmp_path / "s", engine, same, Clock()) as one:
            await befriend(one)
            engine.away = True
            assert (await one.check(FRIEND)).reason == "known-domain"
            assert one.greylist.alone == 1
    asyncio.run(run())


def test_who_waited_before_is_not_asked_again(tmp_path):
    async def run():
        engine, same = engines()
        async with machine(tmp_path / "s", engine, same, Clock()) as one:
            await one.check(STRANGER)
            engine.away = True
            one.clock.now += 100
            verdict = await one.check(STRANGER)
            assert (verdict.reason, verdict.wait) == ("early", DELAY - 100)
            one.clock.now += DELAY
            assert (await one.check(STRANGER)).reason == "retry"
    asyncio.run(run())


def test_who_waited_without_the_engine_passes_when_it_is_back(tmp_path):
    async def run():
        engine, same = engines()
        async with machine(tmp_path / "s", engine, same, Clock()) as one:
            engine.away = True
            assert (await one.check(STRANGER)).reason == "new"
            engine.away = False
            one.clock.now += DELAY
            await one.settled()
            # Another machine asks the engine only.
            assert any(kind == "waiting" for kind, _ in engine.records)
            assert (await one.check(STRANGER)).reason == "retry"
    asyncio.run(run())


def test_a_retry_that_comes_before_its_record_is_written_back_passes(tmp_path):
    async def run():
        engine, keepers = MemoryEngine(), MemoryEngine()
        keepers.away = True
        async with machine(tmp_path / "s", engine, keepers, Clock()) as one:
            engine.away = True
            assert (await one.check(STRANGER)).reason == "new"
            engine.away = False
            await until(lambda: one.greylist.breaker.asks)
            one.clock.now += DELAY
            assert one.greylist.standby.journal.numbers()[0] > 0
            assert (await one.check(STRANGER)).reason == "retry"
            assert (await one.check(STRANGER)).reason == "known-domain"
    asyncio.run(run())


def test_who_waits_since_another_machine_saw_him_is_not_asked_again(tmp_path):
    async def run():
        clock = Clock()
        left, right = two_ways()
        async with two_machines(tmp_path, [(left, left), (right, right)], clock) as (one, other):
            assert (await one.check(STRANGER)).reason == "new"
            clock.now += 10
            assert (await other.check(STRANGER)).reason == "early"
            right.away = True
            clock.now += DELAY
            assert (await other.check(STRANGER)).reason == "retry"
    asyncio.run(run())


def test_what_the_engine_forgot_it_learns_from_who_knows_it(tmp_path):
    """As after a failover to a server that lacks the last promotions, or all."""
    async def run():
        engine, same = engines()
        async with machine(tmp_path / "s", engine, same, Clock()) as one:
            await befriend(one)
            await one.check(STRANGER)
            await one.settled()
            known = {slot for slot in engine.records if slot[0] == "domain"}
            engine.records.clear()
            assert (await one.check(FRIEND)).reason == "known-domain"
            one.clock.now += DELAY
            assert (await one.check(STRANGER)).reason == "retry"
            await one.settled()
            assert known <= set(engine.records)
    asyncio.run(run())


@pytest.mark.parametrize("carried", [True, False])
def test_what_was_forgotten_on_purpose_stays_forgotten(tmp_path, carried):
    """Whether the local table had it by then, or the journal."""
    async def run():
        engine, same = engines()
        clock = Clock()
        async with machine(tmp_path / "s", engine, same, clock, keeping=carried) as one:
            await befriend(one)
            if carried:
                await one.settled()
            clock.now += 10
            for slot in list(engine.records):
                engine.records[slot] = 1 if slot[0] in ("waiting", "hops") else clock.now
            assert (await one.check(FRIEND)).reason == "new"
            engine.away = True
            assert (await one.check(FRIEND)).reason == "early"
    asyncio.run(run())


@pytest.mark.parametrize("call", ["fetch", "swap"])
def test_a_decision_is_made_in_time_though_the_engine_may_take_longer(tmp_path, call):
    """A worker answers as on_error says in the end, and that would defer whom the machine knows."""
    async def run():
        engine = MemoryEngine()
        async with machine(tmp_path / "s", engine, engine, Clock()) as one:
            await befriend(one)
            await one.check(STRANGER)
            one.clock.now += DELAY

            gone = asyncio.Event()

            async def hang(*arguments):
                await gone.wait()
                # The keeper and the breaker may be in here, too.
                raise EngineError("it is late")

            setattr(engine, call, hang)
            one.greylist.bound = 0.2
            assert (await one.check(STRANGER)).reason == "retry"
            assert not one.greylist.breaker.asks
            assert (await one.check(FRIEND)).reason == "known-domain"
            delattr(engine, call)
            gone.set()
            one.greylist.bound = None
    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_engine_is_opened_by_one_though_several_find_it(tmp_path):
    """Whoever opens for mail, and the breaker: connections of an engine that is opened twice at once are anybody's."""
    class Counted(MemoryEngine):
        opened = 0

        async def open(self):
            self.opened += 1
            await asyncio.sleep(0)
            await super().open()

    async def run():
        engine = Counted()
        async with machine(tmp_path / "s", engine, engine, Clock(), keeping=False) as one:
            one.greylist._opened, engine.opened = False, 0
            await asyncio.gather(*(one.greylist._probe() for _ in range(3)))
            assert engine.opened == 1
    asyncio.run(run())


def test_an_engine_that_lost_its_secret_has_it_again(tmp_path):
    class Secretive(MemoryEngine):
        kept = None

        async def secret(self, own):
            self.kept = self.kept or own
            return self.kept

    async def run():
        engine = Secretive()
        async with machine(tmp_path / "s", engine, engine, Clock(), keeping=False) as one:
            await one.keeper._upkeep()
            first, engine.kept = engine.kept, None
            one.keeper._upkept -= 1000
            await one.keeper._upkeep()
            assert first and engine.kept == first
    asyncio.run(run())


def forget(engine, now):
    """As fastgrey forget does on another machine."""
    for slot in list(engine.records):
        engine.records[slot] = 1 if slot[0] in ("waiting", "hops") else now


def test_a_copy_by_which_mail_passed_meanwhile_does_not_undo_a_forgetting(tmp_path):
    async def run():
        engine, same = engines()
        clock = Clock()
        async with machine(tmp_path / "s", engine, same, clock) as one:
            await befriend(one)
            await one.settled()
            engine.away = True
            forget(engine, clock.now + 10)
            clock.now += 2 * 86_400
            assert (await one.check(FRIEND)).reason == "known-domain"
            engine.away = False
            await one.settled()
            assert {count_of(record) for (kind, _), record in engine.records.items() if kind == "domain"} == {0}
            assert (await one.check(FRIEND)).reason == "new"
    asyncio.run(run())


@pytest.mark.parametrize("lose", ["before", "after"])
def test_a_promotion_in_doubt_after_a_forgetting_counts(tmp_path, lose):
    async def run():
        engine, same = engines()
        clock = Clock()
        async with machine(tmp_path / "s", engine, same, clock) as one:
            await befriend(one)
            await one.settled()
            forget(engine, clock.now + 10)
            clock.now += 20
            assert (await one.check(FRIEND)).reason == "new"
            clock.now += DELAY
            engine.lose = lose
            assert (await one.check(FRIEND)).reason == "retry"
            await one.settled()
            counts = {kind: count_of(record) for (kind, _), record in engine.records.items()}
            assert (counts["client"], counts["domain"], counts["triplet"]) == (1, 1, 1)
    asyncio.run(run())


@pytest.mark.parametrize("lose", ["before", "after"])
def test_a_promotion_whose_writing_is_in_doubt_counts_once(tmp_path, lose):
    async def run():
        engine, same = engines()
        async with machine(tmp_path / "s", engine, same, Clock()) as one:
            await one.check(STRANGER)
            one.clock.now += DELAY
            engine.lose = lose
            assert (await one.check(STRANGER)).reason == "retry"
            await one.settled()
            counts = {kind: count_of(record) for (kind, _), record in engine.records.items()}
            assert (counts["client"], counts["domain"], counts["triplet"]) == (1, 1, 1)
    asyncio.run(run())


def test_retries_at_the_same_moment_count_once(tmp_path):
    async def run():
        engine, same = engines()
        async with machine(tmp_path / "s", engine, same, Clock()) as one:
            engine.away = True
            await one.check(STRANGER)
            one.clock.now += DELAY
            found = await asyncio.gather(*(one.check(STRANGER) for _ in range(5)))
            assert sorted(verdict.reason for verdict in found) == ["known-domain"] * 4 + ["retry"]
            engine.away = False
            await one.settled()
            assert {count_of(record) for (kind, _), record in engine.records.items() if kind == "client"} == {1}
    asyncio.run(run())


def test_two_machines_apart_each_earn_and_the_engine_has_it_all(tmp_path):
    async def run():
        clock = Clock()
        left, right = two_ways()
        async with two_machines(tmp_path, [(left, left), (right, right)], clock) as (one, other):
            client = "192.0.2.7"
            await befriend(one, (client, "a@one.example", "u@example.net"))
            # What one earned, the other has from the engine.
            assert (await other.check((client, "a@one.example", "v@example.net"))).reason == "known-domain"
            await one.settled()
            await other.settled()
            left.away = right.away = True
            await befriend(one, (client, "a@two.example", "u@example.net"))
            await befriend(other, (client, "a@three.example", "u@example.net"))
            await befriend(other, (client, "a@four.example", "u@example.net"))
            left.away = right.away = False
            await one.settled()
            await other.settled()
            client_record, = (record for (kind, _), record in left.records.items() if kind == "client")
            assert count_of(client_record) == 4
            assert time_of(client_record) == clock.now
            for here in (one, other):
                for name in ("one", "two", "three", "four"):
                    assert (await here.check((client, f"a@{name}.example", "w@example.net"))).reason == "known-domain"
            await befriend(one, (client, "a@five.example", "u@example.net"))
            assert (await other.check((client, "x@six.example", "w@example.net"))).reason == "known-client"
    asyncio.run(run())


def test_the_first_of_two_first_attempts_counts(tmp_path):
    async def run():
        clock = Clock()
        left, right = two_ways()
        async with two_machines(tmp_path, [(left, left), (right, right)], clock) as (one, other):
            left.away = True
            await one.check(STRANGER)
            clock.now += 200
            assert (await other.check(STRANGER)).reason == "new"
            left.away = False
            await one.settled()
            clock.now += 100
            assert (await other.check(STRANGER)).reason == "retry"
    asyncio.run(run())


def test_a_full_journal_stops_no_mail(tmp_path):
    """Strangers leave the room that is left to what is earned; what finds none is in the local table."""
    async def run():
        engine, same = engines()
        async with machine(tmp_path / "s", engine, same, Clock(), size=32 << 10) as one:
            engine.away = True
            mails = [(f"10.1.{i}.1", f"a@host{word(i)}.example", "u@example.net") for i in range(250)]
            for mail in mails:
                assert (await one.check(mail)).reason == "new"
            assert one.greylist.standby.not_kept > 0
            one.clock.now += DELAY
            for mail in mails:
                assert (await one.check(mail)).reason == "retry"
            engine.away = False
            await one.settled()
            # What the journal could not take the engine learns when the mail comes again, some at a time.
            for _ in range(len(mails)):
                for mail in mails:
                    assert (await one.check(mail)).reason == "known-domain"
                await one.settled()
                if sum(kind == "domain" for kind, _ in engine.records) == len(mails):
                    break
            else:
                pytest.fail("the engine does not learn it all")
    asyncio.run(run())


def test_no_mail_waits_for_an_engine_that_is_known_to_be_away(tmp_path):
    async def run():
        engine, same = engines()
        asked = 0

        async def fetch(slots):
            nonlocal asked
            asked += 1
            return await MemoryEngine.fetch(engine, slots)

        async with machine(tmp_path / "s", engine, MemoryEngine(), Clock()) as one:
            engine.away = True
            await one.check(STRANGER)
            one.greylist.breaker._first = one.greylist.breaker._most = 3600
            await one.greylist.breaker.close()
            engine.fetch = fetch
            for _ in range(50):
                await one.check(STRANGER)
            assert asked == 0
    asyncio.run(run())


def test_an_engine_of_another_secret_is_neither_asked_nor_written_to(tmp_path):
    async def run():
        engine, same = engines()

        async def secret(own):
            return bytes(len(own))

        engine.secret = secret
        async with machine(tmp_path / "s", engine, same, Clock()) as one:
            await befriend(one)
            await until(lambda: one.said)
            assert engine.records == {} and not one.greylist.breaker.asks
            assert "another secret" in one.greylist.breaker.why and "another secret" in one.said[0]
    asyncio.run(run())


@pytest.mark.torture
def test_whatever_fails_when_the_rules_are_kept(tmp_path):
    """Beside the model: an engine that goes away, fails before and after it wrote, and forgets everything."""
    async def run(draw):
        engine, same = engines()
        clock, judged = Clock(), Judged()
        failures = 0
        async with machine(tmp_path / "s", engine, same, clock) as one:
            traffic = Traffic(draw, clock)
            for mail, _ in zip(traffic, range(times(3000))):
                event = draw.random()
                if event < 0.01:
                    engine.away = not engine.away
                    failures += engine.away
                elif event < 0.02:
                    engine.lose = draw.choice(["before", "after"])
                    failures += 1
                elif event < 0.021:
                    engine.records.clear()
                    failures += 1
                elif event < 0.05:
                    await asyncio.sleep(0.01)
                judged.compare(mail, clock.now, await one.check(mail))
            engine.away = False
            await one.settled()
        judged.faithful()
        tried("decisions beside the model while the engine fails", decisions=judged.counts["mails"], failures=failures,
              differences=0)
    with chance("outage") as draw:
        asyncio.run(run(draw))
