"""Many at once, with real processes: one first-seen time, nothing lost, nobody fails, compaction unnoticed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import lmdb.verify
import pytest

import aging
import fastgrey
from conftest import HOOK, write_lock_held
from fastgrey import compaction, directory, maintenance
from herds import herd, verdicts


def test_64_at_once_on_one_new_triplet(make_store, path, pending_path, tmp_path):
    make_store("pool_hops=3")
    status, lines = herd(path, 64, "a@example.org", "b@example.net", tmp_path / "log", FIXED_CLIENT="192.0.2.1")
    assert status == {111: 64}
    assert verdicts(lines) == {"defer new": 1, "defer early": 63}
    (partition,) = aging.records(pending_path).values()
    triplet, pair = sorted(aging.unpack(value) for value in partition.values())
    assert (triplet[1], pair[1]) == (0, 1)
    assert triplet[0] == pair[0]


def test_who_comes_second_leaves_the_first_time_alone(make_store, path, pending_path):
    """Two hooks look, find nothing, and wait for the write lock; the second must look again when it has it."""
    make_store("pool_hops=0")
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}
    subprocess.run([HOOK, "other@other.example", "b@example.net"], env=environment, stderr=subprocess.DEVNULL)
    before = {key for partition in aging.records(pending_path).values() for key in partition}
    waiting = []
    with write_lock_held(pending_path) as holder:
        for _ in range(2):
            waiting.append((int(time.time()), subprocess.Popen([HOOK, "a@example.org", "b@example.net"],
                                                               env=environment, stderr=subprocess.PIPE, text=True)))
            time.sleep(2.2)
        holder.communicate()
    lines = [(started, process.communicate()[1].split()[2]) for started, process in waiting]
    assert sorted(reason for _, reason in lines) == ["early", "new"]
    (first,) = [aging.unpack(value)[0] for partition in aging.records(pending_path).values()
                for key, value in partition.items() if key not in before]
    (recorded,) = [started for started, reason in lines if reason == "new"]
    assert recorded <= first <= recorded + 1


def test_64_retries_at_once_count_once(make_store, path, pending_path, tmp_path):
    make_store("delay=1m")
    herd(path, 1, "a@example.org", "b@example.net", tmp_path / "first", FIXED_CLIENT="192.0.2.1")
    aging.age(path, pending_path, 100)
    status, lines = herd(path, 64, "a@example.org", "b@example.net", tmp_path / "log", FIXED_CLIENT="192.0.2.1")
    assert status == {0: 64}
    assert verdicts(lines)["accept retry"] == 1
    records = aging.records(path / "passed.000001")
    for kind in ("client", "domain", "triplet"):
        assert [aging.unpack(value)[1] for value in records[kind].values()] == [1], kind


def test_64_refreshes_at_once_are_one(make_store, path, pending_path, tmp_path):
    """Many messages of a known domain when its last-seen time is due: one of them writes and flushes."""
    make_store("delay=1m", "refresh=1h")
    for step in range(2):
        herd(path, 1, "a@example.org", "b@example.net", tmp_path / f"log{step}", FIXED_CLIENT="192.0.2.1")
        aging.age(path, pending_path, 7200)
    status, lines = herd(path, 64, "a%@example.org", "b@example.net", tmp_path / "log", FIXED_CLIENT="192.0.2.1")
    assert status == {0: 64}
    assert verdicts(lines) == {"accept known-domain": 64}
    with fastgrey.open(path) as store:
        assert store.counters()["events"]["refreshed"] == 1
    (value,) = aging.records(path / "passed.000001")["domain"].values()
    assert time.time() - aging.unpack(value)[0] < 60


def test_5000_hooks_at_once(in_memory, tmp_path):
    """All at the gate together: strangers, then the same as early retries; nobody fails, nothing is lost."""
    path = in_memory / "store"
    fastgrey.create(path, {"delay": 3600, "pool_hops": 0})
    total = 5000
    status, lines = herd(path, total, "a%@host%.example", "b@example.net", tmp_path / "first")
    assert status == {111: total}
    assert verdicts(lines) == {"defer new": total}
    (partition,) = aging.records(path / f"pending.{directory.boot_id()}").values()
    assert len(partition) == total
    status, lines = herd(path, total, "a%@host%.example", "b@example.net", tmp_path / "second")
    assert status == {111: total}
    assert verdicts(lines) == {"defer early": total}
    with fastgrey.open(path) as store:
        assert store.counters()["verdicts"] == {"defer new": total, "defer early": total}


def test_5000_known_and_strangers_at_once(in_memory, tmp_path):
    """Every second one known: they pass, whatever the strangers do meanwhile."""
    path = in_memory / "store"
    fastgrey.create(path, {"pool_hops": 0, "allow_domain_after": 0})
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        now = int(time.time())
        for step in (1000, 400):
            for number in range(0, 5000, 2):
                store.check(client=f"10.0.{number >> 8}.{number & 255}", sender="a@known.example",
                            recipient=f"b{number}@example.net", now=now - step)
        assert store.known()["triplet"] == 2500
    status, lines = herd(path, 5000, "a@known.example", "b%@example.net", tmp_path / "log")
    assert status == {0: 2500, 111: 2500}
    assert verdicts(lines) == {"accept known-triplet": 2500, "defer new": 2500}


def test_200_promotions_at_once(make_store, path, pending_path, tmp_path):
    """Every one waits for the flushes of those before it; all are known afterwards."""
    make_store("delay=1m", "pool_hops=0")
    total = 200
    herd(path, total, "a%@host%.example", "b@example.net", tmp_path / "first")
    aging.age(path, pending_path, 100)
    status, lines = herd(path, total, "a%@host%.example", "b@example.net", tmp_path / "second")
    assert status == {0: total}
    assert verdicts(lines) == {"accept retry": total}
    with fastgrey.open(path) as store:
        assert store.known() == {"client": total, "domain": total, "triplet": total, "pair": 0}
        assert store.counters()["events"]["promoted"] == total


def test_promotions_during_compactions_are_all_kept(make_store, path, tmp_path, run_fastgrey):
    """Hooks promote without pause while generations follow one another: every one that passed is known at the end."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}
    stop = threading.Event()
    passed, wrong = [], []

    def promote(worker):
        number = 0
        while not stop.is_set():
            address = f"r{worker}x{number}@example.net"
            for expected in (b"accept retry", b"accept known-triplet"):
                done = subprocess.run([HOOK, "a@example.org", address], env=environment, capture_output=True)
                if b"defer new" in done.stderr:
                    done = subprocess.run([HOOK, "a@example.org", address], env=environment, capture_output=True)
                if expected not in done.stderr:
                    wrong.append(done.stderr)
            passed.append(address)
            number += 1

    workers = [threading.Thread(target=promote, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 120
    compactions = 0
    while (compactions < 15 or len(passed) < 200) and time.monotonic() < deadline:
        done = run_fastgrey("compact", "--json")
        assert done.returncode == 0, done.stderr
        compactions += 1
    stop.set()
    for worker in workers:
        worker.join(60)
    assert wrong == []
    assert compactions >= 10
    assert len(passed) >= 200
    with fastgrey.open(path) as store:
        assert store.known()["triplet"] == len(passed)
        for address in passed:
            verdict = store.check(client="192.0.2.1", sender="a@example.org", recipient=address, dry_run=True)
            assert verdict.reason == "known-triplet", address
    assert len(directory.generations(path)) == 2


EARN = """
import sys
import fastgrey
worker, number = sys.argv[2:]
with fastgrey.open(sys.argv[1]) as store:
    for index in range(int(number)):
        request = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": f"w{worker}x{index}@example.net"}
        for reason in ("new", "retry", "known-triplet"):
            verdict = store.check(**request)
            assert verdict.reason == reason, (verdict, request)
"""


def test_thousands_of_promotions_across_many_compactions(in_memory, tmp_path):
    """Counted to the last one: three processes with the store open, and hooks, while compactions follow one another."""
    path = in_memory / "store"
    fastgrey.create(path, fastgrey.settings.parse_assignments(
        ("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")))
    number, hooks = 3000, 300
    workers = [subprocess.Popen([sys.executable, "-c", EARN, path, str(worker), str(number)]) for worker in range(3)]
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}
    wrong = []

    def run_hooks():
        for index in range(hooks):
            for expected in (b"defer new", b"accept retry", b"accept known-triplet"):
                line = subprocess.run([HOOK, "a@example.org", f"h{index}@example.net"], env=environment,
                                      capture_output=True).stderr
                if expected not in line:
                    wrong.append(line)

    thread = threading.Thread(target=run_hooks)
    thread.start()
    touched = []
    while any(worker.poll() is None for worker in workers) or thread.is_alive():
        touched.append(compaction.compact(str(path), verify=compaction.VERIFY[len(touched) % 2]).touched)
    thread.join()
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert wrong == []
    # They did meet: promotions fell into the copying of many.
    assert sum(1 for notes in touched if notes) >= 5, touched
    with fastgrey.open(path) as store:
        assert store.known()["triplet"] == 3 * number + hooks
        assert store.counters()["events"]["promoted"] == 3 * number + hooks
        for worker, many in [*((f"w{worker}x", number) for worker in range(3)), ("h", hooks)]:
            for index in range(many):
                assert store.check(client="192.0.2.1", sender="a@example.org", recipient=f"{worker}{index}@example.net",
                                   dry_run=True).reason == "known-triplet"
    assert lmdb.verify.verify(str(path / (path / "current").readlink())) == []


def test_nothing_is_earned_in_a_generation_whose_link_is_not_flushed(make_store, path, monkeypatch):
    """A power cut could take the link back, and the new generation with it."""
    make_store("delay=0s", "pool_hops=0")
    command = [HOOK, "a@example.org", "b@example.net"]
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == 111
    flush, hooks = directory.flush_directory, []

    def flush_and_look(place):
        if place == path and directory.current_number(path) == 2:
            # One that only reads is not held up; one that earns something waits.
            stranger = [HOOK, "stranger@other.example", "b@example.net"]
            assert subprocess.run(stranger, env=environment, stderr=subprocess.DEVNULL).returncode == 111
            hooks.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
            with pytest.raises(subprocess.TimeoutExpired):
                hooks[0].wait(1.5)
        flush(place)

    monkeypatch.setattr(directory, "flush_directory", flush_and_look)
    compaction.compact(str(path))
    assert len(hooks) == 1
    assert b"accept retry" in hooks[0].communicate(timeout=60)[1]
    with fastgrey.open(path) as store:
        assert store.known()["triplet"] == 1


def test_long_lived_store_follows_the_swap(make_store, path, run_fastgrey):
    """A store that is open in another process than the compaction's reads and writes the new generation."""
    make_store("delay=0s")
    request = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": "b@example.net"}
    with fastgrey.open(path) as store:
        store.check(**request)
        assert store.check(**request).reason == "retry"
        for number in range(2, 5):
            assert run_fastgrey("compact").returncode == 0
            assert store.check(**request).reason == "known-domain"
            assert store.head()["generation"] == f"passed.{number:06d}"
            other = request | {"sender": f"a@{number}.example"}
            store.check(**other)
            assert store.check(**other).reason == "retry"
    with fastgrey.open(path) as store:
        assert store.known()["domain"] == 4


COMPACT = "import sys; from fastgrey import compaction\nwhile True: compaction.compact(sys.argv[1])"


def test_killed_compactions_leave_a_whole_store(make_store, path):
    """SIGKILL at random moments: the generation in force is whole, and the next compaction cleans up."""
    make_store("delay=0s", "allow_client_after=0", "allow_domain_after=0", "pool_hops=0")
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        for _ in range(2):
            for number in range(3000):
                store.check(client="192.0.2.1", sender="a@example.org", recipient=f"{number}@x.example")
    pick = random.Random(1)
    request = {"client": "192.0.2.1", "sender": "a@example.org"}
    for kill in range(30):
        process = subprocess.Popen([sys.executable, "-c", COMPACT, str(path)])
        time.sleep(0.15 + pick.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with fastgrey.open(path) as store:
            assert store.known()["triplet"] == 3000 + kill
            # Writing works at once: no lock is stuck, no note of the dead compaction is in the way.
            recipient = f"kill{kill}@x.example"
            store.check(**request, recipient=recipient)
            assert store.check(**request, recipient=recipient).reason == "retry"
            assert directory.current_number(path) in directory.generations(path)
        assert lmdb.verify.verify(str(path / (path / "current").readlink())) == []
    summary = compaction.compact(path)
    assert (summary.alive, summary.expired) == (3030 + 2, 0)
    assert directory.generations(path) == [summary.generation - 1, summary.generation]
    assert sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("p")) == [
        "compaction.lock", "compaction.status", "current", "stats"]


def test_hooks_give_their_reader_slots_back(make_store, path):
    """While somebody has the store open, slots of processes that left would fill the table."""
    make_store()
    with fastgrey.open(path) as store:
        store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
        for number in range(100):
            subprocess.run([HOOK, f"a@{number}.example", "b@example.net"], stderr=subprocess.DEVNULL,
                           env={"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"})
        table = fastgrey._core.reader_table(store, False)
    assert table["highest"] <= 3
    assert table["freed"] == 0


def test_one_compaction_at_a_time(make_store, path, run_fastgrey):
    make_store()
    with maintenance.alone(path):
        done = run_fastgrey("compact")
    assert done.returncode == 3
    assert "another compaction" in done.stderr
    assert run_fastgrey("compact").returncode == 0


def test_killed_hooks_leave_no_lock_and_no_hole(make_store, path, pending_path):
    """Hooks killed at random moments; those after them go on, and what was promised is there."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
    pick = random.Random(2)
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}
    passed = []
    for number in range(400):
        address = f"{number // 2}@example.net"
        process = subprocess.Popen([HOOK, "a@example.org", address], env=environment, stderr=subprocess.PIPE)
        if number % 3:
            time.sleep(pick.random() * 0.0008)
            process.send_signal(signal.SIGKILL)
        line = process.communicate(timeout=30)[1]
        if process.returncode == 0:
            assert b"error" not in line
            passed.append(address)
        else:
            assert process.returncode in (111, -signal.SIGKILL)
    assert len(passed) > 10
    for place in (path / "passed.000001", pending_path):
        assert lmdb.verify.verify(str(place)) == []
    with fastgrey.open(path) as store:
        for address in passed:
            assert store.check(client="192.0.2.1", sender="a@example.org", recipient=address,
                               dry_run=True).reason == "known-triplet"


def test_flood_from_many_processes(make_store, path, pending_path):
    """Eight processes fill a small pending again and again: nobody errs, and the bound holds."""
    make_store("pending_size=4M")
    script = ("import fastgrey, sys\ns = fastgrey.open(sys.argv[1])\nfor n in range(12_000):\n"
              "    v = s.check(client=f'10.{n % 200}.{int(sys.argv[2])}.1', sender=f'a@h{n}x{sys.argv[2]}.example',"
              " recipient='b@example.net')\n    assert v.cause is None and v.reason == 'new', v")
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path), str(number)]) for number in range(8)]
    assert [process.wait(120) for process in processes] == [0] * 8
    assert (pending_path / "data.mdb").stat().st_size <= 4 << 20
    with fastgrey.open(path) as store:
        counters = store.counters()
    assert counters["verdicts"] == {"defer new": 96_000}
    assert counters["events"]["partitions given up"] >= 1
    # A process that is not run for a while pins what was dropped; the others wait for it half a second at most.
    assert counters["events"]["not recorded"] < 960
