"""Processes stopped (SIGSTOP) with a lock or a snapshot in their hands: what others do meanwhile, and after SIGCONT.

A hook is stopped at each of its system calls, a compaction at each call that changes the store; every stop has a copy of
the store for itself, so that all of them can be waited for at once.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

import effort
import fastgrey
import interposer
import killing
from conftest import HOOK
from fastgrey import directory, settings, verification
from machine import strace

pytestmark = pytest.mark.torture

SENDERS = {"known": ["new", "retry", "known-domain"], "waiting": ["new"], "other": ["new"]}
# Who is known, who retries, and a stranger, each with the reason of its verdict.
ASKED = {"known": "known-domain", "other": "retry", "stranger": "new"}

# Reads one snapshot of an LMDB environment until it is told to end.
READER = """
import lmdb, sys
with lmdb.open(sys.argv[1], max_dbs=16, readonly=True).begin():
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def template(in_memory):
    """A store with a known sender, and two strangers whose retry promotes them."""
    path = in_memory / "template"
    fastgrey.create(path, settings.parse_assignments(("delay=0s", "pool_hops=0", "allow_client_after=0")))
    for name, reasons in SENDERS.items():
        for reason in reasons:
            assert words(started(path, name))[1] == reason
    return path


def started(path, name):
    """A hook that asks for a sender."""
    return subprocess.Popen([HOOK, f"a@{name}.example", "b@example.net"], stderr=subprocess.PIPE,
                            env={"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"})


def words(process):
    """Action and reason of a hook, and all of its line."""
    line = process.communicate(timeout=120)[1].decode("ascii")
    assert process.returncode in (0, 111)
    action, reason = line.split()[1:3]
    return action, reason, line


def copies(template, number):
    """So many copies of the store, without lock files: nobody has them open."""
    for index in range(number):
        path = template.with_name(f"store{index}")
        shutil.copytree(template, path, symlinks=True, ignore=shutil.ignore_patterns("lock.mdb"))
        yield path


def asked(path):
    """Hooks that ask all at once."""
    return {name: started(path, name) for name in ASKED}


def held_up(answers):
    """Which of them had to give up; the others are what they should be."""
    late = set()
    for name, reason in ASKED.items():
        action, found, line = words(answers[name])
        if found == "error":
            assert action == "accept"
            assert "no answer from the store in time" in line
            late.add(name)
        else:
            assert found == reason, line
    return late


def all_is_well(path):
    """After it went on: nothing holds anybody up, and the store is whole."""
    for name in ("known", "other", "waiting", "stranger"):
        assert words(started(path, name))[:2] in (("accept", "known-domain"), ("accept", "retry")), name
    assert words(started(path, "late"))[:2] == ("defer", "new")
    assert words(started(path, "late"))[:2] == ("accept", "retry")
    report = verification.verify(str(path))
    assert report.worst == []


@pytest.mark.parametrize("what", ["stranger", "promotion"])
def test_a_hook_stopped_at_each_of_its_calls(template, what):
    """Known senders pass wherever it stands, but for the moment in which it makes the locks; who must write passes too,
    or is answered by on_error in the end. When it goes on, so does everything."""
    strace()
    sender = {"stranger": "first", "promotion": "waiting"}[what]
    command = [HOOK, f"a@{sender}.example", "b@example.net"]

    def environment(path):
        return {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}

    whole = next(copies(template, 1))
    calls = killing.at_call(0, command, env=environment(whole))[2]
    shutil.rmtree(whole)
    with effort.chance(f"stopped {what}") as pick:
        numbers = range(1, calls + 1)
        if effort.EFFORT == 1:
            numbers = sorted(pick.sample(numbers, 30))
        stores = dict(zip(numbers, copies(template, len(numbers)), strict=True))
        stopped = {number: killing.stopped_at_call(number, command, env=environment(path))
                   for number, path in stores.items()}
        try:
            answers = {number: asked(path) for number, path in stores.items()}
            late = {number: held_up(found) for number, found in answers.items()}
        finally:
            for process in stopped.values():
                process.send_signal(signal.SIGCONT)
        for process in stopped.values():
            # Its own 8 seconds are over.
            assert process.communicate(timeout=120)[1].split()[1:3] in (
                [b"accept", b"error"], [b"accept", b"retry"], [b"defer", b"new"], [b"accept", b"known-domain"])
        for path in stores.values():
            all_is_well_with_first(path, sender)
    writer = "stranger" if what == "stranger" else "other"
    # With a write lock it holds up one kind, and with the lock under which a table of readers is made all who open it.
    kinds = Counter(frozenset(names) for names in late.values())
    assert kinds.keys() <= {frozenset(), frozenset({writer}), frozenset({"other", "stranger"}), frozenset(ASKED)}
    # A few of them are not met in a sample.
    assert kinds[frozenset({writer})] or effort.EFFORT == 1 and any(late.values())
    locks = kinds[frozenset(ASKED)]
    effort.tried(f"hook stopped: {what}", points=len(stores), writers_held_up=sum(map(bool, late.values())),
                 known_held_up=locks, hung=0)


def all_is_well_with_first(path, sender):
    """The one that was stopped is asked for once more."""
    for _ in range(2):
        answer = words(started(path, sender))
    assert answer[:2] in (("accept", "known-domain"), ("accept", "retry")), answer
    for _ in range(2):
        words(started(path, "other"))
        words(started(path, "stranger"))
        words(started(path, "waiting"))
    all_is_well(path)


def compaction(path, library, number, log=""):
    """A compaction that stops at that call that changes the store."""
    return subprocess.Popen([sys.executable, "-c", interposer.COMMAND, str(path), str(number), "-1", str(log), "fastgrey",
                             "compact"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            env={"FASTGREY_STORE": str(path), "PATH": os.environ["PATH"], "LD_PRELOAD": str(library)})


def wait_until_stopped(process):
    """Or ended."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        pid, status = os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)
        if pid:
            assert os.WIFSTOPPED(status), status
            return
        time.sleep(0.02)
    raise AssertionError("neither stopped nor ended")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_compaction_stopped_at_each_of_its_calls(template, tmp_path):
    """Known senders pass at every one; who must write is held up only where it has the lock. Then it comes to its end."""
    library, log = interposer.build(tmp_path / "fault.so"), tmp_path / "calls"
    whole = next(copies(template, 1))
    assert compaction(whole, library, 0, log).communicate(timeout=120)[1] == b""
    shutil.rmtree(whole)
    calls = len(log.read_text().splitlines())
    with effort.chance("stopped compaction") as pick:
        # Those in which it has the lock are the last before the link changes.
        swap = next(number for number, line in enumerate(log.read_text().splitlines(), 1) if "current" in line)
        numbers = sorted({swap, *(range(1, calls + 1) if effort.EFFORT > 1 else pick.sample(range(1, calls + 1), 7))})
        stores = dict(zip(numbers, copies(template, len(numbers)), strict=True))
        stopped = {number: compaction(path, library, number) for number, path in stores.items()}
        try:
            for process in stopped.values():
                wait_until_stopped(process)
            answers = {number: asked(path) for number, path in stores.items()}
            late = {number: held_up(found) for number, found in answers.items()}
        finally:
            for process in stopped.values():
                process.send_signal(signal.SIGCONT)
        for process in stopped.values():
            said = process.communicate(timeout=120)[1]
            assert process.returncode == 0, said
        for path in stores.values():
            assert directory.current_number(path) == 2
            for name in ("other", "stranger"):
                words(started(path, name))
            all_is_well(path)
    assert late[swap] == {"other"}
    assert set().union(*late.values()) == {"other"}
    effort.tried("compaction stopped", points=len(stores), promotions_held_up=sum(map(bool, late.values())),
                 known_held_up=0, strangers_held_up=0, hung=0)


@contextlib.contextmanager
def stopped_reader(environment):
    """A process that is stopped while it reads; goes on, and ends, at the end."""
    with subprocess.Popen([sys.executable, "-c", READER, environment], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as reader:
        try:
            assert reader.stdout.readline() == b"\n"
            reader.send_signal(signal.SIGSTOP)
            yield reader
        finally:
            reader.send_signal(signal.SIGCONT)
            reader.communicate(timeout=60)


def test_a_stopped_reader_of_pending(make_store, path, pending_path, run_hook, run_fastgrey):
    """What it sees cannot be used again: pending fills up, strangers are deferred and not recorded, as their lines say;
    nobody is held up for long. doctor names the process. When it has ended, strangers are recorded as before."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", "pending_size=4M")
    for reason in SENDERS["known"]:
        assert run_hook(sender="a@known.example").words[1] == reason
    with stopped_reader(pending_path) as reader:
        with fastgrey.open(path) as store:
            for number in range(12_000):
                verdict = store.check(client="192.0.2.1", sender=f"a@h{number}.example", recipient="b@example.net")
                assert (verdict.action, verdict.reason, verdict.cause) == ("defer", "new", None)
                if store.counters()["events"]["not recorded"]:
                    break
            assert store.counters()["events"]["not recorded"]
        assert (pending_path / "data.mdb").stat().st_size <= 4 << 20
        done = run_hook(sender="a@stranger.example")
        assert done.words == ["defer", "new"]
        assert "pending is full, this triplet was not recorded" in done.line
        assert run_hook(sender="a@known.example").words == ["accept", "known-domain"]
        assert f"kill {reader.pid}" in run_fastgrey("doctor").stdout
    assert run_hook(sender="a@stranger.example").words == ["defer", "new"]
    assert run_hook(sender="a@stranger.example").words == ["accept", "retry"]
    assert run_fastgrey("verify").returncode == 0


def test_a_stopped_reader_of_passed(make_store, path, run_hook, run_fastgrey):
    """Promotions go on and take new pages; a compaction leaves what grew behind, the reader with it."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
    generation = path / "passed.000001"
    run_hook()
    with stopped_reader(generation) as reader:
        before = (generation / "data.mdb").stat().st_size
        with fastgrey.open(path) as store:
            for number in range(150):
                request = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": f"b{number}@example.net"}
                assert [store.check(**request).reason for _ in range(3)] == ["new", "retry", "known-triplet"]
        assert (generation / "data.mdb").stat().st_size > before + (1 << 20)
        assert f"kill {reader.pid}" in run_fastgrey("doctor").stdout
        assert run_fastgrey("compact").returncode == 0
        assert (path / "passed.000002" / "data.mdb").stat().st_size < 1 << 20
        assert run_hook(recipient="b149@example.net").words == ["accept", "known-triplet"]
        assert run_fastgrey("verify").returncode == 0
    with fastgrey.open(path) as store:
        assert store.known()["triplet"] == 150
    assert run_fastgrey("verify").returncode == 0
