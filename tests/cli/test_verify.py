"""fastgrey verify: stores damaged in every way, the one line that says so, and what comes of following it."""

import json
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
from conftest import BIN, write_lock_held
from fastgrey import compaction, directory, policy, settings, soundness, verification
from terminal import on_terminal

PAGE = 4096


@pytest.fixture
def store(make_store, path):
    """A store after a compaction, with records, rules, and strangers."""
    make_store("delay=0s", "pool_hops=0")
    with fastgrey.open(path) as opened:
        policy.put(opened, {"deny_senders": ["bulk.example"]}, {"delay": 0, "pool_hops": 0})
        for number in range(120):
            for _ in range(2):
                opened.check(client=f"10.{number}.1.1", sender=f"a@{number}.example", recipient="b@example.net")
        opened.check(client="192.0.2.1", sender="new@example.org", recipient="b@example.net")
    compaction.compact(str(path))
    return path


def follow(line):
    """Do what the one line says, as a person would at a shell."""
    command = line.partition("; run: ")[2].rpartition(" (")[0] or line.partition("; run: ")[2]
    assert command, line
    subprocess.run(["sh", "-c", command], check=True, timeout=120, stdout=subprocess.DEVNULL,
                   env={"PATH": f"{BIN}:{os.environ['PATH']}"})


def whole(done):
    """That the store is whole, in one line."""
    assert (done.returncode, done.stderr) == (0, ""), done
    assert " is whole: " in done.stdout
    assert done.stdout.count("\n") == 1


def said(done, status):
    """The one line about what is wrong."""
    assert (done.returncode, done.stderr) == (status, ""), done
    assert done.stdout.count("\n") == 1
    return done.stdout.strip()


def test_a_whole_store(store, run_fastgrey, path):
    done = run_fastgrey("verify")
    whole(done)
    assert done.stdout == (f"{path} is whole: passed.000002 is in force: 360 known records, 0 windows, policy 1 with 1 "
                           "rules\n")
    answer = json.loads(run_fastgrey("verify", "--json").stdout)
    assert (answer["status"], {finding["level"] for finding in answer["findings"]}) == (0, {"good"})
    assert len(answer["findings"]) == 4


def test_verifying_changes_nothing(store, run_fastgrey):
    def facts():
        return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(store.rglob("*"))
                if file.is_file() and file.name != "lock.mdb"}

    before = facts()
    whole(run_fastgrey("verify"))
    assert facts() == before


def test_no_store(run_fastgrey, path):
    assert "fastgrey init" in said(run_fastgrey("verify"), 2)


def write(name, change):
    """Change the bytes of a file."""

    def harm(store):
        data = bytearray((store / name).read_bytes())
        (store / name).write_bytes(change(data) or data)

    return harm


def blank(first, number=1):
    """Zero pages."""

    def change(data):
        data[first * PAGE:(first + number) * PAGE] = bytes(number * PAGE)

    return change


def noise(data):
    data[2 * PAGE:] = bytes((place * 7919 + 13) % 251 for place in range(len(data) - 2 * PAGE))


def cut(name, size):
    return lambda store: os.truncate(store / name, size)


def link(target):
    def harm(store):
        (store / "current").unlink()
        (store / "current").symlink_to(target)

    return harm


def gone(name):
    return lambda store: directory.remove(store / name)


N, BEFORE = "passed.000002/data.mdb", "passed.000001/data.mdb"
BOOT = f"pending.{directory.boot_id()}/data.mdb"


@pytest.mark.parametrize(("harm", "status", "what"), [
    (write(N, blank(2)), 2, "passed.000002, which is in force, is damaged"),
    (write(N, blank(0, 2)), 2, "no table of LMDB"),
    (write(N, lambda data: bytes(len(data))), 2, "no table of LMDB"),
    (write(N, noise), 2, "passed.000002"),
    (cut(N, 0), 2, "cut short"),
    (cut(N, 1000), 2, "cut short"),
    (cut(N, 5 * PAGE), 2, "cut short"),
    (gone(N), 2, "there is no"),
    (gone("passed.000002"), 2, "no directory"),
    (lambda store: shutil.copy(store / BEFORE, store / N), 2, "marked as superseded|says that it is number 1"),
    (lambda store: heads.overwrite(store / "passed.000002", 0, b"nonsense"), 2, "not a fastgrey store"),
    (lambda store: heads.overwrite(store / "passed.000002", 16, struct.pack("=Q", 9)), 2, "it is number 9"),
    (lambda store: heads.overwrite(store / "passed.000002", 24, struct.pack("=Q", 3)), 2, "superseded by"),
    (lambda store: heads.overwrite(store / "passed.000002", 48, struct.pack("=Q", 3)), 2, "the head says 3"),
    (write(BEFORE, noise), 1, "passed.000001, which is kept to go back to, is damaged"),
    (cut(BEFORE, 1000), 1, "kept to go back to, is damaged"),
    (lambda store: heads.overwrite(store / "passed.000001", 16, struct.pack("=Q", 9)), 1, "it is number 9"),
    (write(BOOT, blank(0)), 2, "no table of LMDB"),
    (write(BOOT, noise), 2, "pending"),
    (cut(BOOT, 100), 2, "cut short"),
    (gone("stats"), 2, "page of counters"),
    (cut("stats", 100), 2, "page of counters"),
    (write("stats", lambda data: bytes(PAGE)), 2, "page of counters"),
    (write("stats", lambda data: data.__setitem__(12, 1)), 2, "another on_error"),
    (gone("hits.1"), 1, "hits.1 is missing"),
    (lambda store: (store / "passed.000009").mkdir(), 1, "passed.000009 is left over"),
    (lambda store: (store / "pending.of-another-boot").mkdir(), 1, "left over"),
    (lambda store: (store / "damaged.000001").mkdir(), 1, "put aside"),
    (lambda store: (store / "current.new").symlink_to("passed.000009"), 1, "current.new is left over"),
    (lambda store: (store / "passed.000002" / "manifest").write_text("nonsense"), 1, "manifest"),
])
def test_damage(store, run_fastgrey, harm, status, what):
    harm(store)
    line = said(run_fastgrey("verify"), status)
    assert re.search(what, line), line
    for _ in range(3):
        # One thing may hide another: what was put aside is told when the rest is whole.
        follow(line)
        done = run_fastgrey("verify")
        if done.returncode == 0:
            break
        line = done.stdout.strip()
    whole(done)
    with fastgrey.open(store) as opened:
        assert opened.check(client="10.1.1.1", sender="a@1.example", recipient="b@example.net").reason == "known-domain"


@pytest.mark.parametrize(("harm", "what"), [
    (link("passed.000007"), "passed.000007, which is no directory"),
    (link("nonsense"), "nonsense"),
    (gone("current"), "link it to the one that was in force"),
])
def test_a_wrong_link(store, run_fastgrey, harm, what):
    harm(store)
    assert what in said(run_fastgrey("verify"), 2)


def test_damage_without_a_way_back_points_to_a_backup(store, run_fastgrey):
    write(N, blank(2))(store)
    directory.remove(store / "passed.000001")
    assert "fastgrey restore FILE" in said(run_fastgrey("verify"), 2)


def test_a_way_back_that_is_damaged_is_not_offered(store, run_fastgrey):
    write(N, blank(2))(store)
    write(BEFORE, noise)(store)
    line = said(run_fastgrey("verify"), 2)
    assert "passed.000002, which is in force" in line
    assert "rollback" not in line
    assert "(1 finding more: fastgrey verify --json)" in line


def test_every_page_blanked_ends_with_a_line(store, run_fastgrey):
    """Whatever page it is: found, or one that nothing reads."""
    data = (store / N).read_bytes()
    found = 0
    for page in range(len(data) // PAGE):
        write(N, blank(page))(store)
        done = run_fastgrey("verify")
        assert (done.stderr, done.stdout.count("\n")) == ("", 1)
        found += done.returncode != 0
        (store / N).write_bytes(data)
    assert found >= 6
    whole(run_fastgrey("verify"))


def test_while_hooks_promote_and_compactions_run(store, run_fastgrey):
    script = ("import fastgrey, itertools, sys\nfrom fastgrey import compaction\ns = fastgrey.open(sys.argv[1])\n"
              "for n in itertools.count():\n"
              "    for _ in range(2):\n"
              "        s.check(client=f'172.16.{n >> 8 & 255}.{n & 255}', sender=f'a@{n}.example', recipient='b@c.d')\n"
              "    if n % 100 == 99: compaction.compact(sys.argv[1]); print(n, flush=True)")
    with subprocess.Popen([sys.executable, "-c", script, str(store)], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout.readline() == b"99\n"
            for _ in range(10):
                whole(run_fastgrey("verify"))
        finally:
            writer.kill()


def test_strangers_of_a_flood(store, run_fastgrey, pending_path, monkeypatch):
    """In several parts of one span; and so many that the look at them ends early, and keeps none of their pages."""
    with fastgrey.open(store) as opened:
        opened.configure(list((settings.by_name(opened.head()["settings"]) | {"pending_size": 4 << 20}).values()))
        for number in range(60_000):
            verdict = opened.check(client="192.0.2.1", sender=f"a@h{number}.example", recipient="b@example.net")
            assert verdict.reason == "new"
            if number % 1000 == 0 and any(partition["part"] for partition in opened.partitions()):
                break
        assert any(partition["part"] for partition in opened.partitions())
    found = json.loads(run_fastgrey("verify", "--json").stdout)
    assert [finding["what"] for finding in found["findings"] if finding["what"].startswith(pending_path.name)] == [
        f"{pending_path.name} holds what strangers left"]
    monkeypatch.setattr(verification, "PENDING_SECONDS", 0)
    monkeypatch.setattr(soundness, "PAUSE", 0.001)
    report = verification.verify(str(store))
    assert report.status == 0
    assert [finding for finding in report.findings if "nothing wrong in what could be looked at" in finding.what]
    with lmdb.open(str(pending_path), readonly=True) as table:
        assert "no active readers" in table.readers()


def test_a_held_write_lock_does_not_matter(store, run_fastgrey):
    with write_lock_held(store / "passed.000002"), write_lock_held(store / f"pending.{directory.boot_id()}"):
        whole(run_fastgrey("verify"))


def test_progress_on_a_terminal(store, path):
    assert "contents" in on_terminal(["verify"], path)
