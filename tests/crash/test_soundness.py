"""The independent reader, the program's own and the manifest: what each of them finds in a damaged generation."""

import os
import re
import shutil
import struct
import subprocess
import sys

import lmdb
import pytest

import fastgrey
import heads
from fastgrey import compaction, manifest, policy, soundness, windows
from fastgrey.errors import ManifestError, StoreError
from promoting import promoting

PAGE = 4096
# Flags of LMDB's pages, at 10 in each.
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8


@pytest.fixture
def generation(make_store, path):
    """A generation with every kind of page: known records, a policy too large for one page, windows, free pages."""
    make_store("delay=0s", "allow_client_after=0", "allow_domain_after=0", "pool_hops=2")
    with fastgrey.open(path) as store:
        policy.put(store, {"deny_senders": [f"{number}.bulk.example" for number in range(300)]})
        windows.open_window(store, "b@example.net", None, "10m")
        for number in range(400):
            for _ in range(2):
                store.check(client=f"192.0.{number % 256}.1", sender="a@example.org",
                            recipient=f"{'bcdefgh'[number % 7]}{number}@example.net")
    return path / "passed.000001"


def pages(generation, kind):
    """Numbers of the pages of one kind that the last transaction reaches or has freed."""
    data = (generation / "data.mdb").read_bytes()
    return [number for number in range(len(data) // PAGE)
            if struct.unpack_from("=H", data, number * PAGE + 10)[0] == kind]


def flip(generation, place, bits=0x01):
    """Turn bits of one byte of the table."""
    with open(generation / "data.mdb", "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ bits]))


def test_nothing_is_wrong_with_a_new_generation(generation):
    assert soundness.structure(generation) == []
    found = soundness.contents(generation)
    assert found.problems == ()
    assert found.manifest.records == {"client": 256, "domain": 256, "triplet": 400, "pair": 0}
    assert found.manifest.parts["window"].number == 1
    assert (found.manifest.generation, found.facts.policy, found.facts.rules) == (1, 1, 300)


def test_progress_reaches_the_end(generation):
    seen = []
    soundness.contents(generation, lambda *step: seen.append(step))
    assert seen[-1] == ("contents", 912, 912)
    seen.clear()
    soundness.structure(generation, lambda *step: seen.append(step))
    assert all(step == "structure" and 0 <= done <= total == (generation / "data.mdb").stat().st_size
               for step, done, total in seen)


def missed(generation, place, bits):
    """Whether the independent reader finds nothing when these bits are turned. They are turned back."""
    flip(generation, place, bits)
    try:
        return not soundness.structure(generation)
    finally:
        flip(generation, place, bits)


@pytest.mark.parametrize("kind", [BRANCH, LEAF, OVERFLOW, META])
def test_a_page_that_claims_to_be_another(generation, kind):
    """The number of a page is in its first bytes; of those that are free nobody looks at it."""
    page = next(number for number in pages(generation, kind) if not missed(generation, number * PAGE, 0x01))
    # Number, flags, and where the free space begins; 8 is unused here, and 14 may be lower than it need be. Of an
    # overflow page 12 to 15 are the number of pages, of a meta page nothing, and of its flags only one counts.
    for offset in [*range(8), *range(10, 10 if kind == META else 14)]:
        assert not missed(generation, page * PAGE + offset, 0x80), offset
    assert soundness.structure(generation) == []


@pytest.mark.parametrize("size", [0, 1, 100, PAGE, 2 * PAGE, 5 * PAGE + 7])
def test_cut_short(generation, size):
    os.truncate(generation / "data.mdb", size)
    assert soundness.structure(generation)


def test_all_zeros_noise_and_no_file(generation):
    data = generation / "data.mdb"
    size = data.stat().st_size
    for content in (bytes(size), os.urandom(size)):
        data.write_bytes(content)
        assert soundness.structure(generation)
        with pytest.raises(StoreError):
            soundness.contents(generation)
    data.unlink()
    assert "No such file" in soundness.structure(generation)[0]


def test_what_structure_cannot_see_the_manifest_does(generation):
    """A bit of a value makes another time or count out of it, and no less a table."""
    told = soundness.seal(generation)
    assert manifest.read(generation) == told
    assert soundness.against_manifest(generation, soundness.contents(generation)) == []
    data = (generation / "data.mdb").read_bytes()
    with lmdb.open(str(generation), max_dbs=8, readonly=True) as environment:
        triplet = environment.open_db(b"triplet")
        with environment.begin(db=triplet) as txn:
            key, value = next(iter(txn.cursor()))
    # Pages that were freed have it too.
    for found in re.finditer(re.escape(key + value), data):
        flip(generation, found.end() - 1)
    assert soundness.structure(generation) == []
    assert soundness.against_manifest(generation, soundness.contents(generation)) == [
        "triplet is other than its manifest says"]


def test_a_generation_written_to_is_past_its_manifest(generation, path):
    soundness.seal(generation)
    with fastgrey.open(path) as store:
        for _ in range(2):
            store.check(client="198.51.100.1", sender="a@example.com", recipient="new@example.net")
    assert soundness.against_manifest(generation, soundness.contents(generation)) == []


def test_a_generation_that_went_back_is_found(generation, path):
    """As after a power cut on a disk that says it has flushed and has not."""
    before = (generation / "data.mdb").read_bytes()
    with fastgrey.open(path) as store:
        for _ in range(2):
            store.check(client="198.51.100.1", sender="a@example.com", recipient="new@example.net")
    soundness.seal(generation)
    (generation / "data.mdb").write_bytes(before)
    assert "a later state was lost" in soundness.against_manifest(generation, soundness.contents(generation))[0]


def test_every_byte_of_a_manifest_counts(generation):
    soundness.seal(generation)
    text = (generation / "manifest").read_bytes()
    for place in range(len(text)):
        with pytest.raises(ManifestError):
            manifest.parse(text[:place] + bytes([text[place] ^ 1]) + text[place + 1:], "it")
        with pytest.raises(ManifestError):
            manifest.parse(text[:place], "it")
    assert manifest.parse(text, "it").text().encode() == text
    other = text.rpartition(b"checksum ")[0].replace(b"manifest 1", b"manifest 2")
    with pytest.raises(ManifestError, match="another version"):
        manifest.parse(other + b"checksum " + manifest.checksum(other).encode() + b"\n", "it")


def test_the_sum_is_that_of_the_documented_messages(generation):
    """XXH3-128 of kind, key and value, added up, from docs/format.md and a reader that is not the program's own."""
    total = 0
    with lmdb.open(str(generation), max_dbs=8, readonly=True) as environment:
        with environment.begin(db=environment.open_db(b"client")) as txn:
            for key, value in txn.cursor():
                total += int(manifest.checksum(b"c" + key + value), 16)
    assert soundness.contents(generation).manifest.parts["client"].checksum == f"{total % (1 << 128):032x}"


@pytest.mark.parametrize(("offset", "data", "problem"), [
    (48, struct.pack("=Q", 7), "the policy is number 1 with 300 rules, and the head says 7 with 300"),
    (56, struct.pack("=Q", 3), "the policy is number 1 with 300 rules, and the head says 1 with 3"),
    (264 + 8, struct.pack("=q", 1 << 41), f"the head has retry_window {1 << 41}, which cannot be"),
])
def test_a_head_that_cannot_be(generation, offset, data, problem):
    heads.overwrite(generation, offset, data)
    assert soundness.contents(generation).problems == (problem,)


@pytest.mark.parametrize(("table", "key", "value", "problem"), [
    (b"triplet", b"k" * 15, b"v" * 8, "1 of 401 records in triplet have another size than a record"),
    (b"pair", b"k" * 16, b"v" * 9, "1 of 1 records in pair have another size than a record"),
    (b"client", b"k" * 16, struct.pack("=Q", 1), "1 of 257 records in client are none that a hook writes"),
    (b"meta", b"nonsense", b"", "1 entries of meta are none of this format"),
])
def test_records_that_cannot_be(generation, table, key, value, problem):
    with lmdb.open(str(generation), max_dbs=8) as environment:
        with environment.begin(db=environment.open_db(table), write=True) as txn:
            txn.put(key, value)
    assert soundness.structure(generation) == []
    assert soundness.contents(generation).problems == (problem,)


def test_a_time_to_come_is_no_damage(generation):
    with lmdb.open(str(generation), max_dbs=8) as environment:
        with environment.begin(db=environment.open_db(b"domain"), write=True) as txn:
            txn.put(b"k" * 16, struct.pack("=Q", 1 << 40 | 1 << 39))
    found = soundness.contents(generation)
    assert found.problems == ()
    assert found.doubts == ("1 of 257 records in domain have times more than a day from now",)


def test_live_with_writers(make_store, path):
    """Both readers see one state while hooks promote and give pages back for use."""
    make_store("delay=0s", "pool_hops=0")
    with promoting(path) as wait:
        while wait() < 300:
            pass
        for _ in range(20):
            with soundness.pinned(path / "passed.000001"):
                assert soundness.structure(path / "passed.000001") == []
                assert soundness.contents(path / "passed.000001").problems == ()
            wait()


def test_a_pin_keeps_the_pages_of_its_moment(generation, path):
    """With the meta pages of then, the file of now is still the table of then."""
    script = ("import fastgrey, sys\ns = fastgrey.open(sys.argv[1])\nfor n in range(200):\n    for _ in range(2):\n"
              "        s.check(client=f'10.7.{n}.1', sender=f'a@{n}.example', recipient='b@c.d')")
    with soundness.pinned(generation):
        then = (generation / "data.mdb").read_bytes()[:2 * PAGE]
        subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=120)
        now = (generation / "data.mdb").read_bytes()
    assert now[:2 * PAGE] != then
    (generation / "data.mdb").write_bytes(then + now[2 * PAGE:])
    assert soundness.structure(generation) == []
    assert soundness.contents(generation).manifest.records["triplet"] == 400


def test_a_pin_leaves_no_reader_behind(generation, path):
    with soundness.pinned(generation), fastgrey.open(path) as store:
        assert len(fastgrey._core.reader_table(store, False)["readers"]) == 2
    with fastgrey.open(path) as store:
        table = fastgrey._core.reader_table(store, False)
        assert (table["freed"], len(table["readers"])) == (0, 1)


def test_compacted_copy(generation, path):
    compaction.compact(str(path))
    shutil.rmtree(generation)
    assert soundness.structure(path / "passed.000002") == []
    assert soundness.contents(path / "passed.000002").problems == ()
