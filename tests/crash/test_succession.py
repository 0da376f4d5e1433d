"""A generation takes the place of another: each state that a kill can leave, full disks, damaged tables, live hooks."""

import errno
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import lmdb
import pytest

import aging
import effort
import fastgrey
import ground
from conftest import FASTGREY, HOOK
from fastgrey import backup, compaction, directory, maintenance, policy, rollback, succession, verification
from fastgrey.errors import FastgreyError
from fastgrey.health import isolation
from machine import NOBODY, fill_up, needs_root, open_the_way, small_disk

# Run a step and be killed before or after the call of one function of it.
KILLED = """
import importlib, os, signal, sys
module, name, when, path, file = sys.argv[1:]
from fastgrey import backup, directory, rollback, soundness, succession
place = importlib.import_module(f"fastgrey.{module}")
real = getattr(place, name)
def killed(*arguments, **options):
    if when == "after":
        real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(place, name, killed)
if file:
    with open(file, "rb") as source:
        backup.restore(path, source, file)
else:
    rollback.rollback(path)
"""

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "format.md").read_text().partition("## Going back, and a backup put in force")[2]
ROWS = re.findall(r"^\| (R\d+) ([a-z ]+?) \|", TABLE.partition("\n## ")[0], re.M)
# The call that ends each row; a second one of its name where there is a number.
ENDS = {"at rest": ("mkdir /passed.000003",), "filling": ("fsync /passed.000003/data.mdb",),
        "filled": ("pwrite /passed.000003/data.mdb",), "adopted": ("write /hits.3",),
        "hits": ("symlink /current.new",), "locked": ("rename /current.new",),
        "swapped": ("pwrite /passed.000002/data.mdb", -1), "marked": ("rename /passed.000003/manifest.new",)}


def promote(store, *numbers):
    """Make triplets known."""
    for number in numbers:
        for _ in range(2):
            store.check(client=f"10.{number >> 8}.{number & 255}.1", sender="a@example.org",
                        recipient=f"b{'abcdefghij'[number % 10]}@{number}.example")


def known(path, numbers):
    """Which of them are known."""
    with fastgrey.open(path) as store:
        return [number for number in numbers
                if store.check(client=f"10.{number >> 8}.{number & 255}.1", sender="a@example.org",
                               recipient=f"b{'abcdefghij'[number % 10]}@{number}.example",
                               dry_run=True).reason == "known-triplet"]


@pytest.fixture
def store(make_store, path):
    """Generation 2 in force with triplets 1 to 30 and a rule; generation 1 before it with 1 to 20."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
    with fastgrey.open(path) as opened:
        promote(opened, *range(1, 21))
    compaction.compact(str(path))
    with fastgrey.open(path) as opened:
        promote(opened, *range(21, 31))
    return path


@pytest.fixture
def saved(store, tmp_path):
    """A backup of triplets 1 to 30; after it, 31 came."""
    file = tmp_path / "backup"
    backup.backup(str(store), file)
    with fastgrey.open(store) as opened:
        promote(opened, 31)
    return file


def whole(run_fastgrey, allowed=(0,), env=None):
    """That verify says so."""
    done = run_fastgrey("verify", env=env)
    assert done.returncode in allowed, done.stdout
    return done


@pytest.fixture
def template(in_memory):
    """A store in which all states have something to do: generations 2 and 1 as in `store`, with other rules and another
    on_error each, a backup of 2 beside it, and then triplet 31."""
    path = in_memory / "template"
    values = {"delay": 0, "pool_hops": 0, "allow_client_after": 0, "allow_domain_after": 0}
    fastgrey.create(path, values)
    with fastgrey.open(path) as opened:
        policy.put(opened, {"deny_senders": ["one.example"]}, values)
        promote(opened, *range(1, 21))
    compaction.compact(str(path))
    with fastgrey.open(path) as opened:
        promote(opened, *range(21, 31))
    backup.backup(str(path), in_memory / "backup")
    with fastgrey.open(path) as opened:
        policy.put(opened, {"deny_senders": ["two.example"]}, values | {"on_error": 1})
        promote(opened, 31)
    return path


def succeed(template, library, what, code, numbers):
    """A rollback or restore for each number of a call that is the last, or fails; the stores that come of it."""
    work = template.parent / "work"
    if work.exists():
        shutil.rmtree(work)
    work.mkdir()
    file = str(template.parent / "backup") if what == "restore" else ""
    done = subprocess.run([sys.executable, ROOT / "tests" / "succeeding.py", template, work, file, str(code),
                           *map(str, numbers)], env=os.environ | {"LD_PRELOAD": str(library)}, stdout=subprocess.PIPE,
                          text=True, check=True, timeout=60 + 10 * len(numbers))
    return [(work / str(run["n"]), run) for run in map(json.loads, done.stdout.splitlines())]


def calls(template, library, what):
    """The calls that change the store, when none of them fails."""
    ((_, run),) = succeed(template, library, what, 0, [0])
    assert run["status"] == 0, run
    assert len(run["calls"]) > 40
    return run["calls"]


def number_of(made, end, nth=0):
    """The number of the call with that name."""
    return [number for number, call in enumerate(made, 1) if call == end][nth]


def head_of(store, number):
    """Number, superseded, number of the policy, and on_error; nothing where it has no head yet."""
    try:
        head = aging.records(store / directory.generation_name(number), lambda name: name == b"meta")["meta"][b"head"]
    except (lmdb.Error, KeyError):
        return None
    return *struct.unpack_from("=QQ", head, 16), struct.unpack_from("=Q", head, 48)[0], head[264 + 13 * 8]


def row(store):
    """The row of the table that a killed rollback or restore of the template was in, by what it left."""
    if directory.current_number(store) == 3:
        if not head_of(store, 2)[1]:
            return "swapped"
        settled = [store / "passed.000001", store / "hits.2"]
        sealed = [store / name / "manifest" for name in ("passed.000002", "passed.000003")]
        return "settled" if all(path.exists() for path in sealed) and not any(map(Path.exists, settled)) else "marked"
    if not (store / "passed.000003").exists():
        return "at rest"
    if (store / "current.new").is_symlink():
        return "locked"
    # Nobody opens it before it is flushed.
    if not (store / "passed.000003" / "lock.mdb").exists():
        return "filling"
    told = head_of(store, 3)
    if told is None or told[0] != 3:
        return "filled"
    return "hits" if (store / "hits.3").exists() and (store / "hits.3").stat().st_size else "adopted"


def serves_on(store, run_hook, run_fastgrey, what):
    """One of two generations is in force, whole; hooks go on, and the next compaction cleans up and loses nothing."""
    in_force = directory.current_number(store)
    assert in_force in (2, 3)
    environment = {"FASTGREY_STORE": str(store)}
    done = run_fastgrey("verify", env=environment)
    assert done.returncode in (0, 1) or "another on_error" in done.stdout, done.stdout
    assert "damaged" not in done.stdout.replace(str(store), ""), done.stdout
    late = {"client": "192.0.2.1", "recipient": "after@example.net", "env": environment}
    assert run_hook(**late).words == ["defer", "new"]
    assert run_hook(**late).words == ["accept", "retry"]
    denied = {2: "two", 3: "one"}[in_force]
    assert run_hook(sender=f"a@{denied}.example", env=environment).words == ["reject", "denied"]
    wanted = [*range(1, 32)] if in_force == 2 else [*range(1, 21)] if what == "rollback" else [*range(1, 31)]
    assert known(store, range(1, 32)) == wanted
    assert run_hook(**late).words == ["accept", "known-triplet"]
    compaction.compact(str(store))
    assert directory.generations(store) == [in_force, in_force + 1]
    assert known(store, range(1, 32)) == wanted
    assert run_hook(**late).words == ["accept", "known-triplet"]
    if "another on_error" in done.stdout:
        ground.follow(run_fastgrey("verify", env=environment).stdout.partition("; run: ")[2].split(" (")[0].strip())
        whole(run_fastgrey, env=environment)


def spread(numbers, count):
    """So many of them, from the first to the last."""
    return numbers if count >= len(numbers) else [numbers[place * len(numbers) // count] for place in range(count)]


@pytest.mark.torture
@pytest.mark.parametrize("what", ["rollback", "restore"])
def test_killed_in_every_state(template, library, run_hook, run_fastgrey, what):
    """R0 to R8: each row is met, in its order, and what it says is so."""
    made = calls(template, library, what)
    ends = {number_of(made, *end): name for name, end in ENDS.items()}
    assert list(ends.values()) == [name for _, name in ROWS][:-1]
    numbers = sorted({*ends, *spread(range(1, len(made) + 1), effort.times(1) * 3 - 3)})
    met = {}
    for store, run in succeed(template, library, what, 0, numbers):
        assert run["status"] == -signal.SIGKILL, run
        found = row(store)
        met.setdefault(found, run["n"])
        assert found == ends.get(run["n"], found), run
        assert directory.current_number(store) == (3 if found in ("swapped", "marked", "settled") else 2)
        if found in ("hits", "locked"):
            assert head_of(store, 3)[2] == 3
        serves_on(store, run_hook, run_fastgrey, what)
        shutil.rmtree(store)
    assert list(met) == [name for _, name in ROWS if name in met]
    assert {name for _, name in ROWS} - set(met) <= {"settled"}
    effort.tried(f"kills in a {what}", kills=len(numbers), lost=0)


@pytest.mark.torture
@pytest.mark.parametrize("what", ["rollback", "restore"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC][:effort.EFFORT])
def test_a_call_that_fails(template, library, run_hook, run_fastgrey, what, code):
    """Refused in one line that says what is in force, or it did not matter. Also after the link has been changed."""
    made = calls(template, library, what)
    swap = number_of(made, "rename /current.new")
    # The flush of the link itself, and the mark.
    mark = number_of(made, "fdatasync /passed.000002/data.mdb", -1)
    numbers = sorted({swap, swap + 1, mark, *spread(range(1, swap), effort.times(1)),
                      *spread(range(mark + 1, len(made) + 1), effort.times(2))})
    refused = {2: 0, 3: 0}
    for store, run in succeed(template, library, what, code, numbers):
        assert run["status"] in (0, 1), run
        in_force = directory.current_number(store)
        if run["status"]:
            refused[in_force] += 1
            line = run["message"]
            assert line.count("\n") == 0
            assert "; " in line
            assert in_force == 2 or "passed.000003 is in force" in line, line
            assert os.strerror(code) in line or "damaged" in line or "not sound" in line, line
        else:
            assert in_force == 3, run
        serves_on(store, run_hook, run_fastgrey, what)
        shutil.rmtree(store)
    effort.tried(f"calls of a {what} that fail", runs=len(numbers), refused=sum(refused.values()), lost=0)
    assert refused[2]
    assert refused[3]


@pytest.mark.torture
@pytest.mark.parametrize("what", ["rollback", "restore"])
def test_killed_at_any_moment(saved, store, run_fastgrey, what):
    """The one or the other generation, whole, and never a number twice for two contents that hooks have seen."""
    with effort.chance(f"{what} killed at any moment") as pick:
        kill_at_any_moment(saved, store, run_fastgrey, what, pick)


def kill_at_any_moment(saved, store, run_fastgrey, what, pick):
    arguments = ["rollback"] if what == "rollback" else ["restore", str(saved)]
    started = time.monotonic()
    assert run_fastgrey(*arguments).returncode == 0
    span = time.monotonic() - started
    seen = directory.current_number(store)
    killed = 0
    for _ in range(effort.times(8)):
        process = subprocess.Popen([FASTGREY, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env={"FASTGREY_STORE": str(store), "PATH": os.environ["PATH"]})
        time.sleep(pick.random() * span)
        process.kill()
        killed += process.wait(60) == -signal.SIGKILL
        number = directory.current_number(store)
        assert number in (seen, seen + 1)
        seen = number
        assert "damaged" not in whole(run_fastgrey, (0, 1)).stdout
        assert known(store, range(1, 32)) in ([*range(1, 21)], [*range(1, 31)], [*range(1, 32)])
    assert run_fastgrey(*arguments).returncode == 0
    whole(run_fastgrey)
    effort.tried(f"{what} killed at any moment", kills=killed, lost=0)


def test_a_killed_restore_of_a_new_store_begins_anew(saved, run_fastgrey, tmp_path):
    other = tmp_path / "other"
    for module, name, when in (("succession", "adopt", "before"), ("succession", "adopt", "after"),
                               ("directory", "swap", "before"), ("directory", "swap", "after")):
        subprocess.run([sys.executable, "-c", KILLED, module, name, when, str(other), str(saved)], timeout=120)
        if when == "after" and name == "swap":
            break
        assert not (other / "current").exists()
        # The generation without a link stands in the way of a restore no more than in that of init.
        shutil.rmtree(other)
        assert run_fastgrey("restore", str(saved), "--store", str(other)).returncode == 0
        shutil.rmtree(other)
    assert run_fastgrey("verify", "--store", str(other)).returncode == 0
    assert known(other, range(1, 32)) == [*range(1, 31)]


def test_no_room(tmp_path, run_fastgrey):
    """The copy does not fit: one line, and the store is what it was."""
    with small_disk(tmp_path / "disk", "8M") as disk:
        store = disk / "store"
        fastgrey.create(store, fastgrey.settings.parse_assignments(["delay=0s", "pool_hops=0"]))
        with fastgrey.open(store) as opened:
            promote(opened, *range(1, 21))
        compaction.compact(str(store))
        backup.backup(str(store), tmp_path / "backup")
        fill_up(disk / "full")
        for arguments in (["rollback"], ["restore", str(tmp_path / "backup")], ["backup", str(disk / "backup")]):
            done = run_fastgrey(*arguments, "--store", str(store))
            assert (done.returncode, done.stdout) == (1, "")
            assert "No space left" in done.stderr
            assert done.stderr.count("\n") == 1
            assert directory.generations(store) == [1, 2]
        assert not (disk / "backup").exists()
        assert not (disk / "backup.new").exists()
        (disk / "full").unlink()
        assert run_fastgrey("verify", "--store", str(store)).returncode == 0
        assert run_fastgrey("rollback", "--store", str(store)).returncode == 0


def test_a_disk_for_reading_only(tmp_path, run_fastgrey):
    with small_disk(tmp_path / "disk", "8M") as disk:
        store = disk / "store"
        fastgrey.create(store)
        compaction.compact(str(store))
        backup.backup(str(store), tmp_path / "backup")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        try:
            for arguments in (["rollback"], ["restore", str(tmp_path / "backup")], ["backup", str(disk / "backup")]):
                done = run_fastgrey(*arguments, "--store", str(store))
                assert (done.returncode, done.stdout) == (1, "")
                assert "Read-only file system" in done.stderr
                assert done.stderr.count("\n") == 1
            for arguments in (["verify"], ["rollback", "--dry-run"], ["backup", str(tmp_path / "backup")]):
                done = run_fastgrey(*arguments, "--store", str(store))
                assert done.returncode == 0, done
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@needs_root
def test_without_the_right(store, saved, tmp_path):
    """What another user of the machine is told."""
    open_the_way(tmp_path)

    def as_somebody():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for work in (lambda: rollback.rollback(str(store)), lambda: rollback.rollback(str(store), dry_run=True),
                     lambda: backup.backup(str(store), tmp_path / "other")):
            try:
                work()
            except FastgreyError as error:
                yield str(error)
            else:
                yield "done"
        yield verification.verify(str(store)).worst[0].what

    lines = list(isolation.results(as_somebody))
    assert len(lines) == 4
    assert all("ermission denied" in line for line in lines), lines
    assert directory.generations(store) == [1, 2]


def test_not_while_a_compaction_runs(store, saved, run_fastgrey):
    with maintenance.alone(store):
        for arguments in (["rollback"], ["restore", str(saved)]):
            done = run_fastgrey(*arguments)
            assert (done.returncode, done.stdout) == (1, "")
            assert "another compaction" in done.stderr
        # They change nothing.
        assert run_fastgrey("rollback", "--dry-run").returncode == 0
        assert run_fastgrey("backup", str(saved)).returncode == 0


def test_a_store_that_stays_open_notices(store):
    """Who only reads goes by the mark, who writes by the link."""
    with fastgrey.open(store) as opened:
        script = "import sys\nfrom fastgrey import rollback\nprint(rollback.rollback(sys.argv[1]).generation)"
        done = subprocess.run([sys.executable, "-c", script, str(store)], capture_output=True, text=True, timeout=120)
        assert done.stdout == "3\n", done.stderr
        assert opened.head()["generation"] == "passed.000003"
        promote(opened, 40)
    assert known(store, [1, 20, 21, 40]) == [1, 20, 40]


def waits_for_a_lock(process):
    """Wait until it does."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with open(f"/proc/{process.pid}/wchan") as file:
            if "futex" in file.read():
                return True
    return False


@pytest.mark.parametrize("name", ["swap", "flush_directory"])
def test_a_hook_waits_while_the_link_changes(store, monkeypatch, name):
    """One that waits for the lock of the generation that is left finds out when it has it; one that comes when the link
    is there and not flushed yet waits for the lock of the new one. What they promote is in the one in force."""
    environment = {"FASTGREY_STORE": str(store), "TCPREMOTEIP": "192.0.2.1"}
    command = [HOOK, "a@example.org", "late@example.net"]
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == 111
    waiting = []
    real = getattr(directory, name)

    def replaced(root, *arguments):
        # Before the link changes, names in the store are flushed too.
        if root == store and not waiting and directory.current_number(store) == (2 if name == "swap" else 3):
            waiting.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
            assert waits_for_a_lock(waiting[0])
        real(root, *arguments)

    monkeypatch.setattr(directory, name, replaced)
    rollback.rollback(str(store))
    line = waiting[0].communicate(timeout=60)[1]
    assert line.split()[1:3] == ["accept", "retry"], line
    with fastgrey.open(store) as opened:
        assert opened.check(client="192.0.2.1", sender="a@example.org", recipient="late@example.net",
                            dry_run=True).reason == "known-triplet"


def test_hooks_all_the_while(store, saved, run_fastgrey):
    """Rollbacks, restores, compactions and backups in turns, hooks promoting: no error, and what is counted as lost is
    what was promoted since."""
    script = ("import os, subprocess, sys\nhook, first = sys.argv[1], int(sys.argv[2])\nn = first\n"
              "while not os.path.exists(sys.argv[3]):\n    n += 1\n    for _ in range(2):\n"
              "        subprocess.run([hook, f'a@{n}.example', 'b@example.net'],\n"
              "                       env={'TCPREMOTEIP': f'10.9.{n % 200}.1', 'FASTGREY_STORE': sys.argv[4]})")
    stop, log = store.parent / "stop", store.parent / "log"
    with open(log, "wb") as file:
        hooks = [subprocess.Popen([sys.executable, "-c", script, HOOK, str(first), str(stop), str(store)], stderr=file)
                 for first in (1000, 2000)]
        try:
            for arguments in (["rollback"], ["compact"], ["rollback"], ["rollback"], ["restore", str(saved)],
                              ["backup", str(saved)], ["rollback"]):
                done = run_fastgrey(*arguments)
                assert done.returncode == 0, done.stderr
                whole(run_fastgrey)
        finally:
            stop.touch()
            for process in hooks:
                process.wait(60)
    verdicts = Counter(" ".join(line.split()[1:3]) for line in log.read_text().splitlines())
    assert set(verdicts) <= {"defer new", "accept retry", "accept known-triplet", "accept known-domain"}, verdicts
    assert verdicts["accept retry"]


def test_what_is_lost_is_counted_exactly(store, run_fastgrey):
    with fastgrey.open(store) as opened:
        promote(opened, *range(50, 57))
        policy.put(opened, {"deny_senders": ["bulk.example"]},
                   {"delay": 0, "refresh": 60, "pool_hops": 0, "allow_client_after": 0, "allow_domain_after": 0})
    done = json.loads(run_fastgrey("rollback", "--dry-run", "--json").stdout)
    assert done["loss"]["added"] == {"client": 17, "domain": 17, "triplet": 17, "pair": 0}
    assert directory.current_number(store) == 2
    done = json.loads(run_fastgrey("rollback", "--json").stdout)
    assert done["loss"]["added"] == {"client": 17, "domain": 17, "triplet": 17, "pair": 0}
    assert (done["left"], done["source"], done["generation"], done["damage"]) == (2, 1, 3, None)
    assert done["loss"]["policy"][0].startswith("1 rule of 2")
    assert done["loss"]["policy"][1] == "none"
    assert ["refresh", "1m", "1d"] in done["loss"]["settings"]
    undone = json.loads(run_fastgrey("rollback", "--json").stdout)
    assert undone["loss"]["added"] == {"client": 0, "domain": 0, "triplet": 0, "pair": 0}
    assert undone["loss"]["gone"] == {"client": 17, "domain": 17, "triplet": 17, "pair": 0}
    assert known(store, range(50, 57)) == [*range(50, 57)]


def test_numbers_of_policies_rise(store):
    """A policy that comes back gets a number that none had, with the hits of its rules."""
    with fastgrey.open(store) as opened:
        policy.put(opened, {"deny_senders": ["bulk.example"]})
        opened.check(client="192.0.2.1", sender="a@bulk.example", recipient="b@example.net")
    compaction.compact(str(store))
    with fastgrey.open(store) as opened:
        assert policy.put(opened, {"deny_senders": ["other.example", "bulk.example"]}) == 2
        opened.check(client="192.0.2.1", sender="a@bulk.example", recipient="b@example.net")
    rollback.rollback(str(store))
    with fastgrey.open(store) as opened:
        found = policy.in_force(opened)
        assert (found.number, found.hits) == (3, (2,))
        assert opened.check(client="192.0.2.1", sender="a@bulk.example", recipient="b@example.net").reason == "denied"
        assert policy.in_force(opened).hits == (3,)
        assert policy.put(opened, {}) == 4
    assert not (store / "hits.3").exists()


def test_a_damaged_generation_is_left_and_put_aside(store, run_fastgrey, run_hook):
    data = store / "passed.000002" / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192] + bytes(data.stat().st_size - 8192))
    done = run_fastgrey("rollback")
    assert done.returncode == 0, done.stderr
    assert "passed.000002 is damaged" in done.stdout
    assert sorted(entry.name for entry in store.glob("[pd]*.0*")) == ["damaged.000002", "passed.000003"]
    assert known(store, range(1, 31)) == [*range(1, 21)]
    shutil.rmtree(store / "damaged.000002")
    whole(run_fastgrey)


def test_going_back_to_a_damaged_one_is_refused(store, run_fastgrey):
    data = store / "passed.000001" / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192] + bytes(data.stat().st_size - 8192))
    done = run_fastgrey("rollback")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot go back to passed.000001" in done.stderr
    assert directory.current_number(store) == 2
    assert known(store, range(1, 31)) == [*range(1, 31)]


def test_nothing_to_go_back_to(make_store, run_fastgrey):
    make_store()
    done = run_fastgrey("rollback")
    assert done.returncode == 1
    assert "there is no generation before passed.000001" in done.stderr


def test_a_copy_that_is_not_what_it_was_made_from_is_not_put_in_force(store, monkeypatch):
    real = succession.adopt

    def adopt(generation, number, policy_number):
        real(generation, number, policy_number)
        with lmdb.open(str(generation), max_dbs=8) as environment:
            with environment.begin(db=environment.open_db(b"triplet"), write=True) as txn:
                txn.put(next(iter(txn.cursor()))[0], b"\x01\x00\x00\x00\x00\x01\x00\x00")

    monkeypatch.setattr(succession, "adopt", adopt)
    with pytest.raises(FastgreyError, match="another triplet"):
        rollback.rollback(str(store))
    assert directory.generations(store) == [1, 2]
    assert directory.current_number(store) == 2
