"""Compaction interrupted at every single system call: the store is the old generation or the new one, whole.

Every call that changes something below the store is a point; at each of them, in a run of its own, the process is
killed, or the call fails once, or it fails from there on as on a full disk or on one that became read-only. The rows
are those of the table in docs/format.md, "How a generation follows another".
"""

import errno
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lmdb.verify
import pytest

import aging
import fastgrey
from conftest import HOOK
from fastgrey import compaction, directory, last_run, manifest, policy, windows

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "format.md").read_text().partition("## How a generation follows another")[2]
ROWS = re.findall(r"^\| (C\d+) ([a-z ]+?) \|", TABLE, re.M)
ALIVE, EXPIRED = 40, 25
REQUEST = {"client": "192.0.2.1", "recipient": "b@example.net"}

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture
def place(tmp_path):
    """Where hundreds of stores are made: no disk has to flush them."""
    with tempfile.TemporaryDirectory(prefix="fastgrey-test-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK)
                                     else tmp_path) as name:
        yield Path(name)


@pytest.fixture
def template(place):
    """A store in which all that a compaction does has something to do: generation 2 in force, 1 before it, the
    beginning of a 3 that was killed, strangers of an earlier boot and of last week."""
    path = place / "template"
    fastgrey.create(path, fastgrey.settings.parse_assignments(
        ("delay=0s", "lifetime=1h", "pool_hops=0", "allow_client_after=0")))
    now = int(time.time())
    with fastgrey.open(path) as store:
        for what, number, when in (("old", EXPIRED, now - 4000), ("young", ALIVE, now)):
            for index in range(number):
                for _ in range(2):
                    store.check(client=f"192.0.2.{index}", sender=f"a@{what}{index}.example", recipient="b@example.net",
                                now=when)
            if what == "old":
                compaction.compact(str(path), now=when)
        store.check(**REQUEST, sender="a@week.example", now=now - 700_000)
        windows.open_window(store, "open@example.net", None, "1h")
        fastgrey._core.open_window(store, "closed@example.net", None, now - 100, now - 50)
        policy.put(store, {"deny_senders": ["*%*"]})
    (path / "passed.000003").mkdir()
    (path / "passed.000003" / "data.mdb").write_bytes(b"the beginning of something")
    (path / "pending.00000000-0000-0000-0000-000000000000").mkdir()
    return path


def run_all(template, library, place, code, lasting):
    """A run for each call that can fail; those that were reached."""
    work = place / "work"
    work.mkdir()
    done = subprocess.run([sys.executable, ROOT / "tests" / "faulty.py", template, work, HOOK, str(code), str(lasting)],
                          env=os.environ | {"LD_PRELOAD": str(library)}, stdout=subprocess.PIPE, text=True, check=True,
                          timeout=600)
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert runs[-1]["status"] == 42
    assert len(runs) > 50, "compaction makes more calls than that"
    return [(work / str(run["n"]), run) for run in runs[:-1]]


KNOWN = ("client", "domain", "triplet")


def generation(store):
    """Number of the generation in force."""
    return directory.current_number(store)


def tables(store, number):
    return aging.records(store / directory.generation_name(number))


def head(store, number):
    """Generation, superseded and noting."""
    return struct.unpack_from("=QQQ", tables(store, number)["meta"][b"head"], 16)


def is_alive(value):
    return time.time() - aging.unpack(value)[0] < 3600


def assert_whole(store, template, earned, number=None):
    """What is in force is generation 2 with all that it had, or a later one with all of it that is alive."""
    number = number or generation(store)
    place = store / directory.generation_name(number)
    assert lmdb.verify.verify(str(place)) == []
    before, found = tables(template, 2), tables(store, number)
    for kind in KNOWN:
        expected = {key: value for key, value in before[kind].items() if number == 2 or is_alive(value)}
        assert len(expected) >= ALIVE
        assert expected.items() <= found[kind].items()
        assert len(found[kind]) == len(expected) + earned, kind
    names = [name for name in before["meta"] if name.startswith(b"window.")]
    assert len(names) == 2
    opened = [name for name in names if struct.unpack_from("=Qq", before["meta"][name])[1] > time.time()]
    for name in opened if number > 2 else names:
        assert found["meta"].pop(name) == before["meta"][name]
    assert found["meta"].pop(b"policy") == before["meta"][b"policy"]
    # Secret and settings.
    assert found["meta"].pop(b"head")[72:512] == before["meta"][b"head"][72:512]
    assert found["meta"] == {}


def assert_goes_on(store, template, earned):
    """Hooks find what was earned and earn more, and the next compaction cleans up."""
    number = generation(store)
    with fastgrey.open(store) as opened:
        assert opened.check(**REQUEST, sender="a@young3.example").reason == "known-domain"
        assert opened.check(**REQUEST, sender="a%b@denied.example").reason == "denied"
        assert opened.check(**REQUEST | {"recipient": "open@example.net"}, sender="x@new.example").reason == "expected"
        assert opened.check(**REQUEST, sender="a@later.example").reason == "new"
        assert opened.check(**REQUEST, sender="a@later.example").reason == "retry"
    done = compaction.compact(str(store), verify="copy")
    assert done.generation == number + 1
    assert directory.generations(store) == [number, number + 1]
    assert sorted(entry.name for entry in store.iterdir() if not entry.name.startswith("passed.")) == sorted([
        "compaction.lock", "compaction.status", "current", "hits.1", f"pending.{directory.boot_id()}", "stats"])
    assert [head(store, each)[1:] for each in (number, number + 1)] == [(number + 1, 0), (0, 0)]
    assert last_run.read(store).result == "done"
    found = tables(store, number + 1)
    # What came later has a client of its own no more than the others: 192.0.2.1 was one of them.
    assert len(found["domain"]) == ALIVE + earned + 1
    with fastgrey.open(store) as opened:
        assert opened.check(**REQUEST, sender="a@later.example").reason == "known-domain"
        assert [part for part in opened.partitions() if part["start"] < time.time() - 600_000] == []


def row(store):
    """The row of the table that a killed compaction of the template was in, by what it left."""
    status = json.loads((store / "compaction.status").read_text())
    names = {entry.name for entry in store.iterdir()}
    leftovers = {"passed.000001", "passed.000001.gone", "pending.00000000-0000-0000-0000-000000000000",
                 "pending.00000000-0000-0000-0000-000000000000.gone"} & names
    if generation(store) == 3:
        if status["result"] == "done":
            return "done"
        if not head(store, 2)[1]:
            return "swapped"
        if leftovers:
            return "marked"
        sealed = [(store / name / "manifest").exists() for name in ("passed.000002", "passed.000003")]
        return "sealed" if all(sealed) else "cleaned"
    if status["result"] == "done":
        return "at rest"
    made = store / "passed.000003"
    if not made.exists() or (made / "data.mdb").exists() and (made / "data.mdb").stat().st_size < 4096:
        return "begun"
    if not head(store, 2)[2]:
        return "made"
    if not (made / "data.mdb").exists() or not (made / "data.mdb").stat().st_size:
        return "noting"
    try:
        found = aging.records(made)
    except (lmdb.Error, KeyError):
        return "noting"
    if b"head" not in found.get("meta", {}):
        return "noting"
    if any(len([value for value in tables(store, 2)[kind].values() if is_alive(value)]) > len(found[kind])
           for kind in KNOWN):
        # What was earned meanwhile comes behind all the rest.
        whole = {kind: len(found[kind]) >= ALIVE for kind in KNOWN}
        return "copied" if all(whole.values()) else "copying"
    return "locked" if any(name.startswith(b"window.") for name in found["meta"]) else "copied"


def test_killed_at_every_call(template, library, place):
    """C0 to C11: each row is met, in its order, and what it says is so."""
    met = []
    for store, run in run_all(template, library, place, 0, 0):
        assert run["status"] == -signal.SIGKILL, run
        found = row(store)
        met.append(found)
        assert_whole(store, template, run["earned"])
        assert generation(store) == (3 if found in ("swapped", "marked", "cleaned", "sealed", "done") else 2)
        # Files go under a name that nobody opens.
        assert not [call for call in run["calls"] if re.match(r"unlinkat /passed\.\d+/(?!manifest\.new$)", call)]
        last = last_run.read(store)
        assert last.result == ("done" if found in ("at rest", "done") else "killed")
        assert_goes_on(store, template, run["earned"])
        shutil.rmtree(store)
    order = [name for _, name in ROWS]
    assert [name for name in dict.fromkeys(met)] == [name for name in order if name in met]
    # The last call of all makes it done.
    assert set(order) - set(met) == {"done"}


@pytest.mark.parametrize(("code", "lasting"), [(errno.EIO, 0), (errno.ENOSPC, 1), (errno.EROFS, 2)],
                         ids=["EIO once", "ENOSPC from there on", "EROFS from there on"])
def test_every_call_fails(template, library, place, code, lasting):
    """It is refused in one line, or did not matter; nothing that was earned is lost either way."""
    refused = 0
    for store, run in run_all(template, library, place, code, lasting):
        assert run["status"] in (0, 1), run
        assert_whole(store, template, run["earned"])
        number = generation(store)
        if run["status"] == 1:
            refused += 1
            line = run["message"]
            assert "\n" not in line
            assert "; " in line
            assert os.strerror(code) in line or "damaged" in line, line
            assert number == 2 or "passed.000003 is in force" in line, line
        else:
            assert number == 3
        # Where it could, it took everything back itself.
        if code == errno.EIO and number == 2:
            assert head(store, 2)[2] == 0 or "writev" in run["calls"][-1], run
        assert_goes_on(store, template, run["earned"])
        shutil.rmtree(store)
    assert refused > 20


BETWEEN = """
import ctypes, os, sys
from pathlib import Path
import faulty
from fastgrey import compaction
from fastgrey.errors import FastgreyError

store, hook, phase, number = sys.argv[1:]
catch_up = compaction._Compaction._catch_up

def catch_up_and_earn(self, copy, pace):
    if phase == "locked":
        catch_up(self, copy, pace)
    faulty.earn(hook, store, Path(f"{store}.note"))
    log = os.open(f"{store}.calls", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    ctypes.CDLL(None).fault_begin(os.fsencode(self.target), int(number), -1, 0, log)
    if phase == "round":
        catch_up(self, copy, pace)

compaction._Compaction._catch_up = catch_up_and_earn
try:
    print(compaction.compact(store, verify="copy").touched)
except FastgreyError as error:
    sys.exit(str(error))
"""


def earn_between(template, library, store, phase, number):
    """Begin a compaction of a copy of the template in which a hook earns something after the copy was compared: before
    the rounds, or between the last of them and the locked phase. It is stopped at that call that changes the new
    generation after that, 0 for none."""
    shutil.copytree(template, store, symlinks=True)
    return subprocess.Popen([sys.executable, "-c", BETWEEN, store, HOOK, phase, str(number)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT / "tests")})


@pytest.mark.parametrize(("phase", "part"), [("round", "triplet"), ("locked", "triplet"), ("locked", "window"),
                                             ("locked", "policy")])
def test_what_is_written_meanwhile_is_brought_over_and_compared(template, library, place, phase, part):
    whole = place / "whole"
    said, refused = earn_between(template, library, whole, phase, 0).communicate(timeout=60)
    # A client that is known already: its domain, its triplet, and the client itself.
    assert (refused, json.loads(Path(f"{whole}.note").read_text())) == ("", {"earned": True})
    assert int(said) >= 2
    assert_whole(whole, template, True, 3)
    calls = [line.split()[0] for line in Path(f"{whole}.calls").read_text().splitlines()]
    flush = next(number for number, call in enumerate(calls, 1) if call in ("fsync", "fdatasync"))
    # The same again: what was brought over is in the file, and not yet flushed and compared.
    spoiled = place / "spoiled"
    process = earn_between(template, library, spoiled, phase, flush)
    deadline = time.monotonic() + 60
    while not (stopped := os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)[1]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert os.WIFSTOPPED(stopped)
    before, now = tables(template, 2), tables(spoiled, 2)
    entries = {"triplet": [key for key in now["triplet"] if key not in before["triplet"]], "policy": [b"policy"],
               "window": [key for key, value in now["meta"].items() if key.startswith(b"window.")
                          and struct.unpack_from("=Qq", value)[1] > time.time()]}
    (key,) = entries[part]
    entry = key + now["triplet" if part == "triplet" else "meta"][key]
    data = spoiled / "passed.000003" / "data.mdb"
    with data.open("r+b") as file:
        content = file.read()
        assert entry in content
        file.seek(0)
        file.write(content.replace(entry, entry[:-1] + bytes([entry[-1] ^ 1])))
    os.kill(process.pid, signal.SIGCONT)
    said, refused = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "not what it was copied from" in refused
    assert not (spoiled / "passed.000003").exists()
    assert_whole(spoiled, template, True, 2)
