"""Real servers killed, stopped, cut off and replaced by their followers, beside the model of the decision."""

import asyncio
import contextlib
import itertools

import psycopg
import pytest

from effort import chance, times, tried
from fastgrey._core import Case
from fastgrey.shared.open import engine_from_url
from shared import postgres_server, redis_server
from shared.outages import DELAY, Clock, Judged, Traffic, machine, two_machines, until, word
from shared.partitions import network

pytestmark = pytest.mark.torture

# Seconds; what a machine waits for an engine at most before it decides by itself. Where it is counted how often it does,
# a busy machine must not be the reason.
TIMEOUT, SHORT = 3.0, 0.5
STARTERS = {"valkey": redis_server.server, "postgresql": postgres_server.server}


@pytest.fixture(params=STARTERS)
def server(request):
    with STARTERS[request.param]() as running:
        yield running


def pair(url, timeout=TIMEOUT):
    """The engine for who decides and the one for who writes back, as two processes have them."""
    return engine_from_url(url, timeout=timeout), engine_from_url(url, timeout=timeout)


@contextlib.asynccontextmanager
async def beside_the_model(tmp_path, url, draw):
    """A machine, its mail, and what it is judged by; at the end the engine has answered and has everything."""
    clock = Clock()
    async with machine(tmp_path / "machine", *pair(url, SHORT), clock) as one:
        judged, traffic = Judged(), Traffic(draw, clock)

        async def mails(number):
            for mail in itertools.islice(traffic, number):
                judged.compare(mail, clock.now, await one.check(mail))

        yield one, judged, mails
        await one.settled()
    judged.faithful()


@pytest.mark.parametrize(("fail", "mend"), [("kill", "start"), ("pause", "resume")])
def test_away_and_back(tmp_path, server, fail, mend):
    """Killed, Valkey comes back empty here and PostgreSQL without its strangers. Stopped, both take connections and say
    nothing, and do later what they were told meanwhile."""
    async def run(draw):
        async with beside_the_model(tmp_path, server.url, draw) as (one, judged, mails):
            await mails(200)
            for _ in range(times(2)):
                getattr(server, fail)()
                try:
                    await mails(draw.randrange(100, 200))
                finally:
                    await asyncio.to_thread(getattr(server, mend))
                await until(lambda: one.greylist.breaker.asks)
                await mails(draw.randrange(100, 200))
        assert one.greylist.alone > 0
        tried(f"{type(server).__module__}: {fail}, {mend}", decisions=judged.counts["mails"],
              alone=one.greylist.alone, failures=times(2), stopped=judged.counts["stopped"],
              errors=judged.counts["errors"])
    with chance(f"{fail} {mend}") as draw:
        asyncio.run(run(draw))


def test_killed_amid_a_crowd(tmp_path, server):
    """Many at once: friends pass, strangers are asked once, whoever was asked when."""
    async def run():
        clock, gate = Clock(), asyncio.Semaphore(64)
        async with machine(tmp_path / "machine", *pair(server.url), clock) as one:
            async def check(mail):
                async with gate:
                    return await one.check(mail)

            async def all_of(mails, killed):
                answers = [asyncio.create_task(check(mail)) for mail in mails]
                if killed:
                    await until(lambda: sum(answer.done() for answer in answers) > len(answers) // 3)
                    await asyncio.to_thread(server.kill)
                found = [verdict.reason for verdict in await asyncio.gather(*answers)]
                if killed:
                    await asyncio.to_thread(server.start)
                    await until(lambda: one.greylist.breaker.asks)
                return found

            def crowd(kind, number):
                return [(f"10.{i // 250}.{i % 250}.1", f"a@{word(i)}.{kind}.example", "u@example.net") for i in range(number)]

            friends, strangers = crowd("friend", times(150)), crowd("stranger", times(450))
            assert set(await all_of(friends, killed=False)) == {"new"}
            clock.now += DELAY
            assert set(await all_of(friends, killed=False)) == {"retry"}
            mixed = [mail for four in zip(friends, *[iter(strangers)] * 3, strict=True) for mail in four]
            for killed, expected in ((True, "new"), (False, "early"), (True, "retry"), (False, "known-domain")):
                found = await all_of(mixed, killed)
                assert {*found[::4]} == {"known-domain"}
                assert {reason for i, reason in enumerate(found) if i % 4} == {expected}
                clock.now += DELAY if expected == "early" else 0
            await one.settled()
            assert one.greylist.alone > 0
            tried(f"{type(server).__module__} killed amid a crowd", decisions=len(friends) * 2 + len(mixed) * 4,
                  alone=one.greylist.alone, failures=2, stopped=0)
    asyncio.run(run())


@pytest.mark.parametrize("kind", STARTERS)
def test_two_machines_of_which_one_is_cut_off(tmp_path, kind):
    """Mail goes to both, each keeps to the rules by what it knows, and afterwards both know all."""
    async def run(net, port, draw):
        urls = [f"valkey://{net.address(link)}:{port}" if kind == "valkey"
                else f"postgresql://postgres@{net.address(link)}:{port}/postgres" for link in (0, 1)]
        clock = Clock()
        async with two_machines(tmp_path, [pair(url) for url in urls], clock) as machines:
            assert all(one.greylist.breaker.asks for one in machines)
            friends, apart = [], []
            for number in range(times(20)):
                friends.append(mail := (f"192.0.2.{number % 200}", f"a@{word(number)}.friend.example", "u@example.net"))
                for moment in (0, DELAY):
                    clock.now += moment
                    for one in machines:
                        await one.check(mail)
            for one in machines:
                await one.settled()
            net.cut(1)
            try:
                stopped = 0
                for number in range(times(40)):
                    # New ones, each at one of the two.
                    own = [(f"198.51.{one}.{number % 200}", f"a@{word(number)}.new{'ab'[one]}.example", "u@example.net")
                           for one in (0, 1)]
                    for one, mail in zip(machines, own, strict=True):
                        assert (await one.check(mail)).reason == "new"
                    clock.now += DELAY
                    for one, mail in zip(machines, own, strict=True):
                        stopped += (await one.check(mail)).action != "accept"
                        stopped += (await one.check(draw.choice(friends))).action != "accept"
                    apart += own
                assert machines[0].greylist.alone == 0 < machines[1].greylist.alone
                # One that waits at the machine that is cut off.
                waits = ("203.0.113.1", "a@waits.example", "u@example.net")
                assert (await machines[1].check(waits)).reason == "new"
            finally:
                net.mend(1)
            for one in machines:
                await one.settled()
            clock.now += DELAY
            assert (await machines[0].check(waits)).reason == "retry"
            for one in machines:
                for mail in friends + apart:
                    stopped += (await one.check(mail)).action != "accept"
            assert stopped == 0
            tried(f"two machines on {kind}, one cut off", decisions=times(20) * 4 + times(40) * 6 + 3, stopped=stopped,
                  alone=machines[1].greylist.alone)

    with network(2) as net, contextlib.ExitStack() as stack:
        running = net.far(lambda: stack.enter_context(STARTERS[kind]()))
        port = stack.enter_context(net.forwarded(running.port))
        with chance("cut off") as draw:
            net.near(lambda: asyncio.run(run(net, port, draw)))


async def missing(one, engine, promoted):
    """How many of these triplets the engine does not know."""
    lost = 0
    for client, sender, recipient in promoted:
        case = Case(one.store, client=client, sender=sender, recipient=recipient, now=one.clock.now)
        slots = [slot for slot in case.slots if slot[0] == "triplet"]
        lost += not (await engine.fetch(slots))[0]
    return lost


async def promote(one, number, kind):
    """New senders that come back in time; their mails."""
    mails = [(f"198.51.100.{i % 250}", f"a@{word(i)}.{kind}.example", "u@example.net") for i in range(number)]
    for mail in mails:
        assert (await one.check(mail)).reason == "new"
    one.clock.now += DELAY
    for mail in mails:
        assert (await one.check(mail)).action == "accept"
    return mails


async def failover(tmp_path, url, hold, let_go, fail, what):
    """A follower takes over that has not heard of the last promotions. How many the new one lacked."""
    clock = Clock()
    async with machine(tmp_path / "machine", *pair(url), clock) as one:
        await promote(one, times(20), "before")
        await one.settled()
        hold()
        try:
            promoted = await promote(one, times(20), "last")
            await one.settled()
        finally:
            await asyncio.to_thread(fail)
            let_go()
        alone = await promote(one, times(10), "meanwhile")
        await until(lambda: one.greylist.breaker.asks, 180)
        await one.settled()
        probe = engine_from_url(url, timeout=30)
        await probe.open()
        lost = await missing(one, probe, promoted)
        assert await missing(one, probe, alone) == 0
        # Nobody is asked twice for what only this machine knows, and once he came the engine knows it, too.
        stopped = sum([(await one.check(mail)).action != "accept" for mail in promoted])
        assert stopped == 0
        await one.settled()
        domains = 0
        for client, sender, recipient in promoted:
            slots = [slot for slot in Case(one.store, client=client, sender=sender, recipient=recipient,
                                           now=clock.now).slots if slot[0] == "domain"]
            domains += not (await probe.fetch(slots))[0]
        assert domains == 0
        await probe.close()
        tried(what, promotions=times(50), lost=lost, stopped=stopped, alone=one.greylist.alone)
        return lost


def test_valkey_fails_over_to_a_replica_that_is_behind(tmp_path):
    with redis_server.watched(down_after=1000) as both:
        def hold():
            # Stopped it cannot connect again, and what was on the way to it would still arrive.
            both.replica.pause()
            both.primary.ask("CLIENT", "KILL", "TYPE", "replica")

        lost = asyncio.run(failover(tmp_path, both.url, hold, both.replica.resume, both.primary.kill,
                                    "failover to a replica of Valkey that is behind"))
        assert lost == times(20)


def test_postgresql_fails_over_to_a_standby_that_is_behind(tmp_path):
    with postgres_server.server() as primary, postgres_server.standby(primary) as standby:
        def hold():
            standby.pause()
            with psycopg.connect(primary.url) as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")

        def fail():
            primary.kill()
            standby.resume()
            standby.promote()

        lost = asyncio.run(failover(tmp_path, both_hosts(primary, standby), hold, lambda: None, fail,
                                    "failover to a standby of PostgreSQL that is behind"))
        assert lost == times(20)


def both_hosts(primary, standby):
    return (f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
            "?target_session_attrs=read-write")


def test_what_valkey_waits_for_is_not_lost(tmp_path):
    """With wait=1 in the URL a promotion counts once the replica has it."""
    with redis_server.watched(down_after=1000) as both:
        lost = asyncio.run(failover(tmp_path, both.url + "?wait=1", lambda: None, lambda: None, both.primary.kill,
                                    "failover of Valkey with wait=1"))
        assert lost == 0


def test_what_postgresql_waits_for_is_not_lost(tmp_path):
    """With a synchronous standby a promotion counts once that has it."""
    with postgres_server.server() as primary, postgres_server.standby(primary) as standby:
        primary.set(synchronous_standby_names="*")
        primary.stop()
        primary.start()

        def fail():
            primary.kill()
            standby.promote()

        lost = asyncio.run(failover(tmp_path, both_hosts(primary, standby), lambda: None, lambda: None, fail,
                                    "failover of PostgreSQL with a synchronous standby"))
        assert lost == 0
