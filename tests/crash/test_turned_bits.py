"""Bits turned in every page of every file that a check maps: one line, no death, no wait past the bound, nobody
rejected who is not on the list, and the next check on the whole file as if nothing had been.

What a bit that was turned can do, by where it is:

| where | what checks say | who finds it |
| --- | --- | --- |
| head | error: its checksum is another | the check, `fastgrey doctor` |
| rule that applies | error: its checksum is another | the check, `fastgrey doctor` |
| rule, so that it is not found | what is said without that rule: never a reject | `fastgrey verify` |
| pages, meta pages | error, or what is said where the records of that page are not there | `fastgrey verify` |
| time of a known record | accept for longer, or greylisted anew | `fastgrey verify`, while its manifest holds |
| count of a known record | the same, by allow_client_after and allow_domain_after | the same |
| key of a known record | greylisted anew | the same |
| first seen of a stranger | accepted early, or deferred until its partition expires | nobody |
| lock file | nothing; where others have it open, an error or the eight seconds of the alarm | nobody: made anew |

Where LMDB, led astray, wrote over its own heap, the C library may say so beside the line and end the check, which then
is an error as ever.
"""

import random
import re
import subprocess
import sys
import time
from collections import Counter

import lmdb
import pytest

import aging
import effort
import fastgrey
import ground
from fastgrey import policy, soundness

pytestmark = pytest.mark.torture

PAGE = 4096
# The C library, about a heap that was written over.
OF_THE_HEAP = re.compile(r"^(malloc|calloc|free|realloc|corrupted|double free|(?:munmap|mremap)_chunk|tcache|"
                         r"break adjusted|Fatal glibc error)[^\n]*\n", re.M)


@pytest.fixture
def store(in_memory):
    """A store whose tables have branches: more records than a page holds."""
    return ground.make(in_memory / "store", records=120)


def turn(data, place, bit):
    """The same bytes with one bit turned."""
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1:]


def answer_on(store, who):
    """The answer of a check, of the C library's own words none."""
    answer = ground.end(ground.start(store, who))
    return ground.judged(answer._replace(verdict=" ".join(OF_THE_HEAP.sub("", answer.line).split()[1:3]),
                                         line=OF_THE_HEAP.sub("", answer.line)), who)


class Files:
    """The files of a store as they were, put back where a check or a test has changed them."""

    def __init__(self, store):
        self.paths = ground.parts(store)
        self.content = {name: path.read_bytes() for name, path in self.paths.items()}

    def put(self, **other):
        """All as they were, but for those that are given."""
        for name, path in self.paths.items():
            content = other.get(name.replace(" ", "_"), self.content[name])
            if path.stat().st_size == len(content) and path.read_bytes() == content:
                continue
            with path.open("r+b") as file:
                file.truncate(len(content))
                file.write(content)


def places(data, pages, number, pick):
    """So many bits in every page: of its head, of where its nodes are, and anywhere."""
    for page in pages:
        for _ in range(number):
            width = pick.choice((24, 160, PAGE))
            yield page * PAGE + pick.randrange(width), pick.randrange(8)


@pytest.mark.parametrize("part", ["passed", "pending", "passed lock", "pending lock"])
def test_every_page(store, part):
    pick = random.Random(f"{part} {effort.EFFORT}")
    files = Files(store)
    data = files.content[part]
    # Of a lock file beyond the first page there are slots of readers, all alike.
    pages = [0, *pick.sample(range(1, len(data) // PAGE), 2)] if "lock" in part else range(len(data) // PAGE)
    found = Counter()
    for place, bit in places(data, pages, effort.times(8), pick):
        for who in ground.WAIT if part.startswith("pending") else ground.TRUE:
            files.put(**{part.replace(" ", "_"): turn(data, place, bit)})
            answer = answer_on(store, who)
            found["error" if ground.is_fault(answer) else "true" if answer.verdict == ground.TRUE[who]
                  else "other"] += 1
    files.put()
    ground.goes_on(store)
    effort.tried(f"bits turned in {part}", runs=found.total(), errors=found["error"], other=found["other"], deaths=0)
    assert found["true"] > 10
    assert "lock" in part or found["error"] > 5


def test_a_broken_assertion_of_lmdb_is_told_in_the_one_line(store):
    """Number of a page, and the two ends of what is free: of these LMDB is sure, and aborts where it is wrong."""
    files = Files(store)
    data = files.content["passed"]
    found = Counter()
    for page in range(2, len(data) // PAGE):
        for place, bit in ((0, 0), (0, 1), (12, 2), (13, 4), (13, 5), (13, 7)):
            files.put(passed=turn(data, page * PAGE + place, bit))
            answer = answer_on(store, "waiting")
            found["damaged or was cut short" in answer.line] += 1
    files.put()
    ground.goes_on(store)
    assert found[True] > 3


def test_every_page_blanked_or_noise(store):
    files = Files(store)
    pick = random.Random(1)
    found = Counter()
    for part in ("passed", "pending"):
        data = files.content[part]
        for page in range(len(data) // PAGE):
            for content in (bytes(PAGE), pick.randbytes(PAGE), data[-PAGE:]):
                for who in ("known", "waiting", "denied"):
                    files.put(**{part: data[:page * PAGE] + content + data[(page + 1) * PAGE:]})
                    found[answer_on(store, who).verdict] += 1
    files.put()
    ground.goes_on(store)
    assert found["defer error"] > 20


def test_every_length(store):
    """At each page, around it, and odd."""
    files = Files(store)
    pick = random.Random(2)
    for part, content in files.content.items():
        pages = range(0, len(content), PAGE)
        around = pages if "lock" not in part else [*pages[:3], *pick.sample(pages[3:], 4)]
        for size in sorted({max(0, page + more) for page in around for more in (-1, 0, 1, 77)}):
            for who in ("waiting",) if part.startswith("pending") else ("known", "waiting"):
                files.put(**{part.replace(" ", "_"): content[:size]})
                answer = answer_on(store, who)
                # A lock file that nobody has open is made anew.
                if "lock" in part and size < len(content):
                    assert answer.verdict == ground.TRUE[who], (part, size, answer)
    files.put()
    ground.goes_on(store)


HOLDER = """
import lmdb, sys
held = [lmdb.open(path, max_dbs=16, max_readers=8192) for path in sys.argv[1:]]
print(flush=True)
sys.stdin.read()
"""


def test_a_lock_file_that_others_have_open(store):
    """It cannot be made anew; what a check waits for that never comes ends with the eight seconds of its alarm."""
    files = Files(store)
    pick = random.Random(effort.EFFORT)
    found = Counter()
    for number in range(effort.times(3)):
        part = ("passed", "pending")[number % 2]
        lock = ground.parts(store)[f"{part} lock"]
        # What is there while it is open: header, locks, the first slots of readers.
        with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock.parent)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as holder:
            assert holder.stdout.readline() == b"\n"
            content = lock.read_bytes()[:256]
            with lock.open("r+b") as file:
                file.write(turn(content, pick.randrange(192), pick.randrange(8)))
            began = time.monotonic()
            asked = {who: ground.start(store, who) for who in ground.TRUE}
            for who, process in asked.items():
                answer = ground.judged(ground.end(process), who)
                found["error" if ground.is_fault(answer) else "other"] += 1
            found["waited"] += time.monotonic() - began > 7
            holder.communicate(b"")
        files.put()
    ground.goes_on(store)
    effort.tried("bits turned in a lock file that is in use", runs=found["error"] + found["other"],
                 errors=found["error"], waited_8_seconds=found["waited"], deaths=0)
    assert found["other"]


def records(store, start):
    """The data file, where in it the record that begins with these bytes lies, and its size."""
    with lmdb.open(str(ground.parts(store)["passed"].parent), max_dbs=8, readonly=True) as environment:
        with environment.begin(db=environment.open_db(b"meta")) as txn:
            (value,) = [value for _, value in txn.cursor() if value.startswith(start)]
    data = ground.parts(store)["passed"].read_bytes()
    found = [match.start() for match in re.finditer(re.escape(value), data)]
    assert found
    return data, found, len(value)


def test_every_bit_of_the_head_counts(store):
    """Secret, settings, marks: none of them is believed when one bit is another."""
    files = Files(store)
    data, found, size = records(store, b"fastgrey")
    pick = random.Random(3)
    bits = [(place, bit) for place in range(size) for bit in range(8)]
    for place, bit in pick.sample(bits, min(len(bits), effort.times(250))):
        turned = data
        for start in found:
            turned = turn(turned, start + place, bit)
        files.put(passed=turned)
        answer = answer_on(store, "known")
        assert ground.is_fault(answer), (place, bit, answer)
        assert "damaged" in answer.line or "another format version" in answer.line, answer
    files.put()
    ground.goes_on(store)


def test_no_bit_of_the_policy_rejects_who_is_not_denied(store):
    """An error, or what is said where a rule is not there. In `judged`: none but the denied is rejected."""
    files = Files(store)
    data, found, size = records(store, b"fgpolicy")
    pick = random.Random(4)
    bits = [(place, bit) for place in range(size) for bit in range(8)]
    told = Counter()
    for place, bit in pick.sample(bits, min(len(bits), effort.times(500))):
        turned = data
        for start in found:
            turned = turn(turned, start + place, bit)
        files.put(passed=turned)
        for who in ("allowed", "denied", "known"):
            answer = answer_on(store, who)
            told[who, answer.verdict] += 1
            assert answer.verdict in (ground.TRUE[who], "defer error", "defer new", "defer early", "accept allowed",
                                      "accept opted-out", "accept retry"), (place, bit, who, answer)
    files.put()
    ground.goes_on(store)
    assert told["allowed", "defer error"]
    assert told["denied", "defer error"]


def all_bits(store, part, value):
    """The data file with each bit of the value turned, of every page that has it."""
    data = ground.parts(store)[part].read_bytes()
    found = [match.start() for match in re.finditer(re.escape(value), data)]
    assert found
    for place in range(len(value)):
        for bit in range(8):
            turned = data
            for start in found:
                turned = turn(turned, start + place, bit)
            yield turned


def test_what_no_check_can_tell_of_a_known_record(store):
    """Key, time and count: known for longer, or the next record that knows the sender is asked, or greylisted anew."""
    files = Files(store)
    known = aging.records(ground.parts(store)["passed"].parent)
    first = {kind: min(known[kind].items(), key=lambda item: aging.unpack(item[1])[0])
             for kind in ("domain", "triplet")}
    entries = {kind: key + value for kind, (key, value) in first.items()}
    told = Counter()
    for turned in all_bits(store, "passed", entries["domain"]):
        files.put(passed=turned)
        told[answer_on(store, "due").verdict] += 1
    assert set(told) == {"accept known-domain", "accept known-triplet"}
    assert told["accept known-triplet"] >= 128
    files.put()
    # Now without its domain.
    files.put(passed=next(all_bits(store, "passed", entries["domain"])))
    without = Files(store)
    told.clear()
    for turned in all_bits(store, "passed", entries["triplet"]):
        without.put(passed=turned)
        told[answer_on(store, "due").verdict] += 1
    assert set(told) == {"accept known-triplet", "defer new"}
    assert told["defer new"] >= 128
    files.put()
    ground.goes_on(store)


def test_what_no_check_can_tell_of_a_stranger(in_memory):
    """Accepted early, or asked to wait; a first attempt in the time to come counts as one of now."""
    store = in_memory / "store"
    fastgrey.create(store, {"delay": 600, "on_error": 1, "pending_size": 16 << 20, "pool_hops": 0})
    ask = {"FASTGREY_STORE": str(store)}
    assert ground.ask(store, "waiting", env=ask).verdict == "defer new"
    files = Files(store)
    tables = aging.records(ground.parts(store)["pending"].parent)
    ((key, value),) = next(iter(tables.values())).items()
    told = Counter()
    for turned in all_bits(store, "pending", key + value):
        files.put(pending=turned)
        told[ground.ask(store, "waiting", env=ask).verdict] += 1
    # Which of its bits make the time one long ago follows from the time of the test.
    assert {"defer new", "defer early"} <= set(told) <= {"defer new", "defer early", "accept retry"}
    assert told["defer new"] >= 128


def test_a_damaged_rule_is_found_and_mended(store, run_fastgrey, config, in_memory):
    """Doctor says which command puts the rules in force anew, though nothing has changed in the configuration."""
    main = config('delay = "0s"\non_error = "defer"\nallow_client_after = 0\npending_size = "16M"\n'
                  'deny_senders = ["bad.example", "*%*"]\nallow_senders = ["good.example"]\n')
    arguments = ("--store", str(store))
    assert run_fastgrey("apply", *arguments).returncode == 0
    record, found, size = records(store, b"fgpolicy")
    damaged = bytearray(record)
    start = found[-1]
    slots = policy.HEAD.unpack_from(record, start)[11]
    # The allowed sender's entry gets the rule that denies.
    for index in range(2):
        place = start + policy.HEAD.size + slots * policy.SLOT.size + index * policy.ENTRY.size
        if policy.ENTRY.unpack_from(record, place)[4]:
            damaged[place + 8] ^= 1
    assert damaged != record
    ground.parts(store)["passed"].write_bytes(damaged)
    answer = ground.ask(store, "allowed")
    assert ground.is_fault(answer)
    assert "damaged" in answer.line
    assert soundness.contents(ground.parts(store)["passed"].parent).problems == (
        "1 rules of the policy are not what was compiled",)
    told = run_fastgrey("doctor", *arguments).stdout
    (remedy,) = re.findall(r"^wrong .*1 rules of policy 2 are damaged.*; run: (.*)$", told, re.M)
    assert str(main) in remedy
    ground.follow(remedy)
    ground.goes_on(store)
    assert "are damaged" not in run_fastgrey("doctor", *arguments).stdout


@pytest.mark.parametrize("place", [0, 8, 12])
def test_a_policy_that_cannot_be_read_is_replaced_by_apply(store, run_fastgrey, config, place):
    config('delay = "0s"\non_error = "defer"\nallow_client_after = 0\npending_size = "16M"\n'
           'deny_senders = ["bad.example", "*%*"]\nallow_senders = ["good.example"]\n')
    data, found, _ = records(store, b"fgpolicy")
    ground.parts(store)["passed"].write_bytes(turn(data, found[-1] + place, 0))
    assert ground.is_fault(ground.ask(store, "known"))
    told = run_fastgrey("doctor", "--store", str(store)).stdout
    assert "put one in force with: fastgrey apply" in told
    done = run_fastgrey("apply", "--store", str(store))
    assert done.returncode == 0, done.stderr
    ground.goes_on(store)
