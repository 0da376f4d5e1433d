"""fastgrey backup and restore: what comes back, and files that are refused."""

import contextlib
import fcntl
import json
import os
import random
import signal
import stat
import subprocess
import time

import lmdb
import pytest

import fastgrey
from conftest import FASTGREY
from fastgrey import backup, directory, policy, windows
from fastgrey.errors import BackupError
from machine import needs_root
from promoting import known, promoting
from terminal import on_terminal


@pytest.fixture
def store(make_store, path):
    """A store with records, rules that have hits, an open window, and counters."""
    make_store("delay=0s", "pool_hops=0")
    with fastgrey.open(path) as opened:
        policy.put(opened, {"deny_senders": ["bulk.example"]}, {"delay": 0, "on_error": 1})
        windows.open_window(opened, "b@example.net", "login.example", "10m")
        opened.check(client="192.0.2.1", sender="a@bulk.example", recipient="b@example.net")
        for number in range(20):
            for _ in range(2):
                opened.check(client=f"10.0.{number}.1", sender=f"a@{number}.example", recipient="b@example.net")
    return path


@pytest.fixture
def file(store, tmp_path):
    """A backup of it."""
    backup.backup(str(store), tmp_path / "backup")
    return tmp_path / "backup"


def said(done, status=1):
    """The one line that went with a failure."""
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.startswith("fastgrey: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def content(store):
    """All of a store that a decision looks at."""
    name = os.readlink(store / "current")
    with fastgrey._core.Generation(str(store / name)) as found:
        head = found.head()
        while found.count(1000, 1 << 39):
            pass
        return (head["settings"], head["secret"], head["made"], head["rules"], found.windows(1 << 39)["checksum"],
                {kind: (table["records"], table["checksum"]) for kind, table in found.tally().items()})


def test_all_of_it_comes_back(store, file, run_fastgrey, tmp_path):
    other = tmp_path / "other"
    done = run_fastgrey("restore", str(file), "--store", str(other))
    assert done.returncode == 0, done.stderr
    assert "passed.000001, from" in done.stdout
    assert "in a new store" in done.stdout
    assert content(other) == content(store)
    with fastgrey.open(other) as opened:
        assert opened.counters()["verdicts"] == {"accept retry": 20, "defer new": 20, "reject denied": 1}
        assert policy.in_force(opened).hits == (1,)
        for sender, reason in (("a@bulk.example", "denied"), ("x@login.example", "expected"),
                               ("a@7.example", "known-domain")):
            assert opened.check(client="10.0.7.1", sender=sender, recipient="b@example.net").reason == reason
    assert stat.S_IMODE(other.stat().st_mode) == 0o2770
    assert run_fastgrey("verify", "--store", str(other)).returncode == 0


def test_without_counters(store, run_fastgrey, tmp_path):
    small, other = tmp_path / "small", tmp_path / "other"
    assert run_fastgrey("backup", str(small), "--no-counters").returncode == 0
    assert run_fastgrey("restore", str(small), "--store", str(other)).returncode == 0
    with fastgrey.open(other) as opened:
        assert opened.counters()["verdicts"] == {}
        assert opened.counters()["defer_on_error"]
        assert policy.in_force(opened).hits == (0,)


def test_the_next_generation_of_a_store(store, file, run_fastgrey):
    wanted = content(store)
    with fastgrey.open(store) as opened:
        policy.put(opened, {}, {"delay": 60})
        fastgrey._core.Records(opened).make_known([("pair", b"k" * 16, 1)], int(time.time()), False)
    dry = run_fastgrey("restore", str(file), "--dry-run")
    assert "would be in force instead of passed.000001" in dry.stdout
    assert directory.generations(store) == [1]
    done = run_fastgrey("restore", str(file))
    assert dry.stdout.splitlines()[1:] == done.stdout.splitlines()[1:-1]
    for part in ("passed.000002, from", "1 known record of passed.000001 is lost: 1 pair", "setting delay: 1m -> 0s",
                 "policy: 0 rules of ", " -> 1 rule of ", "to undo this: fastgrey rollback"):
        assert part in done.stdout, done.stdout
    after = content(store)
    assert after == wanted
    with fastgrey.open(store) as opened:
        assert policy.in_force(opened).number == 3
        assert opened.counters()["defer_on_error"]
    assert run_fastgrey("rollback").returncode == 0
    with fastgrey.open(store) as opened:
        assert opened.known()["pair"] == 1
        assert not opened.counters()["defer_on_error"]
    assert run_fastgrey("verify").returncode == 0


def test_standard_output_and_input(store, run_fastgrey, tmp_path):
    other = tmp_path / "other"
    environment = {"PATH": os.environ["PATH"], "FASTGREY_STORE": str(store)}
    piped = subprocess.run(f"{FASTGREY} backup - | cat | {FASTGREY} restore - --store {other}", shell=True, timeout=120,
                           env=environment, capture_output=True, text=True)
    assert (piped.returncode, piped.stderr) == (0, "")
    assert content(other) == content(store)


def test_not_onto_a_terminal(store, path):
    assert on_terminal(["backup", "-"], path, "stdout", status=1) == ""


def test_the_file_is_a_table_of_lmdb(store, file):
    """For whoever has no fastgrey at hand: LMDB reads the file as it is."""
    with lmdb.open(str(file), subdir=False, readonly=True, lock=False, max_dbs=8) as environment:
        with environment.begin(db=environment.open_db(b"triplet", create=False)) as txn:
            assert txn.stat()["entries"] == 20


def test_a_store_made_of_it_by_hand(file, run_fastgrey, tmp_path):
    """As docs/format.md says."""
    other = tmp_path / "other"
    (other / "passed.000001").mkdir(parents=True)
    (other / "passed.000001" / "data.mdb").write_bytes(file.read_bytes())
    (other / "current").symlink_to("passed.000001")
    assert run_fastgrey("init", "--store", str(other)).returncode == 0
    assert run_fastgrey("verify", "--store", str(other)).stdout.count("hits.1 is missing") == 1
    assert run_fastgrey("check", "10.0.7.1", "a@7.example", "b@example.net", "--store", str(other)).stdout.startswith(
        "accept known-domain")


def test_only_its_owner_reads_it(store, run_fastgrey, tmp_path):
    file = tmp_path / "backup"
    for name in (file, tmp_path / "backup.new"):
        name.write_text("older, the second of them from a backup that was killed")
        name.chmod(0o666)
    assert run_fastgrey("backup", str(file), umask=0).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_json(store, file, run_fastgrey):
    facts = json.loads(run_fastgrey("backup", str(file), "--json").stdout)
    assert facts["records"] == {"client": 20, "domain": 20, "triplet": 20, "pair": 0}
    assert (facts["generation"], facts["size"], facts["windows"]) == (1, file.stat().st_size, 1)
    facts = json.loads(run_fastgrey("restore", str(file), "--json", "--dry-run").stdout)
    assert (facts["generation"], facts["left"], facts["dry_run"], facts["backup"]["windows"]) == (2, 1, True, 1)


def test_dry_run_writes_nothing(store, run_fastgrey, tmp_path):
    assert "would be written" in run_fastgrey("backup", str(tmp_path / "backup"), "--dry-run").stdout
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize(("change", "what"), [
    (lambda data: b"", "no backup of fastgrey, or it was cut short"),
    (lambda data: b"PRE CIOUS" * 1000, "no backup of fastgrey"),
    (lambda data: data[:-1], "no backup of fastgrey, or it was cut short"),
    (lambda data: data[:4096], "no backup of fastgrey, or it was cut short"),
    (lambda data: data[4096:], "another size"),
    (lambda data: data + b"\n", "no backup of fastgrey"),
    (lambda data: data[:5 * 4096] + data[6 * 4096:], "another size"),
    (lambda data: data[:5 * 4096] + bytes(4096) + data[6 * 4096:], "its table is other"),
    (lambda data: data[:-8] + b"\xff" * 8, "damaged at its end"),
    (lambda data: data[-16:], "damaged at its end"),
    (lambda data: data[:-100] + b"0" + data[-99:], "the manifest of"),
])
def test_a_file_that_is_none_is_refused(store, file, run_fastgrey, tmp_path, change, what):
    (store / "compaction.lock").touch()
    before = sorted(entry.name for entry in store.rglob("*"))
    file.write_bytes(change(file.read_bytes()))
    for arguments in (["--dry-run"], []):
        assert what in said(run_fastgrey("restore", str(file), *arguments))
    assert sorted(entry.name for entry in store.rglob("*")) == before
    assert run_fastgrey("verify").returncode == 0
    assert what in said(run_fastgrey("restore", str(file), "--store", str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()


def test_any_byte_that_is_another_is_noticed(store, file, tmp_path):
    pick = random.Random(4)
    data = file.read_bytes()
    places = [*pick.sample(range(len(data)), 30), *range(len(data) - 16, len(data))]
    for place in places:
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << pick.randrange(8)]) + data[place + 1:])
        with pytest.raises(BackupError), file.open("rb") as source:
            backup.restore(str(tmp_path / "other"), source, "it")
    assert not (tmp_path / "other").exists()


def test_no_such_file(store, run_fastgrey, tmp_path):
    assert "No such file" in said(run_fastgrey("restore", str(tmp_path / "nothing")))
    assert "Is a directory" in said(run_fastgrey("restore", str(tmp_path)))
    assert "no regular file" in said(run_fastgrey("backup", str(tmp_path)))
    assert "No such file" in said(run_fastgrey("backup", str(tmp_path / "nowhere" / "backup")))


def test_a_damaged_store_makes_no_backup(store, file, run_fastgrey):
    before = file.read_bytes()
    data = store / "passed.000001" / "data.mdb"
    table = data.read_bytes()
    with lmdb.open(str(store / "passed.000001"), max_dbs=8, readonly=True) as environment:
        with environment.begin(db=environment.open_db(b"triplet")) as txn:
            key = next(iter(txn.cursor()))[0]
    for content in (table.replace(key, b"\xff" + key[1:]), table[:8192] + bytes(len(table) - 8192), b""):
        data.write_bytes(content)
        said(run_fastgrey("backup", str(file)))
        assert file.read_bytes() == before
        assert not file.with_name("backup.new").exists()


def test_a_damaged_store_is_replaced(store, file, run_fastgrey):
    wanted = content(store)
    data = store / "passed.000001" / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192] + bytes(data.stat().st_size - 8192))
    done = run_fastgrey("restore", str(file))
    assert done.returncode == 0, done.stderr
    assert "put aside as damaged.000001" in done.stdout
    assert content(store) == wanted
    directory.remove(store / "damaged.000001")
    assert run_fastgrey("verify").returncode == 0


def test_a_store_that_lost_its_link_is_not_removed(store, file, run_fastgrey):
    (store / "current").unlink()
    assert "ln -s" in said(run_fastgrey("restore", str(file)))
    assert directory.generations(store) == [1]


@needs_root
def test_group(store, file, run_fastgrey, tmp_path):
    other = tmp_path / "other"
    assert "chgrp" in said(run_fastgrey("restore", str(file), "--group", "daemon"))
    assert "groupadd" in said(run_fastgrey("restore", str(file), "--group", "nonsense"), 2)
    assert run_fastgrey("restore", str(file), "--group", "daemon", "--store", str(other)).returncode == 0
    assert {entry.lstat().st_gid for entry in other.rglob("*")} == {1}


def test_one_backup_to_a_file_at_a_time(store, file, run_fastgrey):
    with open(f"{file}.new", "w") as other:
        os.chmod(f"{file}.new", 0o600)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert f"another backup to {file} is running" in said(run_fastgrey("backup", str(file)))
    # What a killed one left is in nobody's way.
    assert run_fastgrey("backup", str(file)).returncode == 0
    assert not os.path.exists(f"{file}.new")


def test_another_one_that_ends_meanwhile(store, file, monkeypatch):
    """What was opened as the new file has become the backup by the time of the lock."""
    before, real = file.read_bytes(), fcntl.flock

    def flock(descriptor, how):
        os.replace(f"{file}.new", file)
        file.write_bytes(before)
        real(descriptor, how)

    monkeypatch.setattr(backup.fcntl, "flock", flock)
    with pytest.raises(BackupError, match="has just ended"):
        backup.backup(str(store), file)
    assert file.read_bytes() == before


def test_the_same_policy_keeps_its_file_of_hits(store, file, run_fastgrey):
    """Hooks have it mapped; one made anew would cut it under them."""
    hits = store / "hits.1"
    before = hits.stat()
    for arguments in (["restore", str(file)], ["rollback"]):
        assert run_fastgrey(*arguments).returncode == 0
        assert (hits.stat().st_ino, hits.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with fastgrey.open(store) as opened:
        assert policy.in_force(opened).hits == (1,)


def test_the_file_is_replaced_whole(store, file, run_fastgrey):
    """Who reads the older one meanwhile goes on reading it."""
    before = file.read_bytes()
    with file.open("rb") as reader:
        for _ in range(2):
            assert run_fastgrey("check", "192.0.2.9", "new@one.example", "b@example.net").returncode == 0
        assert run_fastgrey("backup", str(file)).returncode == 0
        assert reader.read() == before
    assert file.read_bytes() != before


def test_killed_at_any_moment(store, file):
    """The file is the old one or the new one."""
    pick = random.Random(5)
    sizes = {file.stat().st_size}
    command = [FASTGREY, "backup", str(file)]
    environment = {"FASTGREY_STORE": str(store), "PATH": os.environ["PATH"]}
    began = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=True)
    whole = time.monotonic() - began
    for number in range(20):
        with fastgrey.open(store) as opened:
            policy.put(opened, {"deny_senders": [f"{other}.example" for other in range(number * 200)]}, {"delay": 0})
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        # At every fourth it is left to its end: a new file is among them, however busy the machine.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60 if number % 4 == 3 else pick.random() * whole * 1.2)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        sizes.add(file.stat().st_size)
        with file.open("rb") as source:
            restored = backup.restore(str(store), source, "it", dry_run=True)
        assert restored.backup.records["triplet"] == 20
    assert len(sizes) > 2


def test_consistent_while_promotions_go_on(make_store, path, run_fastgrey, tmp_path):
    """Of records promoted one after the other a backup has the first so many, all that came before it began among
    them."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
    with promoting(path) as wait:
        for turn in range(4):
            done = wait()
            file, other = tmp_path / f"backup{turn}", tmp_path / f"other{turn}"
            assert run_fastgrey("backup", str(file)).returncode == 0
            assert run_fastgrey("restore", str(file), "--store", str(other)).returncode == 0
            with fastgrey.open(other) as opened:
                number = opened.known()["triplet"]
                assert number >= done
                assert all(known(opened, one) for one in range(1, number + 1))
                assert not known(opened, number + 1)
