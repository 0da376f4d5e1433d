"""The local table as an engine: the same decisions, compared and set under contention, kills and compactions."""

import asyncio
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastgrey
from effort import chance, times, tried
from fastgrey import settings
from fastgrey._core import Case, fetch_slots, store_secret, swap_slots
from fastgrey.errors import EngineError
from fastgrey.shared.embedded import Embedded, merge
from fastgrey.shared.engine import Write
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.merging import packed
from shared import children
from shared.outages import Clock, Traffic, two_stores

FASTGREY = Path(sys.executable).with_name("fastgrey")
CLIENT, HOPS = ("client", b"c" * 16), ("hops", b"h" * 16)
WAITING = ("waiting", b"w" * 16)
NOW = 1_764_000_000


@pytest.fixture
def store(tmp_path):
    fastgrey.create(tmp_path / "store")
    with fastgrey.open(tmp_path / "store") as opened:
        yield opened


def swap(store, *changes):
    """Swap (slot, old, new) each."""
    return swap_slots(store, [slot for slot, _, _ in changes],
                      [(i, old, new, 0) for i, (_, old, new) in enumerate(changes)])


def test_decides_as_the_store_itself(tmp_path):
    """And leaves the same records, of a store that others decide on directly."""
    async def run(draw):
        direct, shared = two_stores(tmp_path)
        assert store_secret(direct) == store_secret(shared)
        clock = Clock()
        greylist = Greylist(shared, Embedded(shared))
        slots = set()
        for client, sender, recipient in itertools.islice(Traffic(draw, clock), times(1500)):
            request = {"client": client, "sender": sender, "recipient": recipient, "now": clock.now,
                       "client_name": f"mail.{client.replace('.', 'x')}.example.com",
                       "name_trusted": draw.random() < 0.5}
            # Now and then somebody decides on the other store, too.
            if draw.random() < 0.2:
                assert shared.check(**request) == direct.check(**request)
            else:
                assert await greylist.check(**request) == direct.check(**request)
            slots |= set(Case(direct, **request).slots)
        every = sorted(slots)
        found = fetch_slots(direct, every)
        assert fetch_slots(shared, every) == found and sum(map(bool, found)) > len(every) // 4
        direct.close()
        shared.close()
    with chance("embedded") as draw:
        asyncio.run(run(draw))


@pytest.mark.parametrize("stale", [CLIENT, HOPS])
def test_writes_all_or_nothing(store, stale):
    first = {slot: packed(NOW, 1) for slot in (CLIENT, HOPS)}
    assert swap(store, *((slot, 0, record) for slot, record in first.items()))
    wrong = first | {stale: packed(NOW, 7)}
    assert not swap(store, *((slot, record, packed(NOW + 1, 2)) for slot, record in wrong.items()))
    assert fetch_slots(store, [CLIENT, HOPS]) == list(first.values())
    assert not swap(store, (CLIENT, 0, packed(NOW, 1)))
    assert swap(store, *((slot, record, packed(NOW + 1, 2)) for slot, record in first.items()))
    assert fetch_slots(store, [CLIENT, HOPS]) == [packed(NOW + 1, 2)] * 2


def test_removes(store):
    record = packed(NOW, 1)
    assert swap(store, (CLIENT, 0, record), (WAITING, 0, NOW))
    assert swap(store, (CLIENT, record, 0), (WAITING, NOW, 0))
    assert fetch_slots(store, [CLIENT, WAITING]) == [0, 0]
    assert swap(store, (CLIENT, 0, 0), (WAITING, 0, 0))


def test_what_waits_moves_with_its_time(store):
    """A record that gets a later time is where that time is looked for, and expires with it; an earlier one stays."""
    day = 86400
    assert swap(store, (WAITING, 0, NOW))
    assert swap(store, (WAITING, NOW, NOW + 3 * day))
    assert swap(store, (WAITING, NOW + 3 * day, NOW + 2 * day))
    assert fetch_slots(store, [WAITING]) == [NOW + 2 * day]
    store.drop_expired(NOW + 4 * day)
    assert fetch_slots(store, [WAITING]) == [NOW + 2 * day]


def test_says_what_is_wrong(store, tmp_path):
    engine = Embedded(store)
    os.unlink(tmp_path / "store" / "current")
    with pytest.raises(EngineError, match="there is no store"):
        asyncio.run(engine.swap([CLIENT], [Write(0, 0, packed(NOW, 1), 60)]))
    with pytest.raises(ValueError, match="16 bytes"):
        fetch_slots(store, [("client", b"short")])
    with pytest.raises(ValueError, match="not in"):
        fetch_slots(store, [("nothing", bytes(16))])
    with pytest.raises(IndexError):
        swap_slots(store, [CLIENT], [(1, 0, 1, 0)])


def test_merges(store):
    """The later time and the larger count; the earlier first attempt; what was forgotten goes."""
    pair, domain = ("pair", b"p" * 16), ("domain", b"d" * 16)
    slots = [CLIENT, domain, WAITING, HOPS]
    merge(store, slots, [packed(NOW, 3), packed(NOW, 1), NOW, packed(NOW, 2)])
    merge(store, [*slots, pair], [packed(NOW - 5, 9), packed(NOW + 5, 0), NOW - 5, packed(NOW + 5, 1), packed(NOW, 0)])
    assert fetch_slots(store, [*slots, pair]) == [packed(NOW, 9), 0, NOW - 5, packed(NOW, 2), 0]


def test_a_flood_finds_room(tmp_path):
    """Full, it gives up what is oldest, and takes what comes."""
    fastgrey.create(tmp_path / "small", {"pending_size": settings.BY_NAME["pending_size"].parse("4M")})
    with fastgrey.open(tmp_path / "small") as small:
        for batch in range(60):
            slots = [("waiting", batch.to_bytes(8, "big") + number.to_bytes(8, "big")) for number in range(2000)]
            assert swap_slots(small, slots, [(i, 0, NOW + batch, 0) for i in range(len(slots))])
        assert fetch_slots(small, slots) == [NOW + 59] * len(slots)
        assert small.counters()["events"]["partitions given up"] > 0


# Adds one to both records again and again, each time in one swap; says what it did.
ADD = """
import sys, time, fastgrey
from fastgrey._core import fetch_slots, swap_slots
slots = [("client", b"c" * 16), ("hops", b"h" * 16)]
with fastgrey.open(sys.argv[1]) as store:
    done = 0
    while done < int(sys.argv[2]):
        old = fetch_slots(store, slots)
        new = [max(record, int(time.time())) + (1 << 40) for record in old]
        if swap_slots(store, slots, [(i, old[i], new[i], 0) for i in (0, 1)]):
            done += 1
            print(done, flush=True)
"""


def counts(store):
    return [record >> 40 for record in fetch_slots(store, [CLIENT, HOPS])]


@pytest.mark.torture
def test_nothing_is_lost_between_processes_and_compactions(tmp_path, store):
    """What is compared and set while a compaction copies follows into the new generation."""
    each, processes = times(150), 3
    running = [children.begin(ADD, tmp_path / "store", each) for _ in range(processes)]
    compactions = 0
    try:
        while any(child.poll() is None for child in running):
            # Read on, or they wait for a pipe that is full.
            for child in running:
                child.stdout.readline()
            if compactions < times(6):
                subprocess.run([FASTGREY, "compact", "--store", tmp_path / "store"], check=True, capture_output=True)
                compactions += 1
    finally:
        ends = [children.end(child) for child in running]
    assert ends == [0] * processes
    assert counts(store) == [each * processes] * 2
    assert store.head()["generation"] != "passed.000001"
    tried("swaps of the local table under compactions", swaps=each * processes, compactions=compactions, lost=0)


@pytest.mark.torture
def test_kills_leave_each_swap_whole_or_undone(tmp_path, store):
    """But for the moment between the two tables, which leaves a hop more."""
    done, kills = 0, times(12)
    with chance("swap kills") as draw:
        for _ in range(kills):
            child = children.begin(ADD, tmp_path / "store", 1 << 30)
            try:
                for _ in range(draw.randrange(1, 40)):
                    assert child.stdout.readline()
                    done += 1
            finally:
                children.end(child, kill=True)
    known, hops = counts(store)
    assert done <= known <= hops <= known + kills
    tried("kills within swaps of the local table", kills=kills, swaps=done, lost=0, hops_more=hops - known)
