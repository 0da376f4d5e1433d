"""The engine in PostgreSQL, against a real server: swaps of many processes, partitions, rights, and all that fails."""

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time

import psycopg
import pytest

import effort
import machine

from fastgrey import replay, settings
from fastgrey.errors import EngineError
from fastgrey.shared import postgresql, postgresql_schema
from fastgrey.shared.engine import KINDS, Write
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.postgresql import Postgresql
from shared import postgres_server
from tcpserver import wait_until

# Seconds that an engine waits where the test is not about waiting.
LONG = 60
DAY = 86400
SECRET = bytes(range(192))
_names = itertools.count(1)


@pytest.fixture(scope="module")
def server():
    with postgres_server.server() as running:
        yield running


@pytest.fixture
def schema():
    """A name that no other test uses."""
    return f"t{next(_names)}"


@pytest.fixture
def sql(server):
    """Run a statement as an administrator; gives the rows."""
    with psycopg.connect(server.url, autocommit=True) as connection:

        def run(statement):
            done = connection.execute(statement)
            return done.fetchall() if done.description else None

        yield run


@contextlib.asynccontextmanager
async def opened(url, schema, timeout=LONG, **options):
    engine = Postgresql(url, namespace=schema, timeout=timeout, **options)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


def key(number):
    return number.to_bytes(16, "little")


def slots(*numbers, kind="client"):
    return [(kind, key(number)) for number in numbers]


async def put(engine, kind, number, record, keep=2 * DAY):
    assert await engine.swap(slots(number, kind=kind), [Write(0, 0, record, keep)])


async def until_it_answers(engine, wanted=slots(1)):
    """What an engine says once it can again."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return await engine.fetch(wanted)
        except EngineError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


async def trouble(engine, wanted, writes=None):
    """The line that fetching, or writing, ends with."""
    with pytest.raises(EngineError) as caught:
        await (engine.fetch(wanted) if writes is None else engine.swap(wanted, writes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(url, schema="fastgrey", **options):
    """The line that open() ends with."""
    async def attempt():
        engine = Postgresql(url, namespace=schema, timeout=LONG, **options)
        try:
            await engine.open()
        finally:
            await engine.close()

    with pytest.raises(EngineError) as caught:
        asyncio.run(attempt())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.torture
def test_a_table_in_memory_says_the_same(server, schema):
    """Any records under any keys of any kind, kept for any time, several swaps in the same statement."""
    records = (1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1764000000, (3 << 40) + 1764000000)
    keeps = (1, 60, 4 * 3600 + 60, 2 * DAY + 60, 36 * DAY, 400 * DAY, 3650 * DAY, (1 << 40) - 1)

    async def run(chance):
        table = {}
        async with opened(server.url, schema) as engine:
            for _ in range(effort.times(60)):
                # No two of a round write the same, so that their order does not matter.
                places = [(kind, key(number)) for kind in KINDS for number in range(6)]
                chance.shuffle(places)
                swaps, expected = [], []
                while places and len(swaps) < 5:
                    size = chance.randint(1, 9)
                    mine, places = places[:size], places[size:]
                    writes = [Write(index, table.get(slot, 0) if chance.random() < 0.9 else chance.choice(records),
                                    chance.choice(records), chance.choice(keeps))
                              for index, slot in enumerate(mine) if chance.random() < 0.7]
                    swaps.append((mine, writes))
                    expected.append(all(table.get(mine[write.index], 0) == write.old for write in writes))
                assert await asyncio.gather(*(engine.swap(*swap) for swap in swaps)) == expected
                for (mine, writes), written in zip(swaps, expected, strict=True):
                    table |= {mine[write.index]: write.new for write in writes} if written else {}
                asked = [(kind, key(number)) for kind in KINDS for number in range(7)]
                assert await engine.fetch(asked) == [table.get(slot, 0) for slot in asked]
        return len(table)

    with effort.chance("postgresql laws") as chance:
        assert asyncio.run(run(chance)) > 20


RACER = """
import asyncio, random, sys
from fastgrey.shared.engine import Write
from fastgrey.shared.postgresql import Postgresql

async def main(url, schema, seed, rounds):
    chance = random.Random(seed)
    engine = Postgresql(url, namespace=schema, timeout=120)
    await engine.open()
    won = 0
    async def one():
        nonlocal won
        # One of what was earned and two of strangers, which only together have the same number.
        number = chance.randrange(3)
        slots = [(kind, bytes([number]) * 16) for kind in ("client", "waiting", "hops")]
        chance.shuffle(slots)
        while True:
            records = await engine.fetch(slots)
            assert len(set(records)) == 1, records
            new = records[0] + 1
            if await engine.swap(slots, [Write(i, old, new, 100000) for i, old in enumerate(records)]):
                won += 1
                return
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(rounds):
        await asyncio.gather(one(), one())
    await engine.close()
    print(won)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
"""


def processes(script, *arguments, count):
    """So many processes at the same gate; what each of them says after it."""
    running = [subprocess.Popen([sys.executable, "-c", script, *map(str, arguments[:2]), str(number),
                                 *map(str, arguments[2:])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for number in range(count)]
    try:
        for one in running:
            assert one.stdout.readline() == "ready\n"
        for one in running:
            one.stdin.write("\n")
            one.stdin.flush()
        said = [one.communicate(timeout=300)[0] for one in running]
        assert [one.returncode for one in running] == [0] * count
        return said
    finally:
        for one in running:
            if one.poll() is None:
                one.kill()
                one.communicate()


@pytest.mark.torture
def test_swaps_of_many_processes_lose_nothing(server, schema, sql):
    """Nothing is there at first: so many want to insert the same rows, of tables with and without partitions."""
    rounds = effort.times(12)
    won = processes(RACER, server.url, schema, rounds, count=4)
    assert [int(one) for one in won] == [2 * rounds] * 4
    assert sql(f"SELECT sum(record)::int FROM {schema}.known") == [(8 * rounds,)]
    assert sql(f"SELECT count(*), count(DISTINCT key) FROM {schema}.strangers") == [(6, 6)]
    effort.tried("swaps of processes at the same records in PostgreSQL", swaps=8 * rounds)


STARTER = """
import asyncio, sys
from fastgrey.shared.postgresql import Postgresql

async def main(url, schema, number):
    engine = Postgresql(url, namespace=schema, timeout=120)
    print("ready", flush=True)
    sys.stdin.readline()
    await engine.open()
    own = bytes([int(number)]) * 192
    print((await engine.secret(own)).hex())
    assert await engine.swap([("waiting", own[:16])], [(0, 0, 1, 172860)])
    await engine.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_machines_that_start_at_the_same_moment_agree(server, schema, sql):
    """Six make the same tables, partitions and secret."""
    said = processes(STARTER, server.url, schema, count=6)
    assert len(set(said)) == 1 and len(set(bytes.fromhex(said[0].strip()))) == 1
    assert sql(f"SELECT count(*) FROM {schema}.strangers") == [(6,)]


def test_the_first_secret_stays(server, schema):
    async def run():
        async with opened(server.url, schema) as engine:
            assert await engine.secret(SECRET) == SECRET
            assert await engine.secret(bytes(192)) == SECRET
        async with opened(server.url, schema) as engine:
            assert await engine.secret(bytes(192)) == SECRET

    asyncio.run(run())


def test_of_swaps_at_once_one_wins_and_each_has_its_own_answer(server, schema):
    async def run():
        async with opened(server.url, schema) as engine:
            same = [engine.swap(slots(1, kind=kind), [Write(0, 0, record, DAY)])
                    for record in range(1, 20) for kind in ("client", "waiting")]
            assert sorted(await asyncio.gather(*same)) == [False] * 36 + [True] * 2
            # Every other one expects what is not there; those before and after it in the same statement are written.
            for kind in ("domain", "hops"):
                mixed = [engine.swap(slots(number, kind=kind), [Write(0, number % 2, 7, DAY)]) for number in range(60)]
                assert await asyncio.gather(*mixed) == [True, False] * 30
                assert await engine.fetch(slots(*range(60), kind=kind)) == [7, 0] * 30

    asyncio.run(run())


def bounds(sql, schema):
    return sql(f"SELECT starts, ends FROM {schema}.partitions() ORDER BY starts")


def test_partitions_are_made_where_they_are_needed(server, schema, sql):
    """Whatever the settings: disjoint, and few for the longest."""
    # Short ones first: those that keep longer, and so are longer themselves, find others in their way.
    near = [days * DAY for days in (4, 6, 7, 8, 9, 11, 13, 15, 17, 20, 23, 30, 33)]
    keeps = (2 * DAY + 60, 4 * 3600 + 60, *near, 300 * DAY, 365 * DAY + 60, 40 * 365 * DAY, 60)

    async def run():
        async with opened(server.url, schema) as engine:
            for number, keep in enumerate(keeps):
                await put(engine, "waiting", number, number + 1, keep)
                assert await engine.fetch(slots(*range(number + 1), kind="waiting")) == list(range(1, number + 2))
            await engine.upkeep(int(time.time()))
            before = bounds(sql, schema)
            # Made ahead for as long as what was kept, not once more with each upkeep.
            await engine.upkeep(int(time.time()))
            assert bounds(sql, schema) == before
            assert await engine.fetch(slots(*range(len(keeps)), kind="waiting")) == list(range(1, len(keeps) + 1))

    asyncio.run(run())
    found = bounds(sql, schema)
    assert all(starts < ends for starts, ends in found)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(found))
    assert len(found) <= 2 * len(keeps)
    now = time.time()
    assert any(starts <= now + DAY < ends for starts, ends in found)
    # Not as long as the clock of one machine, which is years ahead, would have it.
    assert sql(f"SELECT reach FROM {schema}.state") == [(365 * DAY + 60,)]


def test_the_next_span_is_there_before_it_begins(server, schema, sql):
    async def run():
        async with opened(server.url, schema) as engine:
            await put(engine, "waiting", 1, 1, 2 * DAY + 60)
            await engine.upkeep(int(time.time()))

    asyncio.run(run())
    moment = int(time.time())
    for later in (0, DAY, 2 * DAY + 60, 3 * DAY + 60):
        assert any(starts <= moment + later < ends for starts, ends in bounds(sql, schema)), later


def test_expired_partitions_are_dropped_whole_and_no_others(server, schema, sql):
    async def run():
        now = int(time.time())
        async with opened(server.url, schema) as engine:
            await put(engine, "waiting", 1, 1)
            sql(f"SELECT {schema}.make_partition(-5 * 86400, true), {schema}.make_partition(-3 * 86400, true)")
            sql(f"INSERT INTO {schema}.strangers VALUES (9, now() - interval '3 days', '\\x77{key(2).hex()}')")
            both = slots(1, 2, kind="waiting")
            # By the clock of a machine that is behind nothing expired.
            await engine.upkeep(now - 30 * DAY)
            before = bounds(sql, schema)
            assert await engine.fetch(both) == [1, 9]
            # A transaction that reads them must not make anybody wait.
            with psycopg.connect(server.url) as reader:
                reader.execute(f"SELECT count(*) FROM {schema}.strangers")
                await engine.upkeep(now)
                assert bounds(sql, schema) == before
                assert await engine.fetch(both) == [1, 9]
            # By that of one that is ahead everything did; the server's own knows better.
            await engine.upkeep(now + 3650 * DAY)
            assert bounds(sql, schema) == before[2:]
            assert await engine.fetch(both) == [1, 0]
            assert sql(f"SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r' "
                       "AND relname LIKE 'strangers%'") == [(len(before) - 2,)]

    asyncio.run(run())


def test_expired_records_are_removed_in_batches(server, schema, sql, monkeypatch):
    """More pages than one statement looks through, and than one upkeep."""
    monkeypatch.setattr(postgresql, "SWEEP_PAGES", 16)
    monkeypatch.setattr(postgresql, "SWEEPS", 2)

    async def run():
        now = int(time.time())
        async with opened(server.url, schema) as engine:
            sql(f"INSERT INTO {schema}.known SELECT 1, now() + i % 3 * interval '1 day' - interval '1 hour', "
                f"decode(md5(i::text) || '63', 'hex') FROM generate_series(1, 9000) i")
            pages, = sql(f"SELECT pg_relation_size('{schema}.known') / 8192")[0]
            assert pages > 64
            await put(engine, "client", 1, 5)
            for sweep in range(pages // 32 + 1):
                left, = sql(f"SELECT count(*) FROM {schema}.known WHERE expires < now()")[0]
                assert (left < 3000) == (sweep > 0)
                await engine.upkeep(now)
            assert sql(f"SELECT count(*) FROM {schema}.known") == [(6001,)]
            assert await engine.fetch(slots(1)) == [5]

    asyncio.run(run())


def test_a_record_seen_again_takes_no_other_page(server, schema, sql):
    """HOT: no index is written to, and no dead row is left that vacuum has to find."""
    async def run():
        async with opened(server.url, schema) as engine:
            await put(engine, "client", 1, 1)
            for record in range(1, 30):
                assert await engine.swap(slots(1), [Write(0, record, record + 1, 36 * DAY)])

    asyncio.run(run())

    def counted():
        return sql(f"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = '{schema}.known'::regclass")

    assert wait_until(lambda: counted() == [(29, 29)]), counted()


def ended(sql, schema_of):
    """End every session of an engine, as a failover or an administrator does."""
    return sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'fastgrey' "
               f"AND query LIKE '%{schema_of}.%' OR application_name = 'fastgrey' AND query LIKE '%set_config%'")


def test_ended_sessions_are_replaced_unnoticed(server, schema, sql):
    async def run():
        async with opened(server.url, schema) as engine:
            await put(engine, "client", 1, 1)
            for record in range(1, 4):
                assert ended(sql, schema)[0][0] >= 3
                assert await engine.swap(slots(1, 2), [Write(0, record, record + 1, DAY)])
                assert await engine.swap(slots(3, kind="hops"), [Write(0, record - 1, record, DAY)])
                assert await engine.fetch([*slots(1), *slots(3, kind="hops")]) == [record + 1, record]

    asyncio.run(run())


def test_a_session_ended_in_the_middle_of_a_swap_leaves_all_or_nothing(server, schema, sql):
    async def run():
        async with opened(server.url, schema) as engine:
            await put(engine, "client", 1, 1)
            with psycopg.connect(server.url) as other:
                other.execute(f"SELECT FROM {schema}.known FOR UPDATE")
                swap = asyncio.ensure_future(engine.swap(slots(1, 2), [Write(0, 1, 2, DAY), Write(1, 0, 2, DAY)]))
                waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%swap%'"
                for _ in range(2):
                    while not (pids := sql(waits)):
                        await asyncio.sleep(0.01)
                    sql(f"SELECT pg_terminate_backend({pids[0][0]})")
                    while pids[0] in sql(waits):
                        await asyncio.sleep(0.01)
                # The second time is no accident any more.
                with pytest.raises(EngineError, match="terminat|closed"):
                    await swap
                assert await engine.fetch(slots(1, 2)) == [1, 0]
            assert await engine.swap(slots(1, 2), [Write(0, 1, 2, DAY), Write(1, 0, 2, DAY)])

    asyncio.run(run())


def test_a_lock_held_by_others_stops_nobody_for_longer_than_the_time_out(server, schema):
    async def run():
        async with opened(server.url, schema) as patient:
            await put(patient, "client", 1, 1)
        async with opened(server.url, schema, timeout=1) as engine:
            with psycopg.connect(server.url) as other:
                other.execute(f"SELECT FROM {schema}.known FOR UPDATE")
                assert "pg_stat_activity" in await trouble(engine, slots(1), [Write(0, 1, 2, DAY)])
                # What needs not that record goes on over the other connections.
                assert await engine.fetch(slots(1)) == [1]
                other.execute(f"LOCK TABLE {schema}.known")
                assert "pg_stat_activity" in await trouble(engine, slots(1))
            await until_it_answers(engine)
        async with opened(server.url, schema) as patient:
            assert await patient.swap(slots(1), [Write(0, 1, 2, DAY)])

    asyncio.run(run())


def test_a_server_that_does_not_answer_is_given_up(server, schema):
    async def run():
        async with opened(server.url, schema, timeout=1) as engine:
            server.pause()
            try:
                assert "no answer within 1 seconds" in await trouble(engine, slots(1))
                assert "no answer within 1 seconds" in await trouble(engine, slots(1), [Write(0, 0, 1, DAY)])
                # Closing does not wait for it either.
                await engine.close()
            finally:
                server.resume()
            await engine.open()
            assert await until_it_answers(engine) in ([0], [1])

    asyncio.run(run())


def test_a_server_that_was_away_is_found_again(server, schema):
    async def run():
        async with opened(server.url, schema) as engine:
            await put(engine, "client", 1, 1)
            server.stop()
            try:
                # The first finds the connection gone; whoever comes later is told at once.
                assert "refused" in await trouble(engine, slots(1))
                assert "start the server" in await trouble(engine, slots(1), [Write(0, 1, 2, DAY)])
            finally:
                server.start()
            assert await until_it_answers(engine) == [1]

    asyncio.run(run())
    assert "closed" not in refused("postgresql://postgres@127.0.0.1:1/postgres")


def test_records_are_there_after_a_crash(server, schema):
    """fsync is off for speed, and the page cache survives kill(2): what a flush is for is PostgreSQL's own business."""
    async def run():
        async with opened(server.url, schema) as engine:
            await put(engine, "triplet", 1, 1)
            server.kill()
            server.start()
            assert await until_it_answers(engine, slots(1, kind="triplet")) == [1]

    asyncio.run(run())


def test_what_was_earned_waits_for_its_flush_and_strangers_do_not(server, schema, sql):
    """With a standby named that never answers, a commit that is to be durable hangs."""
    async def run():
        async with opened(server.url, schema, timeout=2) as engine:
            await put(engine, "waiting", 9, 9)
            sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            sql("SELECT pg_reload_conf()")
            try:
                while sql("SHOW synchronous_standby_names") != [("nobody",)]:
                    await asyncio.sleep(0.01)
                with psycopg.connect(server.url, autocommit=True) as fresh:
                    assert fresh.execute("SHOW synchronous_commit").fetchone() == ("on",)
                deadline = time.monotonic() + 60
                number = 1
                # Sessions read the new setting when they are idle: one of the first swaps may still pass.
                while await waits_not(engine, number) and time.monotonic() < deadline:
                    number += 1
                assert time.monotonic() < deadline
                await put(engine, "waiting", 1001, 1)
                await put(engine, "hops", 1002, 1)
                # A hop that lets the sender pass was earned.
                await trouble(engine, [("hops", key(1003)), ("pair", key(1003))],
                              [Write(0, 0, 2, DAY), Write(1, 0, 2, DAY)])
            finally:
                sql("ALTER SYSTEM RESET synchronous_standby_names")
                sql("SELECT pg_reload_conf()")

    async def waits_not(engine, number):
        try:
            await put(engine, "client", number, 1)
        except EngineError:
            return False
        return True

    asyncio.run(run())


def test_a_database_that_became_read_only_is_left(server, schema, sql):
    async def run():
        async with opened(server.url, schema) as engine:
            await put(engine, "client", 1, 1)
            sql("ALTER SYSTEM SET default_transaction_read_only = on")
            sql("SELECT pg_reload_conf()")
            try:
                deadline = time.monotonic() + 60
                said = ""
                while "read-only" not in said and time.monotonic() < deadline:
                    with contextlib.suppress(EngineError):
                        records = await engine.fetch(slots(2))
                    try:
                        await engine.swap(slots(2), [Write(0, records[0], records[0] + 1, DAY)])
                    except EngineError as error:
                        said = str(error)
                assert "name all hosts in the URL" in said, said
                # That of strangers was asked nothing yet; that of what was earned is gone, and no other one is good.
                kept = (f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{schema}.swap(%' "
                        "AND pid <> pg_backend_pid()")
                assert wait_until(lambda: sql(kept) == [(1,)]), sql(kept)
                assert "read-only" in refused_in_thread(server.url, schema)
            finally:
                with psycopg.connect(server.url, autocommit=True,
                                     options="-c default_transaction_read_only=off") as writer:
                    writer.execute("ALTER SYSTEM RESET default_transaction_read_only")
                    writer.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    assert await engine.swap(slots(3), [Write(0, 0, 1, DAY)])
                    break
                except EngineError:
                    await asyncio.sleep(0.02)
            assert await engine.fetch(slots(3)) == [1]

    def refused_in_thread(url, schema):
        done = subprocess.run([sys.executable, "-c", STARTER, url, schema, "1"], input="\n", capture_output=True,
                              text=True, timeout=120)
        assert done.returncode != 0
        return done.stderr.splitlines()[-1]

    asyncio.run(run())


@pytest.mark.torture
def test_a_promoted_standby_takes_over(schema):
    """The primary dies; the URL names both."""
    async def run(primary, standby):
        url = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
        async with opened(url, schema) as engine:
            await engine.secret(SECRET)
            for number in range(20):
                await put(engine, "triplet", number, number + 1)
                await put(engine, "waiting", number, number + 1)
            with psycopg.connect(primary.url, autocommit=True) as there, \
                    psycopg.connect(standby.url, autocommit=True) as here:
                written, = there.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
                assert wait_until(lambda: here.execute(
                    "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written]).fetchone() == (True,))
            assert any("no standby is synchronous" in line for line in await engine.doubts())
            primary.kill()
            said = await trouble(engine, slots(1))
            assert str(standby.port) in engine.name and "see" not in said
            standby.promote()
            assert await until_it_answers(engine, slots(*range(20), kind="triplet")) == list(range(1, 21))
            deadline = time.monotonic() + 60
            while True:
                try:
                    assert await engine.swap(slots(30), [Write(0, 0, 1, DAY)])
                    break
                except EngineError:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.02)
            assert await engine.secret(bytes(192)) == SECRET

    with postgres_server.server() as primary, postgres_server.standby(primary) as standby:
        asyncio.run(run(primary, standby))


def test_a_host_that_says_nothing_is_waited_for_once(server, schema):
    """It takes connections, and that is all."""
    async def run(silent):
        url = (f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{server.port}/postgres"
               "?connect_timeout=2")
        async with opened(url, schema) as engine:
            await put(engine, "client", 1, 1)
            await put(engine, "waiting", 1, 1)
            assert await engine.fetch(slots(1)) == [1]

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(run(silent))
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_closing_ends_what_is_asked_and_it_opens_again(server, schema):
    async def run():
        engine = Postgresql(server.url, namespace=schema, timeout=LONG)
        assert "not open" in await trouble(engine, slots(1))
        await engine.open()
        await put(engine, "client", 1, 1)
        with psycopg.connect(server.url) as other:
            other.execute(f"LOCK TABLE {schema}.known")
            asked = [asyncio.ensure_future(engine.fetch(slots(1))) for _ in range(200)]
            asked.append(asyncio.ensure_future(engine.swap(slots(1), [Write(0, 1, 2, DAY)])))
            await asyncio.sleep(0)
            async with asyncio.timeout(LONG / 2):
                await engine.close()
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(one) for one in done} == {EngineError}
        assert "closed" in await trouble(engine, slots(1))
        await engine.open()
        assert await engine.fetch(slots(1)) in ([1], [2])
        await engine.close()
        await engine.close()

    asyncio.run(run())


def test_nothing_is_left_waiting_for_a_caller_that_gave_up(server, schema):
    """A client hangs up while its request waits: those beside it in the statement have their answers."""
    async def run():
        async with opened(server.url, schema) as engine:
            asked = [asyncio.ensure_future(engine.swap(slots(number), [Write(0, 0, 1, DAY)])) for number in range(40)]
            await asyncio.sleep(0)
            for one in asked[::2]:
                one.cancel()
            assert await asyncio.gather(*asked[1::2]) == [True] * 20

    asyncio.run(run())


def test_refusals_are_one_line_with_a_remedy(server, sql):
    there = f"127.0.0.1:{server.port}"
    assert "createdb nowhere" in refused(f"postgresql://postgres@{there}/nowhere")
    assert "createuser stranger" in refused(f"postgresql://stranger@{there}/postgres")
    assert "start the server there" in refused("postgresql://postgres@127.0.0.1:1/postgres")
    assert "start the server there" in refused("postgresql://postgres@/postgres?host=/nowhere")
    assert "name a host that there is" in refused("postgresql://postgres@db..example.net/postgres")
    sql("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    assert "max_connections" in refused(f"postgresql://crowded@{there}/postgres")
    for url in ("", "mysql://root@localhost/mail", "postgresql://me:hidden@[::1/mail"):
        with pytest.raises(EngineError, match="cannot be read; expected postgresql://") as caught:
            Postgresql(url)
        assert "hidden" not in str(caught.value)
    assert "hidden" not in refused("postgresql://me:hidden@127.0.0.1:x/mail")
    with pytest.raises(EngineError, match="cannot be a name"):
        Postgresql(server.url, namespace="a; drop schema fastgrey")


def test_a_password_comes_from_a_file_and_is_never_said(server, sql, tmp_path):
    sql("CREATE ROLE locked LOGIN PASSWORD 'opensesame'")
    sql("CREATE SCHEMA behind AUTHORIZATION locked")
    rules = server.data / "pg_hba.conf"
    before = rules.read_text()
    file = tmp_path / "password"
    url = f"postgresql://locked@127.0.0.1:{server.port}/postgres"
    rules.write_text("host all locked 127.0.0.1/32 scram-sha-256\nhost all shut 127.0.0.1/32 reject\n" + before)
    sql("SELECT pg_reload_conf()")
    try:
        assert wait_until(lambda: _asks_for_password(url))
        assert "password_file" in refused(url, "behind")
        assert "No such file" in refused(url, "behind", password_file=str(file))
        file.write_text("wrong\n")
        assert "right password" in refused(url, "behind", password_file=str(file))
        sql("CREATE ROLE shut LOGIN")
        assert "pg_hba.conf" in refused(url.replace("locked", "shut"), "behind")
        file.write_text("opensesame\n")

        async def run():
            async with opened(url, "behind", password_file=str(file)) as engine:
                await put(engine, "client", 1, 1)
                assert "opensesame" not in engine.name
            hidden = Postgresql(url.replace("locked@", "locked:opensesame@"), namespace="behind", timeout=LONG)
            await hidden.open()
            await hidden.close()
            assert "opensesame" not in hidden.name

        asyncio.run(run())
    finally:
        rules.write_text(before)
        sql("SELECT pg_reload_conf()")


def _asks_for_password(url):
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError as error:
        return "password" in str(error)
    return False


def test_a_role_with_the_least_rights_does_all_that_a_server_does(server, schema, sql):
    """What the module prints is run by the owner; the role may then neither make nor drop nor choose the secret."""
    role = f"gate_{schema}"
    sql(f"CREATE ROLE {role} LOGIN")
    url = f"postgresql://{role}@127.0.0.1:{server.port}/postgres"
    assert f"postgresql_schema {schema} {role} | psql postgres" in refused(url, schema)
    printed = subprocess.run([sys.executable, "-m", "fastgrey.shared.postgresql_schema", schema, role],
                             capture_output=True, text=True, check=True).stdout
    # Twice does no harm.
    for _ in range(2):
        subprocess.run([postgres_server.programs() / "psql", "-q", "-v", "ON_ERROR_STOP=1", server.url], input=printed,
                       text=True, check=True, capture_output=True)

    async def run():
        async with opened(url, schema) as engine:
            assert await engine.secret(SECRET) == SECRET
            await put(engine, "client", 1, 1)
            await put(engine, "waiting", 1, 1, 20 * DAY)
            assert await engine.swap(slots(1, kind="waiting"), [Write(0, 1, 2, 40 * DAY)])
            sql(f"SELECT {schema}.make_partition(-5 * 86400, true)")
            sql(f"UPDATE {schema}.known SET expires = now() - interval '1 hour'")
            before = bounds(sql, schema)
            await engine.upkeep(int(time.time()))
            assert bounds(sql, schema)[0] == before[1]
            assert await engine.fetch([*slots(1), *slots(1, kind="waiting")]) == [0, 2]

    asyncio.run(run())
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (f"UPDATE {schema}.state SET secret = ''", f"DELETE FROM {schema}.known",
                          f"DROP TABLE {schema}.known", f"CREATE TABLE {schema}.mine ()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    # A role without any right is told what to do.
    sql("CREATE ROLE outsider LOGIN")
    outside = url.replace(role, "outsider")
    assert "permission denied" in refused(outside, schema) and "| psql postgres" in refused(outside, schema)


def test_closing_at_once_leaves_no_connection(server, schema, sql):
    async def run():
        engine = Postgresql(f"{server.url}?application_name={schema}", namespace=schema, timeout=LONG)
        for _ in range(3):
            await engine.open()
            await engine.close()
        mine = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{schema}'"
        assert wait_until(lambda: sql(mine) == []), sql(mine)

    asyncio.run(run())


def test_another_version_is_refused(server, schema, sql):
    async def run():
        async with opened(server.url, schema):
            pass

    asyncio.run(run())
    sql(f"UPDATE {schema}.state SET version = version + 1")
    assert f"has version {postgresql_schema.VERSION + 1}" in refused(server.url, schema)


def test_dropping_leaves_nothing(server, schema, sql):
    async def run():
        async with opened(server.url, schema) as engine:
            assert await engine.secret(SECRET) == SECRET
            await put(engine, "client", 1, 1)
            await put(engine, "waiting", 1, 1)
            await engine.drop()
            await engine.drop()
            assert sql(f"SELECT to_regnamespace('{schema}')") == [(None,)]
            await engine.open()
            assert await engine.fetch([*slots(1), *slots(1, kind="waiting")]) == [0, 0]
            assert await engine.secret(bytes(192)) == bytes(192)

    asyncio.run(run())


def test_settings_that_lose_records_are_told(server, schema, sql):
    async def run():
        async with opened(server.url, schema) as engine:
            # The servers of these tests are as fast as they are because of it.
            line, = await engine.doubts()
            assert "set fsync = on" in line and engine.name in line
            sql("ALTER ROLE postgres SET synchronous_commit = off")
            try:
                assert ["synchronous_commit is off" in line for line in await engine.doubts()] == [False, True]
            finally:
                sql("ALTER ROLE postgres RESET synchronous_commit")

    asyncio.run(run())


def test_tables_that_go_while_it_runs_are_named(server, schema, sql):
    async def run():
        async with opened(server.url, schema) as engine:
            sql(f"DROP FUNCTION {schema}.swap")
            assert "makes it anew" in await trouble(engine, slots(1), [Write(0, 0, 1, DAY)])
            sql(f"DROP SCHEMA {schema} CASCADE")
            assert "makes it anew" in await trouble(engine, slots(1))
            await engine.open()
            await put(engine, "client", 1, 1)

    asyncio.run(run())


@machine.needs_root
def test_a_full_disk_is_told(server, schema, sql):
    """Of a table that lies on a small disk."""
    with postgres_server.directory() as place, machine.small_disk(place / "disk", "1M", "mode=777") as disk:
        os.chown(disk, *list(postgres_server.account().values())[:2])

        async def run():
            async with opened(server.url, schema) as engine:
                sql(f"CREATE TABLESPACE small{schema} LOCATION '{disk}'")
                sql(f"ALTER TABLE {schema}.known SET TABLESPACE small{schema}")
                await put(engine, "client", 1, 1)
                machine.fill_up(disk / "ballast")
                said = ""
                for number in range(2, 400):
                    try:
                        await put(engine, "client", number, 1)
                    except EngineError as error:
                        said = str(error)
                        break
                assert "make room there" in said
                assert await engine.fetch(slots(1, number)) == [1, 0]
                os.unlink(disk / "ballast")
                await put(engine, "client", number, 1)

        try:
            asyncio.run(run())
        finally:
            sql(f"DROP SCHEMA {schema} CASCADE")
            sql(f"DROP TABLESPACE IF EXISTS small{schema}")


def test_verdicts_are_those_of_the_embedded_store(server, schema, envelopes):
    """Real envelopes, each once more 400 seconds later."""
    values = settings.defaults()

    async def run():
        reasons = set()
        async with opened(server.url, schema) as engine:
            with (replay.replay_store(None, values) as own, replay.replay_store(None, values) as policy,
                  replay.Envelopes(str(envelopes)) as rows):
                await engine.secret(SECRET)
                shared = Greylist(policy, engine)
                for _, moment, client, name, sender, recipient in itertools.islice(rows, 1000):
                    for later in (0, 400):
                        request = {"client": client, "sender": sender, "recipient": recipient, "client_name": name,
                                   "now": moment + later}
                        verdict = await shared.check(**request)
                        # The keys are made with other secrets.
                        assert verdict[:3] == own.check(**request)[:3], request
                        reasons.add(verdict.reason)
        return reasons

    assert asyncio.run(run()) >= {"new", "retry", "known-client", "known-domain", "known-triplet"}
