"""Valkey in particular: what it answers with errors, what becomes of scripts, expiry, replicas and moved slots."""

import asyncio
import contextlib
import os
import re
import shutil
import threading
import time

import pytest
import valkey

from fastgrey.errors import EngineError
from fastgrey.shared.engine import Write
from fastgrey.shared.open import engine_from_url
from fastgrey.shared.valkey import SWAP_SHA
from ports import free_port
from shared import redis_server
from shared.conftest import opened
from shared.engines import new_space
from shared.redis_server import wait_until

NOW = 1_700_000_000
PASSWORD = "s3cret-of-the-engine"
# Long, where nothing is about being late.
PATIENT = 60.0


@pytest.fixture(scope="module")
def server():
    with redis_server.server() as server:
        yield server


def slots_of(count, kind="client"):
    return [(kind, os.urandom(16)) for _ in range(count)]


def error_of(url, work=None, timeout=PATIENT, **options):
    """The line of what goes wrong when the engine is opened and work is done with it."""
    async def run():
        engine = engine_from_url(url, timeout=timeout, **options)
        try:
            await engine.open()
            if work is not None:
                await work(engine)
        finally:
            await engine.close()

    with pytest.raises(EngineError) as caught:
        asyncio.run(run())
    line = str(caught.value)
    assert "\n" not in line and PASSWORD not in line and len(line) < 400
    return line


async def write_one(engine):
    await engine.swap(slots_of(1), [Write(0, 0, NOW, 60)])


# Errors that a server answers with.

def test_no_password(server):
    server.set(requirepass=PASSWORD)
    try:
        line = error_of(f"valkey://127.0.0.1:{server.port}")
        assert "NOAUTH" in line and "password_file" in line
    finally:
        server.client(password=PASSWORD).config_set("requirepass", "")


def test_another_password(server):
    server.set(requirepass=PASSWORD)
    try:
        assert "WRONGPASS" in error_of(f"valkey://:{PASSWORD}x@127.0.0.1:{server.port}")
    finally:
        server.client(password=PASSWORD).config_set("requirepass", "")


def test_a_password_that_nobody_wants(server):
    line = error_of(f"valkey://:{PASSWORD}@127.0.0.1:{server.port}")
    assert "without any password" in line and line.endswith("leave out user and password")


def test_a_password_in_a_file(server, tmp_path):
    file = tmp_path / "password"
    server.ask("ACL", "SETUSER", "mx", "on", f">{PASSWORD}", "~*", "+@all")
    url = f"valkey://mx@127.0.0.1:{server.port}"
    for wrong in (b"", b"one\ntwo\n", b"\xff\xfe\n"):
        file.write_bytes(wrong)
        assert str(file) in error_of(url, password_file=str(file))
    assert "No such file" in error_of(url, password_file=str(tmp_path / "none"))
    file.write_text(PASSWORD + "\n")

    async def run():
        async with opened(engine_from_url(url, password_file=str(file), timeout=PATIENT)) as (engine,):
            await write_one(engine)
            assert engine.name == url

    asyncio.run(run())


def test_a_user_with_too_few_rights(server):
    server.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@all", "-evalsha")
    line = error_of(f"valkey://reader:{PASSWORD}@127.0.0.1:{server.port}", write_one)
    assert "NOPERM" in line and "ACL SETUSER" in line


def test_the_rights_that_are_named_are_enough(server):
    from fastgrey.shared.valkey_answers import REMEDIES
    rights = REMEDIES["NOPERM"].partition("SETUSER USER ")[2].split()
    server.ask("ACL", "SETUSER", "exact", "reset", "on", f">{PASSWORD}", *rights)

    async def run():
        url = f"valkey://exact:{PASSWORD}@127.0.0.1:{server.port}/3?wait=1"
        async with opened(engine_from_url(url, timeout=2)) as (engine,):
            await engine.secret(b"x" * 192)
            await write_one(engine)
            await engine.doubts()
            await engine.drop()

    asyncio.run(run())


def test_no_such_database(server):
    assert "name another number" in error_of(f"valkey://127.0.0.1:{server.port}/99")


def test_full(server):
    server.set(maxmemory=1, maxmemory_policy="noeviction")
    try:
        line = error_of(server.url, write_one)
        assert "OOM" in line and "maxmemory" in line
    finally:
        server.set(maxmemory=0)


def test_cannot_write_its_snapshots(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    with redis_server.server(save="3600 1", dir=folder) as server:
        shutil.rmtree(folder)
        server.ask("BGSAVE")
        wait_until(lambda: server.client().info("persistence")["rdb_last_bgsave_status"] == "err", "what failed")
        assert "MISCONF" in error_of(server.url, write_one)


def test_too_few_replicas_for_it(server):
    server.set(min_replicas_to_write=1)
    try:
        assert "min-replicas-to-write" in error_of(server.url, write_one)
    finally:
        server.set(min_replicas_to_write=0)


def test_a_replica(server):
    with redis_server.server(replicaof=f"127.0.0.1 {server.port}") as replica:
        wait_until(lambda: replica.client().info("replication")["master_link_status"] == "up", "the replica")
        line = error_of(replica.url, write_one)
        assert "READONLY" in line and "primary" in line


def test_it_reads_its_data():
    with redis_server.server(enable_debug_command="yes") as server:
        server.ask("DEBUG", "POPULATE", 10_000)
        server.ask("SAVE")
        server.kill()
        # Seconds for all keys, a look at what clients want after some forty.
        server.settings["key-load-delay"] = 5000
        server.settings["loading-process-events-interval-bytes"] = 1024
        server.launch()
        wait_until(lambda: _says(server, "LOADING"), "a server that reads its data")
        assert "LOADING" in error_of(server.url)


def _says(server, word):
    try:
        server.ask("PING")
    except valkey.ValkeyError as error:
        return word in f"{type(error).__name__} {error}".upper()
    return False


def test_kept_busy_by_another_script(server):
    server.set(busy_reply_threshold=20)

    def spin():
        with contextlib.suppress(valkey.ValkeyError):
            server.client().eval("while true do end", 0)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        wait_until(lambda: _says(server, "BUSY"), "a busy server")
        assert "BUSY" in error_of(server.url)
    finally:
        server.ask("SCRIPT", "KILL")
        thread.join()


def test_more_clients_than_it_takes(server):
    held = [server.client() for _ in range(3)]
    for client in held:
        client.ping()
    try:
        held[0].config_set("maxclients", len(held[0].client_list()))
        assert "maxclients" in error_of(server.url)
    finally:
        held[0].config_set("maxclients", 1000)
        for client in held:
            client.close()


def test_what_is_no_secret(server):
    server.ask("SET", "{fastgrey}:secret", "short")
    try:
        assert "another name space" in error_of(server.url, lambda engine: engine.secret(b"x" * 192))
    finally:
        server.ask("DEL", "{fastgrey}:secret")


# URLs.

@pytest.mark.parametrize(("url", "says"), [
    ("mysql://host/db", "no engine is called 'mysql'"),
    ("valkey", "is no HOST:PORT"),
    ("", "no engine is called ''"),
    ("valkey://", "is no HOST:PORT"),
    ("valkey://host:0", "is no HOST:PORT"),
    ("valkey://host:99999999999", "is no HOST:PORT"),
    ("valkey://[::1", "write valkey://HOST:6379"),
    ("valkey://one,two", "several hosts"),
    ("valkey://host/mail", "is no database"),
    ("valkey+cluster://host/1", "database 0 only"),
    ("valkey+sentinel://host", "no service"),
    ("valkey+ring://host", "no such way"),
    ("valkey://host?size=1", "no option 'size'"),
    ("valkey://host?wait=many", "expected a number of replicas"),
])
def test_urls_that_mean_nothing(url, says):
    with pytest.raises(EngineError) as caught:
        engine_from_url(url)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("url", [f"valkey://u:{PASSWORD}@host:0", f"valkey://u:{PASSWORD}@one,two",
                                 f"valkey+sentinel://:{PASSWORD}@host", f"valkey://u:{PASSWORD}@[::1",
                                 f"valkey://u:{PASSWORD}/x@host", f"valkey://u:1/{PASSWORD}@host",
                                 f"valkey://u:1?{PASSWORD}@host", f"valkey://u:1#{PASSWORD}@host",
                                 f"valkey://u:{PASSWORD}\u2100@host", f"postgresql://u:1/{PASSWORD}@host/db",
                                 f"postgresql://u:{PASSWORD}/x@host/db"])
def test_no_error_shows_a_password(url):
    with pytest.raises(EngineError) as caught:
        engine_from_url(url)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("name", ["", "Mail", "a-b", "1a", "a" * 41, "a}b", "ä"])
def test_name_spaces_that_cannot_be(name):
    with pytest.raises(EngineError, match="cannot be a name space"):
        engine_from_url("valkey://host", name=name)


def test_names_of_engines():
    names = {
        f"valkey://user:{PASSWORD}@host/2": "valkey://user@host:6379/2",
        f"rediss://:{PASSWORD}@[2001:db8::1]:7000?ca=/etc/ca.crt": "rediss://[2001:db8::1]:7000",
        f"valkey+sentinel://:{PASSWORD}@a,b:1/mail": "valkey+sentinel://a:26379,b:1/mail",
    }
    assert {url: engine_from_url(url).name for url in names} == names


# Being away.

def test_nobody_listens():
    line = error_of(f"valkey://:{PASSWORD}@127.0.0.1:{free_port()}")
    assert "Connection refused" in line


def test_a_name_that_is_none():
    assert "cannot reach" in error_of("valkey://nobody.invalid", timeout=30)


def test_one_that_does_not_answer_is_given_up_and_found_again():
    slots = slots_of(2)

    async def run(server):
        async with opened(engine_from_url(server.url, timeout=0.5)) as (engine,):
            await engine.swap(slots, [Write(0, 0, NOW, 600)])
            server.pause()
            try:
                # All that wait at once, and then one that begins anew, and one that is not even tried.
                for _ in range(3):
                    found = await asyncio.gather(*(engine.fetch(slots) for _ in range(20)),
                                                 *(engine.swap(slots, [Write(1, 0, 1, 600)]) for _ in range(20)),
                                                 return_exceptions=True)
                    assert {type(error) for error in found} == {EngineError}
                    assert all("does not answer within 0.5s" in str(error) for error in found)
            finally:
                server.resume()
            assert (await until_it_answers(engine, slots))[0] == NOW

    with redis_server.server() as server:
        asyncio.run(run(server))


def test_one_that_was_killed_is_found_again():
    slots = slots_of(1)

    async def run(server):
        async with opened(engine_from_url(server.url, timeout=PATIENT)) as (engine,):
            for _ in range(3):
                await engine.fetch(slots)
                server.kill()
                with pytest.raises(EngineError, match="see whether it runs"):
                    await engine.fetch(slots)
                with pytest.raises(EngineError, match="see whether it runs"):
                    await write_one(engine)
                await asyncio.to_thread(server.start)
                assert await until_it_answers(engine, slots) == [0]
                # It knows no script any more.
                assert await engine.swap(slots_of(1), [Write(0, 0, NOW, 600)]) is True

    with redis_server.server() as server:
        asyncio.run(run(server))


async def until_it_answers(engine, slots):
    """What is there, once the engine is asked again."""
    deadline = time.monotonic() + redis_server.PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(EngineError):
            return await engine.fetch(slots)
        await asyncio.sleep(0.05)
    raise AssertionError("never asked again")


def test_one_that_is_slow_and_steady_is_given_up():
    """It always has an answer to the oldest question by the next look, and those behind it wait longer and longer."""
    serving = []

    async def answer(reader, writer):
        serving.append(asyncio.current_task())
        try:
            while head := await reader.readline():
                words = [await reader.readexactly(int((await reader.readline())[1:]) + 2) for _ in range(int(head[1:]))]
                await asyncio.sleep(0.01)
                writer.write(b"*1\r\n$-1\r\n" if words[0] == b"MGET\r\n" else b"+OK\r\n")
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.transport.abort()

    async def run():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as slow:
            host, port = slow.sockets[0].getsockname()
            async with opened(engine_from_url(f"valkey://{host}:{port}", timeout=2)) as (engine,):
                found = await asyncio.gather(*(engine.fetch(slots_of(1)) for _ in range(1000)), return_exceptions=True)
                assert found[0] == [0]
                assert "does not answer within 2s" in str(found[-1])
            for task in serving:
                task.cancel()
            await asyncio.wait(serving)
            # For the transport, which closes its socket in the next turn.
            await asyncio.sleep(0)

    asyncio.run(run())


def test_after_a_failure_nobody_waits_for_a_while(server):
    """Attempts to connect come ever more rarely, however many ask."""
    async def run():
        engine = engine_from_url(f"valkey://127.0.0.1:{free_port()}", timeout=PATIENT)
        attempts = 0
        connect = engine._line._connect

        async def counted():
            nonlocal attempts
            attempts += 1
            return await connect()

        engine._line._connect = counted
        for _ in range(500):
            with pytest.raises(EngineError):
                await engine.fetch(slots_of(1))
        assert attempts < 50
        await engine.close()

    asyncio.run(run())


def test_whoever_gives_up_waiting_takes_nobodys_answer(server):
    """An answer that nobody waits for any more is not taken for the next one."""
    slots = [slots_of(1) for _ in range(100)]

    async def run():
        async with opened(engine_from_url(server.url, timeout=PATIENT)) as (engine,):
            for number, slot in enumerate(slots):
                await engine.swap(slot, [Write(0, 0, NOW + number, 600)])
            tasks = [asyncio.create_task(engine.fetch(slot)) for slot in slots]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            for number, answer in enumerate(found):
                assert isinstance(answer, asyncio.CancelledError) if number % 3 == 0 else answer == [NOW + number]
            assert await engine.fetch(slots[0]) == [NOW]

    asyncio.run(run())


def test_whoever_gives_up_waiting_for_a_connection_takes_it_from_nobody(server):
    async def run():
        engine = engine_from_url(server.url, timeout=PATIENT)
        tasks = [asyncio.create_task(engine.fetch(slots_of(1))) for _ in range(5)]
        # They have begun to wait for one and the same attempt.
        while engine._line._opening is None:
            await asyncio.sleep(0)
        tasks[0].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError) and found[1:] == [[0]] * 4
        await engine.close()

    asyncio.run(run())


# Records and scripts.

def test_records_and_keys_are_as_documented(server):
    space = new_space()
    key = os.urandom(16)
    letters = {"client": b"c", "domain": b"d", "triplet": b"t", "pair": b"p", "waiting": b"w", "hops": b"h"}

    async def run():
        async with opened(engine_from_url(server.url, name=space, timeout=PATIENT)) as (engine,):
            await engine.swap([(kind, key) for kind in letters], [Write(i, 0, (i + 1 << 40) + NOW, 1000 * (i + 1))
                                                                  for i in range(len(letters))])
            await engine.secret(b"s" * 192)

    asyncio.run(run())
    with server.client() as client:
        for number, letter in enumerate(letters.values()):
            name = b"{%s}%s%s" % (space.encode(), letter, key)
            assert client.get(name) == ((number + 1 << 40) + NOW).to_bytes(8, "big")
            assert 1000 * (number + 1) - 300 < client.ttl(name) <= 1000 * (number + 1)
        assert client.get(f"{{{space}}}:secret") == b"s" * 192
        assert client.ttl(f"{{{space}}}:secret") == -1


def test_the_server_drops_what_expired(server):
    slots = slots_of(2)

    async def run():
        async with opened(engine_from_url(server.url, timeout=PATIENT)) as (engine,):
            await engine.swap(slots, [Write(0, 0, NOW, 1), Write(1, 0, NOW, 600)])
            deadline = time.monotonic() + redis_server.PATIENCE
            while (found := await engine.fetch(slots))[0] and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            assert found == [0, NOW]
            # A new life for a record is a new time to keep it.
            assert await engine.swap(slots, [Write(0, 0, NOW, 4), Write(1, NOW, NOW + 1, 4)])
            assert await engine.swap(slots, [Write(1, NOW + 1, NOW + 2, 600)])
            while (found := await engine.fetch(slots))[0] and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            assert found == [0, NOW + 2]

    asyncio.run(run())


def test_scripts_that_were_flushed(server):
    async def run():
        async with opened(engine_from_url(server.url, timeout=PATIENT)) as (engine,):
            slots = slots_of(1)
            for number in range(3):
                server.ask("SCRIPT", "FLUSH")
                assert await engine.swap(slots, [Write(0, NOW + number - 1 if number else 0, NOW + number, 60)]) is True
                assert server.ask("SCRIPT", "EXISTS", SWAP_SHA) == [True]
                assert await engine.swap(slots, [Write(0, 1, 2, 60)]) is False

    asyncio.run(run())


def test_doubts(server):
    async def doubts(query=""):
        async with opened(engine_from_url(server.url + query, timeout=PATIENT)) as (engine,):
            return await engine.doubts()

    try:
        server.set(appendonly="yes")
        assert asyncio.run(doubts()) == []
        assert "0 replicas" in asyncio.run(doubts("?wait=2"))[0]
        server.set(maxmemory_policy="allkeys-lru")
        (line,) = asyncio.run(doubts())
        assert "allkeys-lru" in line and "noeviction" in line
    finally:
        server.set(maxmemory_policy="noeviction", appendonly="no")
    assert "appendonly" in asyncio.run(doubts())[0]


# Replicas.

def test_earned_records_wait_for_a_replica():
    async def run(watched):
        url = f"valkey://127.0.0.1:{watched.primary.port}?wait=1"
        async with opened(engine_from_url(url, timeout=PATIENT)) as (engine,):
            slots = slots_of(1)
            await engine.swap(slots, [Write(0, 0, NOW, 600)])
            assert engine.unconfirmed == 0
            with watched.replica.client() as client:
                assert client.get(b"{fastgrey}c" + slots[0][1]) == NOW.to_bytes(8, "big")
        async with opened(engine_from_url(url, timeout=2)) as (engine,):
            watched.replica.pause()
            try:
                # Who is only waiting to pass does not wait for that as well.
                for kind, unconfirmed in (("waiting", 0), ("hops", 0), ("triplet", 1), ("domain", 2)):
                    assert await engine.swap(slots_of(1, kind), [Write(0, 0, NOW, 600)]) is True
                    assert engine.unconfirmed == unconfirmed
                assert "2 promotions are not known to be" in (await engine.doubts())[-1]
            finally:
                watched.replica.resume()

    with redis_server.watched() as watched:
        asyncio.run(run(watched))


def test_many_that_wait_for_replicas_that_do_not_answer_are_written(server):
    """They do so together, and what comes meanwhile is not late because of them."""
    async def run():
        async with opened(engine_from_url(f"{server.url}?wait=1", timeout=2)) as (engine,):
            async def write(number):
                await asyncio.sleep(number / 10)
                return await engine.swap(slots_of(1), [Write(0, 0, NOW, 600)])

            assert await asyncio.gather(*map(write, range(60))) == [True] * 60
            assert engine.unconfirmed == 60

    asyncio.run(run())


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_failover_is_followed(password):
    """Nothing that was written is gone."""
    async def run(watched):
        async with opened(engine_from_url(watched.url, timeout=PATIENT)) as (engine,):
            slots = slots_of(2)
            for number in range(2):
                assert await write_until_it_is(engine, slots, number)
                # The next one has it before it takes over.
                wait_until(lambda number=number: all(one.client().dbsize() == number + 1
                                                     for one in (watched.primary, watched.replica)), "the replica")
                if number == 0:
                    await asyncio.to_thread(watched.switch)
            assert await until_it_answers(engine, slots) == [NOW, NOW + 1]

    settings = {} if password is None else {"password": password}
    with redis_server.watched(**settings) as watched:
        asyncio.run(run(watched))


async def write_until_it_is(engine, slots, number):
    """Write one, again where the engine is away or the answer was lost."""
    deadline = time.monotonic() + redis_server.PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(EngineError):
            if await engine.swap(slots, [Write(number, 0, NOW + number, 600)]):
                return True
            if (await engine.fetch(slots))[number] == NOW + number:
                return True
        await asyncio.sleep(0.05)
    return False


def test_a_primary_that_is_demoted_under_us_is_left():
    """It closes no connection and answers READONLY; the Sentinels know another one."""
    async def run(watched):
        async with opened(engine_from_url(watched.url, timeout=PATIENT)) as (engine,):
            slots = slots_of(2)
            assert await engine.swap(slots, [Write(0, 0, NOW, 600)])
            before = engine._line.link
            old, new = watched.primary, watched.replica
            wait_until(lambda: new.client().dbsize() == 1, "the replica")
            # The Sentinel is told of another place first, so that all that changes for us is the role.
            new.ask("REPLICAOF", "NO", "ONE")
            sentinel = watched.sentinels[0]
            sentinel.ask("SENTINEL", "REMOVE", redis_server.SERVICE)
            sentinel.ask("SENTINEL", "MONITOR", redis_server.SERVICE, "127.0.0.1", new.port, 1)
            wait_until(lambda: watched.named() == new.port, "the Sentinel")
            old.ask("REPLICAOF", "127.0.0.1", new.port)
            assert before.lost is None
            assert await engine.swap(slots, [Write(1, 0, NOW + 1, 600)]) is True
            assert await engine.fetch(slots) == [NOW, NOW + 1]
            assert engine._line.link.connection.port == new.port

    with redis_server.watched() as watched:
        asyncio.run(run(watched))


def test_a_service_that_no_sentinel_knows():
    with redis_server.watched() as watched:
        url = watched.url.replace(redis_server.SERVICE, "other")
        assert "no Sentinel answers and knows" in error_of(url, timeout=5)


def test_a_sentinel_that_names_a_replica_is_not_believed():
    with redis_server.watched() as watched:
        sentinel = watched.sentinels[0]
        sentinel.ask("SENTINEL", "REMOVE", redis_server.SERVICE)
        sentinel.ask("SENTINEL", "MONITOR", redis_server.SERVICE, "127.0.0.1", watched.replica.port, 1)
        assert re.search("is a replica|no Sentinel answers and knows", error_of(watched.url))


def test_sentinels_that_are_gone_are_passed_over():
    with redis_server.watched() as watched:
        url = f"valkey+sentinel://127.0.0.1:{free_port()},127.0.0.1:{watched.sentinels[0].port}/greylist"

        async def run():
            async with opened(engine_from_url(url, timeout=PATIENT)) as (engine,):
                await write_one(engine)

        asyncio.run(run())


# Clusters.

@pytest.fixture(scope="module")
def cluster():
    with redis_server.cluster() as cluster:
        yield cluster


def test_all_keys_of_a_store_are_on_one_node(cluster):
    async def run():
        for _ in range(5):
            space = new_space()
            async with opened(engine_from_url(cluster.url, name=space, timeout=PATIENT)) as (engine,):
                await engine.secret(b"x" * 192)
                await engine.swap(slots_of(9), [Write(i, 0, NOW, 600) for i in range(9)])
                owner = cluster.owner(f"{{{space}}}")
                assert len(owner.client().keys(f"{{{space}}}*")) == 10
                await engine.drop()
                assert owner.client().keys(f"{{{space}}}*") == []

    asyncio.run(run())


def test_a_node_that_is_named_as_a_single_server(cluster):
    others = [node for node in cluster.nodes if node is not cluster.owner("{fastgrey}")]
    line = error_of(others[0].url, write_one)
    assert "MOVED" in line and "valkey+cluster" in line


def test_a_single_server_that_is_named_as_a_cluster(server):
    line = error_of(f"valkey+cluster://127.0.0.1:{server.port}")
    assert "Cluster mode is not enabled" in line


def test_nodes_that_are_gone_are_passed_over(cluster):
    async def run():
        url = f"valkey+cluster://127.0.0.1:{free_port()},127.0.0.1:{cluster.nodes[1].port}"
        async with opened(engine_from_url(url, timeout=PATIENT)) as (engine,):
            await write_one(engine)

    asyncio.run(run())


def test_a_slot_that_is_moved(cluster):
    """While it is on its way the engine is away, and says why; where it went it is found at once."""
    space = new_space()

    async def run():
        async with opened(engine_from_url(cluster.url, name=space, timeout=PATIENT)) as (engine,):
            slots = slots_of(4)
            await engine.swap(slots, [Write(i, 0, NOW + i, 600) for i in range(2)])
            old = cluster.owner(f"{{{space}}}")
            new = next(node for node in cluster.nodes if node is not old)
            slot = old.ask("CLUSTER", "KEYSLOT", f"{{{space}}}")
            ids = {node: node.ask("CLUSTER", "MYID").decode() for node in (old, new)}
            new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[old])
            old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[new])
            # What is all there still, what is there in part, and what is not there.
            assert await engine.fetch(slots[:2]) == [NOW, NOW + 1]
            for asked in (slots, slots[2:]):
                with pytest.raises(EngineError, match="is being moved"):
                    await engine.fetch(asked)
            keys = old.client().keys(f"{{{space}}}*")
            old.ask("MIGRATE", "127.0.0.1", new.port, "", 0, 30_000, "KEYS", *keys)
            with pytest.raises(EngineError, match="is being moved"):
                await engine.fetch(slots)
            for node in (new, old):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[new])
            # Many at once, reading and writing: each is sent on.
            found = await asyncio.gather(*(engine.fetch(slots) for _ in range(20)),
                                         *(engine.swap(slots_of(1), [Write(0, 0, NOW, 600)]) for _ in range(20)))
            assert found == [[NOW, NOW + 1, 0, 0]] * 20 + [True] * 20
            assert engine._line.link.connection.port == new.port
            await engine.drop()

    asyncio.run(run())


def test_a_cluster_with_a_part_missing():
    with redis_server.cluster(count=3) as cluster:
        async def run():
            async with opened(engine_from_url(cluster.url, timeout=PATIENT)) as (engine,):
                await write_one(engine)
                owner = cluster.owner("{fastgrey}")
                slot = owner.ask("CLUSTER", "KEYSLOT", "{fastgrey}")
                owner.ask("CLUSTER", "DELSLOTS", (slot + 1) % redis_server.SLOTS)
                wait_until(lambda: b"cluster_state:fail" in redis_server._raw(owner, "CLUSTER", "INFO"), "the loss")
                with pytest.raises(EngineError, match="CLUSTERDOWN.*CLUSTER NODES"):
                    await write_one(engine)

        asyncio.run(run())
