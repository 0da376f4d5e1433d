"""Whatever a member of the store's group plants, no command of root's writes to what is outside, nor waits for it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from machine import needs_root
from planted import GROUP, member, place_of, plant, put

from fastgrey import directory, inside

pytestmark = needs_root

COMMANDS = {
    "compact": ["compact", "--verify", "copy"],
    "apply": ["apply"],
    "pass": ["pass", "198.51.100.7", "new@example.com", "b@example.net"],
    "rollback": ["rollback"],
    "backup": ["backup", "{work}/copy"],
    "restore": ["restore", "{work}/saved"],
    "check": ["check", "203.0.113.7", "new@example.com", "b@example.net"],
    "init": ["init", "--set", "delay=2s"],
    "stats": ["stats"],
    "verify": ["verify"],
    "doctor": ["doctor"],
    "forget": ["forget", "192.0.2.9", "a@example.org", "b@example.net"],
    "expect": ["expect", "x@example.net", "--for", "5m"],
    "explain": ["explain", "192.0.2.9", "a@example.org", "b@example.net"],
    "list": ["list", "pending"],
    "show": ["show", "abcdef"],
}
# Names of the store, and the commands that open, make or remove what has the name.
FILES = {
    "stats": ["check", "backup"],
    "compaction.lock": ["compact", "restore"],
    "compaction.status": ["compact"],
    "compaction.status.new": ["compact"],
    "current.new": ["rollback"],
    "hits.1": ["check", "backup"],
    "hits.2": ["apply"],
    "passed.000002/data.mdb": ["pass", "verify", "rollback"],
    "passed.000002/lock.mdb": ["pass", "compact", "backup", "forget", "expect", "show"],
    "passed.000002/manifest": ["verify", "compact"],
    "passed.000002/manifest.new": ["compact"],
    "passed.000001/data.mdb": ["rollback"],
    "PENDING/data.mdb": ["pass", "doctor"],
    "PENDING/lock.mdb": ["pass", "compact", "forget", "explain", "list"],
}
FOLDERS = {
    "passed.000001": ["compact"],
    "passed.000002": ["pass", "rollback", "doctor"],
    "passed.000003": ["compact"],
    "passed.000003.gone": ["rollback"],
    "damaged.000002": ["verify", "compact"],
    "PENDING": ["pass", "verify"],
    "pending.before": ["compact"],
}
# Where opening could wait for a writer.
PIPES = ("stats", "compaction.lock", "compaction.status", "passed.000002/data.mdb", "passed.000002/manifest")
TOLD = {
    ("compaction.lock", "link"): {"compact": ["compaction.lock", "is a symbolic link", "remove it"]},
    ("compaction.lock", "name"): {"compact": ["compaction.lock", "has another name", "remove it"]},
    ("compaction.lock", "pipe"): {"restore": ["compaction.lock", "is no regular file"]},
    ("passed.000002/data.mdb", "link"): {"pass": ["a link stands where", "find "]},
    ("passed.000002/lock.mdb", "name"): {"pass": ["a link stands where", "find "]},
    ("PENDING/lock.mdb", "link"): {"pass": ["a link stands where"]},
    ("PENDING/data.mdb", "link"): {"doctor": ["data.mdb is no regular file"]},
}
CASES = [(name, kind) for name in FILES for kind in ("link", "name", "pipe")
         if (kind != "pipe" or name in PIPES)
         # A page of counters is one by its header, whosever it is: it is counted in, and nothing else.
         and (name, kind) != ("stats", "name")]


@pytest.fixture
def unprotected():
    """The kernel lets everybody give second names to what is not his, as it does where nobody told it not to."""
    setting = Path("/proc/sys/fs/protected_hardlinks")
    before = setting.read_text()
    try:
        setting.write_text("0")
    except OSError as error:
        pytest.skip(f"cannot set fs.protected_hardlinks: {error}")
    yield
    setting.write_text(before)


@pytest.fixture
def run_all(run_fastgrey, shared_template, config):
    """Run commands; each must end with one line or with a finding a line, and leave the victim alone."""
    config('delay = "1s"\nallow_clients = ["203.0.113.0/24", "198.51.100.0/24"]\n')

    def run(commands, victim):
        done = {}
        for name in commands:
            ended = done[name] = run_fastgrey(*(word.format(work=shared_template) for word in COMMANDS[name]))
            assert victim.unchanged(), (name, ended)
            assert "Traceback" not in ended.stderr, ended.stderr
            if ended.returncode and name not in ("doctor", "verify"):
                assert ended.stderr.startswith("fastgrey: ") and ended.stderr.count("\n") == 1, (name, ended)
        return done

    return run


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_file(shared_store, victim, unprotected, run_all, name, kind):
    plant(shared_store, name, kind, victim)
    done = run_all(FILES[name], victim)
    for command, words in TOLD.get((name, kind), {}).items():
        text = done[command].stderr + done[command].stdout
        assert all(word in text for word in words), text


@pytest.mark.parametrize("name", FOLDERS)
def test_folder(shared_store, victim, run_all, name):
    plant(shared_store, name, "folder", victim)
    run_all(FOLDERS[name], victim)


def test_group_of_another_file(shared_store, victim, unprotected, run_fastgrey):
    """A name that goes between opening and looking leaves a file with one name; its group is still not the store's."""
    lock = shared_store / "passed.000002" / "lock.mdb"
    content = lock.read_bytes()
    os.chown(lock, 0, 0)
    done = run_fastgrey(*COMMANDS["pass"])
    assert done.returncode == 1 and "cannot open the store" in done.stderr
    assert lock.read_bytes() == content
    os.chown(lock, 0, GROUP)
    assert run_fastgrey(*COMMANDS["pass"]).returncode == 0


@pytest.mark.parametrize("name", ["passed.000002", "PENDING"])
def test_directory_of_another_group(shared_store, victim, run_fastgrey, name):
    """A member may be in other groups, and give a directory of his to one of those: then its group says nothing of the
    files in it, of which one may be root's, and its second name gone by now."""
    place, other = place_of(shared_store, name), GROUP + 1

    def work():
        os.rename(place, f"{place}.aside")
        os.mkdir(place)
        os.chown(place, -1, other)
        shutil.copy(f"{place}.aside/data.mdb", place)
        os.chown(place / "data.mdb", -1, other)

    child = member(work, other)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lock = place / "lock.mdb"
    # As it would be where the other name of root's own file vanished between opening and looking.
    os.rename(victim.file, lock)
    os.chown(lock, 0, other)
    content = lock.read_bytes()
    for command in ("forget", "pass", "explain"):
        run_fastgrey(*COMMANDS[command])
        assert lock.read_bytes() == content, command
    with pytest.raises(PermissionError, match="another group than the store"):
        inside.read(lock)


@pytest.mark.parametrize("name", ["compaction.lock", "compaction.status", "passed.000002/manifest"])
def test_group_of_what_python_opens(shared_store, run_fastgrey, name):
    """The same for what is not LMDB's."""
    file = shared_store / name
    file.touch()
    os.chown(file, 0, 0)
    with pytest.raises(PermissionError, match="another group than the store"):
        inside.read(file)
    if name == "compaction.lock":
        done = run_fastgrey(*COMMANDS["compact"])
        assert done.returncode == 1 and "has another group than the store" in done.stderr


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_exchanged_while_it_is_removed(shared_store, victim, monkeypatch, kind):
    """What was found to be a directory may be a link or a pipe when it is opened: neither followed nor waited for."""
    place = shared_store / "pending.before.gone"
    (place / "below").mkdir(parents=True)
    unlink = os.unlink

    def exchanging(name, **options):
        try:
            unlink(name, **options)
        except IsADirectoryError:
            put(place / "below", kind, victim)
            raise

    monkeypatch.setattr(os, "unlink", exchanging)
    with pytest.raises(NotADirectoryError, match=re.escape(str(place))):
        directory.remove(place)
    monkeypatch.undo()
    assert victim.unchanged()


@pytest.mark.parametrize(("name", "target", "commands"), [
    # Digits for Python, and no number for it.
    ("hits.\u00b2", "nothing", ["apply", "compact"]),
    # More than a head has room for.
    ("current", f"passed.{1 << 64}", ["rollback", "compact", "stats", "doctor", "restore"]),
    ("current", "passed.000002/../passed.000002", ["rollback", "compact", "stats", "doctor", "restore"]),
    ("current", "/etc", ["rollback", "compact", "stats", "doctor", "restore"]),
])
def test_names_made_up(shared_store, victim, run_all, name, target, commands):
    (shared_store / name).unlink(missing_ok=True)
    (shared_store / name).symlink_to(target)
    (shared_store / f"passed.{1 << 64}").mkdir()
    run_all(commands, victim)


def test_directories_one_in_the_other(shared_store, victim, run_fastgrey):
    """Removal ends with one line, not with a stack overflow."""
    plant(shared_store, "pending.before", "deep", victim)
    try:
        done = run_fastgrey(*COMMANDS["compact"])
    finally:
        # What removes the directories of tests would fail at it, too.
        subprocess.run(["rm", "-rf", shared_store], check=True)
    assert done.returncode == 1 and "nested too deep" in done.stderr and done.stderr.count("\n") == 1, done


@pytest.mark.parametrize("name", ["passed.000002/lock.mdb", "passed.000002/data.mdb", "stats", "hits.1",
                                  "PENDING/lock.mdb", "PENDING/data.mdb"])
def test_hook_is_not_led_elsewhere(shared_store, victim, run_hook, name):
    """The hook's user has files, too; another member of the group must not have the hook write to them."""
    user = 65533
    os.chown(victim.file, user, user)
    victim.look()
    plant(shared_store, name, "link", victim)
    for client in ("203.0.113.7", "198.51.100.9"):
        answer = run_hook(client=client, user=user, group=GROUP, extra_groups=[])
        assert answer.status in (0, 111)
        assert victim.unchanged()
        if name.endswith(".mdb") and (name.startswith("passed") or client == "198.51.100.9"):
            assert answer.words == ["accept", "error"] and "a link stands where" in answer.line
