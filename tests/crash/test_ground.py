"""What a check works with is taken away, or something else put in its place.

In every cell below: an exit status and no death by a signal, one line, and no wait past the eight seconds of the
executable's own alarm. *true* is the verdict as if nothing were wrong, *fault* an error with the verdict of on_error (of
the default where the page of counters is gone too).

| damaged | known, denied | stranger, waiting | fastgrey.open, compact | next check on its own | remedy of doctor |
| --- | --- | --- | --- | --- | --- |
| the store itself | fault, as `accept` | the same | refused | no | init, or another --store |
| `current` | fault | fault | refused | no | put the link back |
| `passed.N`, its `data.mdb` | fault; a pipe takes the eight seconds | the same | refused | no | restore from a backup |
| its `lock.mdb`: missing, empty, link | true | true | work | yes, made anew | `fastgrey stats` |
| its `lock.mdb`: anything else | fault | fault | refused | no | remove it |
| `stats`, `hits.N`, `compaction.*`, `manifest` | true | true | work | yes | `fastgrey init`, or none needed |
| `pending.BOOT`: missing, empty `data.mdb` | true | as one never seen | work | yes, made anew | none needed |
| `pending.BOOT`: anything else | true | fault | work but for strangers | no | remove it |
| the store of another version | fault | fault | refused | no | the fastgrey that made it |
| a full disk | true, no refresh | true while the files have free pages, else fault | refused | yes | make room |
| a disk for reading only | true, no refresh | fault | opens; compaction refused | yes | mount it for writing |
"""

import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import effort
import fastgrey
import ground
import heads
from fastgrey import backup, compaction, directory, health, policy
from fastgrey.errors import FastgreyError
from machine import fill_up, needs_root, small_disk

ELSEWHERE = b"of somebody else " * 1000


def bind(path):
    with socket.socket(socket.AF_UNIX) as one:
        # The name of a socket may be no longer than a hundred bytes.
        here = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def to_elsewhere(path):
    other = path.parent / "elsewhere"
    other.write_bytes(ELSEWHERE)
    path.symlink_to(other)


KINDS = {
    "missing": lambda path: None,
    "empty": Path.touch,
    "directory": Path.mkdir,
    "pipe": os.mkfifo,
    "socket": bind,
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to elsewhere": to_elsewhere,
    "null": lambda path: os.mknod(path, 0o660 | stat.S_IFCHR, os.makedev(1, 3)),
    "zero": lambda path: os.mknod(path, 0o660 | stat.S_IFCHR, os.makedev(1, 5)),
    "full": lambda path: os.mknod(path, 0o660 | stat.S_IFCHR, os.makedev(1, 7)),
}
MADE_ANEW = ("missing", "empty")
PLACES = ["", "current", "passed.000001", "passed.000001/data.mdb", "passed.000001/lock.mdb", "passed.000001/manifest",
          "stats", "hits.1", "compaction.lock", "compaction.status", "PENDING", "PENDING/data.mdb", "PENDING/lock.mdb"]

# Who opens it for reading waits for a writer: the one case that takes the eight seconds.
SLOW = ("passed.000001/data.mdb", "pipe")


@pytest.fixture(params=["accept", "defer"])
def on_error(request):
    return request.param


@pytest.fixture
def store(in_memory, on_error):
    return ground.make(in_memory / "store", on_error, records=8)


@pytest.fixture
def deferring(in_memory):
    return ground.make(in_memory / "store", records=8)


def at(store, name):
    return store / name.replace("PENDING", f"pending.{directory.boot_id()}") if name else store


def put(store, name, kind):
    """Something else in place of a file; skips where only root may make it."""
    path = at(store, name)
    if os.path.lexists(path):
        directory.remove(path)
    try:
        KINDS[kind](path)
    except PermissionError:
        pytest.skip("only root may make a device")


def expected(name, kind):
    """Whether a check of what is known, and one of a stranger, is a fault."""
    if name in ("", "current", "passed.000001", "passed.000001/data.mdb"):
        return True, True
    if name.endswith("lock.mdb"):
        fault = kind not in MADE_ANEW
        return fault and "passed" in name, fault
    if name.startswith("PENDING"):
        lost = ("missing", "directory") if name == "PENDING" else ("missing", "empty")
        return False, kind not in lost
    return False, False


def ask_all(store):
    """The answers of all SENDERS at once: some of them may wait for eight seconds."""
    running = {who: ground.start(store, who) for who in ground.TRUE}
    return {who: ground.judged(ground.end(process), who) for who, process in running.items()}


@pytest.mark.parametrize("name", PLACES)
def test_another_thing_in_its_place(store, on_error, name):
    """Every kind, one after the other; put right, the same store serves on."""
    template = ground.copy(store, store.parent / "template")
    for kind in KINDS:
        if (name, kind, on_error) == (SLOW[0], SLOW[1], "accept"):
            continue
        put(store, name, kind)
        known, waiting = expected(name, kind)
        for who, answer in ask_all(store).items():
            fault = waiting if who in ground.WAIT else known
            on = on_error if name else "accept"
            assert ground.is_fault(answer, on) == fault, (kind, who, answer)
            if not fault and who not in ground.WAIT:
                assert answer.verdict == ground.TRUE[who], (kind, who, answer)
            if fault:
                assert str(store) in answer.line
                slow = "no answer from the store in time" in answer.line
                assert slow == ((name, kind) == SLOW), answer
        if os.path.lexists(store):
            directory.remove(store)
        store = ground.copy(template, store)
    ground.goes_on(store)


WITH_THE_API = """
import sys, fastgrey
from fastgrey import compaction
from fastgrey.errors import FastgreyError
for work in (lambda: fastgrey.open(sys.argv[1]).check(client="10.0.7.1", sender="a@x.example",
                                                      recipient="bh7@example.net"),
             lambda: compaction.compact(sys.argv[1])):
    try:
        found = work()
        print("done", getattr(found, "reason", ""))
    except FastgreyError as error:
        print("refused", error)
"""


@pytest.mark.torture
@pytest.mark.parametrize("name", PLACES)
def test_what_the_api_and_compaction_say(deferring, name):
    """One line for each, and no waiting: a pipe in place of a file would keep whoever opens it for ever."""
    store = deferring
    template = ground.copy(store, store.parent / "template")
    for kind in ("pipe", "missing", "directory")[:effort.EFFORT]:
        put(store, name, kind)
        before = sorted(ground.at_rest(store))
        done = subprocess.run([sys.executable, "-c", WITH_THE_API, store], capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        opened, compacted = done.stdout.splitlines()
        fault = expected(name, kind)[0]
        assert opened.startswith("refused" if fault else "done known-domain"), (kind, done.stdout)
        assert compacted.startswith("refused") or not fault, (kind, done.stdout)
        if fault:
            # Nothing was made, and nothing lost.
            left = sorted(ground.at_rest(store))
            assert [entry for entry in left if not entry.startswith("compaction.")] == [
                entry for entry in before if not entry.startswith("compaction.")], kind
        if os.path.lexists(store):
            directory.remove(store)
        store = ground.copy(template, store)
    ground.goes_on(store)


@pytest.mark.parametrize(("name", "kind"), [
    ("current", "missing"), ("passed.000001/lock.mdb", "missing"), ("passed.000001/lock.mdb", "pipe"),
    ("stats", "directory"), ("stats", "pipe"), ("PENDING", "link to itself"), ("PENDING/data.mdb", "pipe"),
    ("PENDING/lock.mdb", "socket"),
])
def test_what_doctor_says_helps(deferring, name, kind):
    """Its remedies, done literally, one after the other until it has none."""
    put(deferring, name, kind)
    for _ in range(3):
        findings = [finding for finding in health.examine(str(deferring)) if finding.remedy.startswith("run: ")
                    and str(deferring) in finding.remedy]
        if not findings:
            break
        ground.follow(findings[0].remedy)
    assert not [finding for finding in health.examine(str(deferring)) if finding.level == "wrong"]
    ground.goes_on(deferring, forgotten=name.startswith("PENDING"))


def first_wrong(store):
    """The first thing that doctor finds wrong."""
    return next(finding for finding in health.examine(str(store)) if finding.level == "wrong")


@pytest.mark.parametrize(("name", "kind"), [
    ("passed.000001/data.mdb", "pipe"), ("passed.000001/data.mdb", "directory"), ("passed.000001", "link to itself"),
    ("current", "pipe"), ("current", "link to itself"),
])
def test_restore_helps(deferring, name, kind):
    """Where records are gone, doctor names a backup; where the link is something else, moving it away."""
    file = deferring.parent / "backup"
    backup.backup(str(deferring), file)
    put(deferring, name, kind)
    if name == "current":
        assert "move it away" in first_wrong(deferring).remedy
        (deferring / "current").rename(deferring.parent / "away")
        ground.follow(first_wrong(deferring).remedy)
    else:
        assert "fastgrey restore FILE" in first_wrong(deferring).remedy
        ground.follow(f"fastgrey restore {file} --store {deferring}")
    ground.goes_on(deferring)


@pytest.mark.parametrize("target", [
    "", "passed.", "passed.1", "passed.00001", "passed.0000001", "passed.000001x", "passed.000001/", "passed.-00001",
    "./passed.000001", "PASSED.000001", "passed.\x1b[2J", "passed.\n", "passed." + "0" * 24, "passed." + "9" * 25,
    "x" * 4000, "pending.000001", "/", "..", "passed.000001.gone", "stats", "compaction.lock",
])
def test_current_that_names_nonsense(deferring, target):
    """Never another directory, and nothing in the line that a terminal would obey."""
    (deferring / "current").unlink()
    try:
        (deferring / "current").symlink_to(target)
    except OSError:
        assert target == ""
        (deferring / "current").touch()
    for who in ("known", "stranger", "denied"):
        answer = ground.ask(deferring, who)
        assert ground.is_fault(answer), answer
        assert answer.line[:-1].isprintable()
    with pytest.raises(fastgrey.StoreError):
        fastgrey.open(deferring)
    assert first_wrong(deferring).remedy
    (deferring / "current").unlink()
    (deferring / "current").symlink_to("passed.000001")
    ground.goes_on(deferring)


@pytest.mark.parametrize("version", [2, 4])
def test_store_of_another_version(store, on_error, version):
    heads.overwrite(store / "passed.000001", 8, struct.pack("=I", version))
    for who in ground.TRUE:
        answer = ground.ask(store, who)
        assert ground.is_fault(answer, on_error)
        assert "another format version" in answer.line
    before = sorted(ground.at_rest(store))
    with pytest.raises(FastgreyError, match="another format version"):
        compaction.compact(str(store))
    assert [entry for entry in sorted(ground.at_rest(store)) if not entry.startswith("compaction")] == [
        entry for entry in before if not entry.startswith("compaction")]
    assert any("another format version" in finding.what and "use the fastgrey that made it" in finding.remedy
               for finding in health.examine(str(store)))
    heads.overwrite(store / "passed.000001", 8, struct.pack("=I", 3))
    ground.goes_on(store)


@needs_root
def test_disk_for_reading_only(tmp_path, on_error):
    """Who is known passes; nothing that has to be written is."""
    with small_disk(tmp_path / "disk", "8M") as disk:
        store = ground.make(disk / "store", on_error, records=8)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        try:
            for who in ground.TRUE:
                answer = ground.ask(store, who)
                if who in ground.WAIT:
                    assert ground.is_fault(answer, on_error), answer
                    assert "Read-only file system" in answer.line
                else:
                    assert answer.verdict == ground.TRUE[who], answer
                    assert ("last-seen time not written: Read-only" in answer.line) == (who == "due"), answer
            with pytest.raises(FastgreyError, match="Read-only file system"):
                compaction.compact(str(store))
            (remedy,) = [finding.remedy for finding in health.examine(str(store)) if "reading only" in finding.what]
            ground.follow(remedy)
            ground.goes_on(store)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@needs_root
@pytest.mark.parametrize("left", [0, 1, 2, 3, 5, 8, 13, 21])
def test_disk_with_so_many_pages_left(tmp_path, left):
    """Whatever of a check's writes is the first that does not fit."""
    with small_disk(tmp_path / "disk", "2M") as disk:
        store = ground.make(disk / "store", records=8)
        fill_up(disk / "filler")
        size = (disk / "filler").stat().st_size
        os.truncate(disk / "filler", max(0, size - left * 4096))
        told = {}
        for number in range(6):
            for who in ("known", "due", "denied", "allowed"):
                assert ground.ask(store, who).verdict == ground.TRUE[who], (number, who)
            told["waiting"] = ground.ask(store, "waiting")
            if told["waiting"].verdict != "accept known-domain":
                assert told["waiting"].verdict == "accept retry" or ground.is_fault(told["waiting"]), told
            stranger = ground.end(ground.start(store, "stranger", env={"TCPREMOTEIP": f"198.51.{number}.1"}))
            assert stranger.verdict == "defer new" or ground.is_fault(stranger), stranger
            if stranger.verdict.endswith("error"):
                # LMDB takes a write that was cut short for an error of the disk.
                assert "No space left" in stranger.line or "Input/output error" in stranger.line
                assert "check free space" in stranger.line
        (disk / "filler").unlink()
        ground.goes_on(store)


def remove_all(store):
    """Also what checks make in it meanwhile: one that has found the store makes locks that are missing."""
    for _ in range(1000):
        shutil.rmtree(store, ignore_errors=True)
        if not store.exists():
            return
    raise AssertionError(ground.at_rest(store))


def test_removed_and_made_again_while_checks_run(in_memory):
    """Each answers: truly, as on_error says, or by the default where there is no store; then all is well."""
    store = in_memory / "store"
    spare = in_memory / "spare"
    ground.make(store, records=1)
    stop = threading.Event()
    found = []

    def checks():
        while not stop.is_set():
            found.append([ground.ask(store, who) for who in ("stranger", "known", "denied")])

    threads = [threading.Thread(target=checks) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(12):
            ground.make(spare, records=1)
            if number % 2:
                remove_all(store)
            else:
                store.rename(in_memory / f"gone{number}")
            seen = len(found)
            while len(found) < seen + 3 and any(thread.is_alive() for thread in threads):
                time.sleep(0.01)
            if number % 3:
                spare.rename(store)
            else:
                shutil.rmtree(spare)
                ground.make(store, records=1)
            seen = len(found)
            while len(found) < seen + 3 and any(thread.is_alive() for thread in threads):
                time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert len(found) > 60
    verdicts = {answer.verdict for answers in found for answer in answers}
    assert {"accept error", "reject denied"} <= verdicts
    assert verdicts <= {"accept error", "defer error", "defer new", "accept retry", "accept known-domain",
                        "reject denied"}, verdicts
    ground.goes_on(store, forgotten=True)


def test_files_that_grow_into_the_place_of_others(deferring):
    """One of them copied over another one of the same store, and files of another store."""
    other = ground.make(deferring.parent / "other", records=30)
    template = ground.copy(deferring, deferring.parent / "template")
    theirs, ours = ground.parts(other), ground.parts(deferring)
    pairs = [(ours[name], path) for name, path in theirs.items()]
    pairs += [(ours["passed"], ours["pending"]), (ours["pending"], ours["passed"]),
              (ours["passed"], ours["passed lock"]), (ours["passed lock"], ours["passed"]),
              (ours["pending lock"], ours["pending"])]
    for target, source in pairs:
        shutil.copyfile(source, target)
        for answer in ask_all(deferring).values():
            if answer.verdict.endswith(" error"):
                assert ground.is_fault(answer)
        ground.copy(template, deferring)
    ground.goes_on(deferring)


def test_a_counting_file_that_is_cut(deferring):
    """The page of counters and that of hits are mapped: beyond their end there is SIGBUS, and still a verdict."""
    for name in ("stats", "hits.1"):
        content = (deferring / name).read_bytes()
        for size in (0, 1, 15, 16, 17, 100, len(content) - 1):
            os.truncate(deferring / name, size)
            for who in ("known", "denied"):
                answer = ground.ask(deferring, who)
                assert answer.verdict == ground.TRUE[who], (name, size, answer)
        (deferring / name).write_bytes(content)
    assert policy.HIT.size * 3 == (deferring / "hits.1").stat().st_size
    ground.goes_on(deferring)
