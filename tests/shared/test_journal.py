"""The journal: it outlives whoever writes to it, and is written back once."""

import asyncio
import os
import sqlite3

import pytest

import fastgrey
from effort import chance, times, tried
from fastgrey._core import fetch_slots, swap_slots
from fastgrey.errors import StoreError
from fastgrey.shared.embedded import Embedded
from fastgrey.shared.journal import FullError, Journal
from fastgrey.shared.keeper import Keeper
from fastgrey.shared.merging import packed
from shared import children
from shared.memory_engine import MemoryEngine
from shared.outages import Clock, word
from tcpserver import wait_until

CLIENT = ("client", b"c" * 16)
NOW = 1_764_000_000

# Decides on its own, its engine being away: a mail a line, its time first; an answer a line.
ALONE = """
import asyncio, sys, fastgrey
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.standby import Standby
from shared.memory_engine import MemoryEngine

async def main():
    with fastgrey.open(sys.argv[1]) as store:
        engine = MemoryEngine()
        engine.away = True
        greylist = Greylist(store, engine, Standby(store))
        await greylist.open()
        for line in sys.stdin:
            now, client, sender, recipient = line.split()
            verdict = await greylist.check(client=client, sender=sender, recipient=recipient, now=int(now))
            print(verdict.reason, flush=True)

asyncio.run(main())
"""

# Writes the journal of a store back to another store, and is killed after so many swaps.
BACK = """
import asyncio, os, signal, sys, fastgrey
from fastgrey.shared.embedded import Embedded
from fastgrey.shared.keeper import Keeper

class Killing(Embedded):
    left = int(sys.argv[3])

    async def secret(self, own):
        return own

    async def swap(self, slots, writes):
        swapped = await super().swap(slots, writes)
        self.left -= 1
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return swapped

with fastgrey.open(sys.argv[1]) as store, fastgrey.open(sys.argv[2]) as there:
    asyncio.run(Keeper(store, Killing(there), clock=lambda: %d).run(asyncio.Event()))
""" % NOW


@pytest.fixture
def place(tmp_path):
    fastgrey.create(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def journal(place):
    made = Journal(place)
    made.open()
    yield made
    made.close()


def asked(child, *words):
    """What a child that decides answers to one mail."""
    child.stdin.write((" ".join(map(str, words)) + "\n").encode())
    child.stdin.flush()
    return child.stdout.readline().decode().strip()


OPEN = """
import sys
from fastgrey.shared.journal import Journal
sys.stdin.readline()
for place in sys.argv[1:]:
    journal = Journal(place)
    journal.open()
    journal.close()
"""


def test_many_make_it_at_once(tmp_path):
    places = [tmp_path / str(number) for number in range(200)]
    for place in places:
        place.mkdir()
    crowd = [children.begin(OPEN, *places) for _ in range(8)]
    for child in crowd:
        child.stdin.write(b"now\n")
        child.stdin.flush()
    assert [children.end(child) for child in crowd] == [0] * 8


@pytest.mark.torture
def test_a_kill_of_all_workers_loses_nothing(place):
    """Two processes decide in turn, both are killed, and two others know what they knew."""
    number, said = times(60), []
    with chance("workers killed") as draw:
        for moment in (NOW, NOW + 300, NOW + 301):
            crowd = [children.begin(ALONE, place) for _ in range(2)]
            try:
                for mail in range(number):
                    if draw.random() < 0.05:
                        children.end(crowd.pop(), kill=True)
                        crowd.append(children.begin(ALONE, place))
                    said.append(asked(draw.choice(crowd), moment, f"10.0.{mail % 250}.1", f"a@{word(mail)}.example",
                                      "u@x.example"))
            finally:
                for child in crowd:
                    children.end(child, kill=True)
    assert said == ["new"] * number + ["retry"] * number + ["known-domain"] * number
    tried("decisions by workers that are killed, the engine being away", decisions=len(said), lost=0)


@pytest.mark.torture
def test_what_is_written_back_by_one_that_is_killed_counts_once(tmp_path, place):
    """Between the engine's write and the journal's, and anywhere else."""
    fastgrey.create(tmp_path / "there")
    number = 40
    slots = [("client", bytes(15) + bytes([i])) for i in range(number)]
    with fastgrey.open(tmp_path / "there") as there:
        assert swap_slots(there, slots, [(i, 0, packed(NOW - 100, 2), 0) for i in range(number)])
    journal = Journal(place)
    journal.open()
    with journal.change(durable=True) as change:
        for slot in slots:
            change.owe(slot, packed(NOW, 4), 2)
    kills = 0
    with chance("keeper killed") as draw:
        for _ in range(200):
            if not journal.owed(1):
                break
            child = children.begin(BACK, place, tmp_path / "there", draw.randrange(1, 12))
            # Unless it has nothing more to do.
            wait_until(lambda child=child: child.poll() is not None or not journal.owed(1))
            kills += children.end(child, kill=True) != 0
    journal.close()
    with fastgrey.open(tmp_path / "there") as there:
        assert fetch_slots(there, slots) == [packed(NOW, 4)] * number
    assert kills > 3
    tried("write-backs killed", kills=kills, records=number, counted_twice=0)


def test_one_process_writes_back(place, journal):
    other = Journal(place)
    other.open()
    assert journal.lock() and journal.lock()
    assert not other.lock()
    journal.close()
    assert other.lock()
    other.close()
    journal.open()


def test_records_of_any_size(journal):
    """A count of 24 bits makes a record larger than SQLite's numbers."""
    record = packed((1 << 40) - 1, (1 << 24) - 1)
    with journal.change(durable=True) as change:
        change.owe(CLIENT, record, 1)
        change.copy(("pair", CLIENT[1]), record)
    assert journal.look([CLIENT, ("pair", CLIENT[1]), ("hops", CLIENT[1])]) == [
        (("pair", CLIENT[1]), record, False), (CLIENT, record, True)]


def test_what_is_earned_while_it_is_written_back_stays_owed(journal):
    with journal.change(durable=True) as change:
        change.owe(CLIENT, packed(NOW, 1), 1)
    read, = journal.owed(10)
    with journal.change(durable=True) as change:
        change.owe(CLIENT, packed(NOW + 1, 2), 1)
    with journal.change(durable=True) as change:
        change.paid(read)
    left, = journal.owed(10)
    assert (left.record, left.gains) == (packed(NOW + 1, 2), 1)
    with journal.change(durable=True) as change:
        change.paid(left)
    assert journal.owed(10) == []


def test_a_transaction_that_fails_writes_nothing(journal):
    with pytest.raises(KeyError), journal.change(durable=True) as change:
        change.owe(CLIENT, packed(NOW, 1), 1)
        raise KeyError
    assert journal.numbers() == (0, 0)


def test_full(place):
    small = Journal(place, 32 << 10)
    small.open()
    with pytest.raises(FullError):
        for number in range(2000):
            with small.change(durable=False) as change:
                change.owe(("waiting", number.to_bytes(16, "big")), NOW, 0)
    assert small.crowded()
    assert 0 < small.numbers()[0] < 2000
    small.close()


def test_keeps_others_out(place, journal):
    assert (place / "journal").stat().st_mode & 0o777 == 0o700
    assert {file.name for file in (place / "journal").iterdir()} <= {"records", "records-wal", "records-shm", "lock"}


def test_refuses_what_is_not_its_own(tmp_path, place):
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", place / "journal")
    with pytest.raises(StoreError, match="not a directory of the user"):
        Journal(place).open()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_refuses_another_version(place, journal):
    journal.close()
    with sqlite3.connect(place / "journal" / "records") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(StoreError, match="format version 7, not 1.*move it away"):
        journal.open()


def test_refuses_damage(place, journal):
    journal.close()
    for file in (place / "journal").iterdir():
        file.unlink()
    (place / "journal" / "records").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="cannot open the journal"):
        journal.open()


def test_what_is_too_old_to_count_is_dropped(place, journal):
    async def run():
        engine = MemoryEngine()
        with journal.change(durable=True) as change:
            change.owe(("waiting", CLIENT[1]), NOW, 0)
            change.owe(("pair", CLIENT[1]), packed(NOW, 1), 1)
        with fastgrey.open(place) as store:
            keeper = Keeper(store, engine, clock=Clock(NOW + 86400 * 30))
            keeper.journal.open()
            await keeper.write_back()
            keeper.journal.close()
        assert engine.records == {("pair", CLIENT[1]): packed(NOW, 1)}
        assert journal.owed(10) == []
    asyncio.run(run())


def test_a_record_that_others_change_all_the_time_is_written_back(place, journal):
    """Compared and set anew until it fits."""
    async def run():
        engine = MemoryEngine()
        engine.records[CLIENT] = packed(NOW, 1)
        fetch, changes = engine.fetch, iter(range(5))

        async def changing(slots):
            found = await fetch(slots)
            if next(changes, None) is not None:
                engine.records[CLIENT] += 1 << 40
            return found

        engine.fetch = changing
        with journal.change(durable=True) as change:
            change.owe(CLIENT, packed(NOW + 5, 3), 2)
        with fastgrey.open(place) as store:
            keeper = Keeper(store, engine, clock=Clock(NOW + 10))
            keeper.journal.open()
            while journal.owed(1):
                await keeper.write_back()
            keeper.journal.close()
        assert engine.records[CLIENT] == packed(NOW + 5, 1 + 5 + 2)
    asyncio.run(run())


def test_embedded_is_an_engine_for_it(place, tmp_path, journal):
    """Its own kinds, all of them."""
    async def run():
        fastgrey.create(tmp_path / "there")
        kinds = ("client", "domain", "triplet", "pair", "hops")
        with fastgrey.open(place) as store, fastgrey.open(tmp_path / "there") as there:
            with journal.change(durable=True) as change:
                for kind in kinds:
                    change.owe((kind, CLIENT[1]), packed(NOW, 2), 2)
                change.owe(("waiting", b"w" * 16), NOW, 0)
            keeper = Keeper(store, Embedded(there), clock=Clock(NOW))
            keeper.journal.open()
            assert await keeper.write_back() == 6
            assert keeper.carry() == 6
            keeper.journal.close()
            slots = [*((kind, CLIENT[1]) for kind in kinds), ("waiting", b"w" * 16)]
            assert fetch_slots(there, slots) == fetch_slots(store, slots) == [packed(NOW, 2)] * 5 + [NOW]
        assert journal.numbers() == (0, 0)
    asyncio.run(run())
