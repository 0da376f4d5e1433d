"""What is on disk is what docs/format.md says, read by an LMDB and a struct module that know nothing of fastgrey."""

import os
import re
import stat
import struct
import time
from pathlib import Path

import lmdb.verify

import aging
import fastgrey
import page
from fastgrey import compaction, directory, disk, manifest, settings

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAD = struct.Struct("=8sIIQQQqQQq192s31qQ")
REQUEST = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": "b@example.net"}


def heads(root):
    """The head of every generation, unpacked."""
    found = {}
    for name in sorted(entry.name for entry in root.glob("passed.*")):
        (head,) = aging.records(root / name, lambda table: table == b"meta")["meta"].values()
        found[name] = HEAD.unpack(head)
    return found


def test_head(make_store, path):
    before = int(time.time())
    make_store("delay=7s", "mode=learn")
    (head,) = heads(path).values()
    magic, version, order, generation, superseded, noting, made, *policy, secret = head[:11]
    slots, checksum = head[11:-1], head[-1]
    assert HEAD.size == 520
    assert checksum == int(manifest.checksum(HEAD.pack(*head)[:-8])[16:], 16)
    assert (magic, version, order, generation, superseded, noting) == (b"fastgrey", 3, 0x01020304, 1, 0, 0)
    assert policy == [0, 0, 0]
    assert before <= made <= time.time()
    assert len(set(secret)) > 50
    expected = list(disk.settled(settings.defaults() | {"delay": 7, "mode": 1}, path).values())
    assert list(slots) == expected + [0] * (31 - len(expected))


def test_generations_after_a_compaction(make_store, path):
    make_store()
    compaction.compact(path)
    compaction.compact(path)
    found = heads(path)
    assert list(found) == ["passed.000002", "passed.000003"]
    assert [head[3:6] for head in found.values()] == [(2, 3, 0), (3, 0, 0)]
    assert len({head[10] for head in found.values()}) == 1
    assert os.readlink(path / "current") == "passed.000003"


def test_tables_and_records(make_store, path, pending_path):
    make_store("pool_hops=2", "pool_window=2h", "retry_window=90m")
    start = 1_700_000_000
    with fastgrey.open(path) as store:
        store.check(**REQUEST, client_name="mx1.pool.example", name_trusted=True, now=start)
        key = store.check(**REQUEST | {"client": "198.51.100.1"}, now=start + 300).key
        store.check(**REQUEST | {"sender": ""}, now=start + 8000)
    tables = aging.records(path / "passed.000001")
    assert sorted(tables) == ["client", "domain", "meta", "pair", "touched", "triplet"]
    for kind in ("client", "domain", "triplet", "pair"):
        ((name, value),) = tables[kind].items()
        assert (len(name), aging.unpack(value)) == (16, (start + 300, 1))
    (triplet,) = tables["triplet"]
    assert triplet[:6].hex() == key
    partitions = aging.records(pending_path)
    first = start - start % 7200
    assert sorted(partitions) == [f"2.{first:013d}.7200", f"2.{first + 7200:013d}.7200"]
    old, new = (partitions[name] for name in sorted(partitions))
    # Network, name parent and pair of the first request side by side; the hop of the second in the pair.
    assert len({name[:8] for name in old}) == 1
    assert sorted(aging.unpack(value) for value in old.values()) == [(start, 0), (start, 0), (start, 2)]
    # The null sender has no pair.
    assert [aging.unpack(value) for value in new.values()] == [(start + 8000, 0)]


def test_counters(make_store, path):
    make_store("on_error=defer")
    before = int(time.time())
    with fastgrey.open(path) as store:
        store.check(**REQUEST, now=0)
        store.check(**REQUEST, now=1)
        store.check(**REQUEST, now=301)
        store.check(**REQUEST | {"client": "x"})
    found = page.read(path / "stats")
    assert (found.magic, found.version, found.deferring) == (b"fgstats\0", 2, 1)
    # Defer new, early and error, accept retry; a promotion, a stranger, and the seconds it waited.
    assert (found.totals, found.events, found.waits) == ({12: 1, 13: 1, 14: 1, 8: 1}, {0: 1, 5: 1, 6: 301}, {5: 1})
    assert before <= found.made <= time.time()
    # Each ring has the moment of the first check, before it was counted, where time tells.
    slots = {(name, index): (stamp, totals) for name, index, stamp, totals in page.slots(path / "stats") if stamp}
    for name, (_, number, interval) in page.RINGS.items():
        stamp, totals = min(slot for (ring, _), slot in slots.items() if ring == name)
        assert before <= stamp <= time.time()
        assert totals == [0] * 16
        assert (name, stamp // interval % number) in slots
    assert (path / "stats").read_bytes()[3792:] == bytes(304)


def test_files_and_modes(make_store, path, pending_path):
    make_store()
    with fastgrey.open(path) as store:
        store.check(**REQUEST)
    compaction.compact(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o2770
    assert sorted(str(entry.relative_to(path)) for entry in path.rglob("*")) == sorted([
        "compaction.lock", "compaction.status", "current", "stats", pending_path.name,
        *(f"passed.00000{number}/manifest" for number in (1, 2)), "passed.000001", "passed.000002",
        *(f"{place}/{file}" for place in (pending_path.name, "passed.000001", "passed.000002")
          for file in ("data.mdb", "lock.mdb"))])
    for entry in path.rglob("*"):
        if not entry.is_symlink():
            assert stat.S_IMODE(entry.stat().st_mode) == (0o2770 if entry.is_dir() else 0o660), entry


def test_files_are_sound_lmdb(make_store, path, pending_path):
    """Every page walked, every count compared, by a verifier that shares no code with LMDB."""
    make_store("delay=0s")
    with fastgrey.open(path) as store:
        for number in range(300):
            for _ in range(2):
                store.check(client="192.0.2.1", sender=f"a@{number}.example", recipient="b@example.net")
    compaction.compact(path)
    for place in (path / "passed.000001", path / "passed.000002", pending_path):
        assert lmdb.verify.verify(str(place)) == []


def test_documents_name_files_that_there_are():
    root = DOCS.parent
    design = (DOCS / "design.md").read_text()
    listed = set()
    for row in design.splitlines():
        if row.startswith("| `"):
            listed |= set(re.findall(r"`(\w+)`", row.split("|")[1]))
    parts = {file.stem for file in (root / "fastgrey" / "core").glob("*.pxi")} - {"core"}
    assert parts <= listed
    assert directory.generation_name(1) == "passed.000001"
