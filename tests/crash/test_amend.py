"""forget and pass while a compaction runs and while others promote: nothing comes back, nothing is lost."""

import os
import subprocess
import time

import pytest

import aging
import fastgrey
from conftest import FASTGREY, HOOK, write_lock_held
from fastgrey import compaction

NETWORK = "192.0.2.1"
SENDER = "a@example.org"


@pytest.fixture
def known_store(make_store, path):
    """A store with 300 known triplets of one sender, of which r0 to r299 are the recipients."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        for _ in range(2):
            for number in range(300):
                store.check(client=NETWORK, sender=SENDER, recipient=f"r{number}@example.net")
    return path


def triplets(path):
    """Promotions of the known triplets of the generation in force, by key, as another LMDB reads them."""
    return {key: aging.unpack(value)[1]
            for key, value in aging.records(path / (path / "current").readlink())["triplet"].items()}


@pytest.mark.parametrize("when", [(step, end) for step in ("copy", "compare", "structure") for end in (0, 1)])
def test_during_a_compaction(known_store, run_fastgrey, run_hook, when):
    """Before and after the copy of a record, the comparison and the walk: the new generation has what is true."""
    before = triplets(known_store)
    changed = []

    def amend(step, done, total):
        if (step, int(done == total and total > 0)) != when or changed:
            return
        changed.append(step)
        for arguments in (["forget", NETWORK, SENDER, "r1@example.net"],
                          ["pass", NETWORK, SENDER, "r2@example.net"], ["pass", NETWORK, SENDER, "new@example.net"],
                          # What is made known again after it was forgotten is known, and the other way round.
                          ["forget", NETWORK, SENDER, "r3@example.net"], ["pass", NETWORK, SENDER, "r3@example.net"],
                          ["pass", NETWORK, SENDER, "gone@example.net"],
                          ["forget", NETWORK, SENDER, "gone@example.net"]):
            assert run_fastgrey(*arguments).returncode == 0

    summary = compaction.compact(str(known_store), progress=amend)
    assert changed
    assert summary.generation == 2
    after = triplets(known_store)
    assert len(before.keys() - after.keys()) == 1
    assert len(after.keys() - before.keys()) == 1
    assert sorted(after.values()) == [1] * 299 + [2]
    for recipient, words in (("r1", ["defer", "new"]), ("r2", ["accept", "known-triplet"]),
                             ("r3", ["accept", "known-triplet"]), ("new", ["accept", "known-triplet"]),
                             ("gone", ["defer", "new"]), ("r299", ["accept", "known-triplet"])):
        assert run_hook(client=NETWORK, sender=SENDER, recipient=f"{recipient}@example.net").words == words
    # All records of the domain and the client went with the first forget; no compaction brings them back.
    compaction.compact(str(known_store))
    tables = aging.records(known_store / "passed.000003")
    assert (tables["client"], tables["domain"], tables["touched"]) == ({}, {}, {})
    assert triplets(known_store) == after


def test_many_at_once_all_count(known_store, path, run_fastgrey):
    """Each of several passes adds one, each of several forgets removes, while generations follow one another."""
    commands = [["pass", NETWORK, SENDER, "r7@example.net"]] * 12 + [
        ["forget", NETWORK, SENDER, f"r{number}@example.net", "--only", "triplet"] for number in range(20, 28)]
    running = [subprocess.Popen([FASTGREY, *command, "--store", str(path)], stdout=subprocess.DEVNULL)
               for command in commands]
    compactions = 0
    while any(process.poll() is None for process in running) and compactions < 100:
        assert run_fastgrey("compact").returncode == 0
        compactions += 1
    assert [process.wait(60) for process in running] == [0] * 20
    assert compactions
    assert sorted(triplets(path).values()) == [1] * 291 + [13]


def test_who_waits_for_the_lock_looks_again(known_store, path):
    """All have come as far as the write lock before the first of them writes: each adds one all the same."""
    with write_lock_held(path / "passed.000001") as holder:
        running = [subprocess.Popen([FASTGREY, "pass", NETWORK, SENDER, "r7@example.net", "--store", str(path)],
                                    stdout=subprocess.DEVNULL) for _ in range(5)]
        time.sleep(2)
        assert [process.poll() for process in running] == [None] * 5
        holder.communicate()
    assert [process.wait(30) for process in running] == [0] * 5
    assert sorted(triplets(path).values()) == [1] * 299 + [6]


@pytest.mark.parametrize("first", ["hook", "forget"])
def test_a_refresh_brings_nothing_back(known_store, path, pending_path, first):
    """A hook has seen the record and comes to refresh it, before or after it is forgotten: it stays forgotten."""
    aging.age(path, pending_path, 2 * 86_400)
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": NETWORK, "PATH": os.environ["PATH"]}
    commands = {"hook": [HOOK, SENDER, "r5@example.net"], "forget": [FASTGREY, "forget", NETWORK, SENDER,
                                                                    "r5@example.net"]}
    waiting = {}
    with write_lock_held(path / "passed.000001") as holder:
        for name in sorted(commands, key=lambda name: name != first):
            waiting[name] = subprocess.Popen(commands[name], env=environment, stdout=subprocess.PIPE,
                                             stderr=subprocess.PIPE)
            time.sleep(1)
        holder.communicate()
    said = {name: b"".join(process.communicate(timeout=30)) for name, process in waiting.items()}
    assert b"accept known-triplet" in said["hook"]
    assert b"not written" not in said["hook"]
    assert b"forgot known triplet" in said["forget"]
    assert len(triplets(path)) == 299
