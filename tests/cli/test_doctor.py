"""fastgrey doctor: each finding in a store that really is broken that way, and remedies that really mend it."""

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

import aging
import fastgrey
import heads
from conftest import BIN, FASTGREY, HOOK, write_lock_held
from fastgrey import compaction, directory, health, hooks
from fastgrey.health import isolation, programs
from machine import NOBODY, fill_up, needs_root, open_the_way, small_disk, tool
from terminal import on_terminal

GROUP = 12_345


@pytest.fixture
def doctor(run_fastgrey):
    """Run the real command; gives its exit status and findings, which JSON and exit status have to agree on."""

    def run(*arguments, **options):
        return read(run_fastgrey("doctor", "--json", *arguments, **options))

    return run


def read(done):
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    findings = [SimpleNamespace(**finding) for finding in answer["findings"]]
    levels = {finding.level for finding in findings}
    assert answer["status"] == done.returncode == (2 if "wrong" in levels else 1 if "doubt" in levels else 0)
    for finding in findings:
        assert finding.level in ("good", "doubt", "wrong")
        assert bool(finding.remedy) == (finding.level != "good"), finding
        assert "\n" not in finding.what + finding.remedy
    return SimpleNamespace(status=done.returncode, findings=findings)


def the(examined, level, *parts):
    """The one finding of that level with all parts in it."""
    found = [finding for finding in examined.findings
             if finding.level == level and all(part in f"{finding.what}; {finding.remedy}" for part in parts)]
    assert len(found) == 1, examined.findings
    return found[0]


def follow(finding, **options):
    """Do what the remedy says, as a person would at a shell."""
    assert finding.remedy.startswith("run: "), finding
    subprocess.run(["sh", "-c", finding.remedy.removeprefix("run: ")], check=True, timeout=60,
                   env={"PATH": f"{BIN}:{os.environ['PATH']}"}, stdout=subprocess.DEVNULL, **options)


def test_nothing_wrong_with_a_new_store(run_fastgrey, make_store, doctor, run_hook):
    make_store("pending_size=16M")
    assert doctor().status == 0
    run_hook()
    examined = doctor()
    assert examined.status == 0
    for part in ("in this program", f"in {HOOK}", "qmail-checkenv: version", "/proc", "clock", "2770", "free on",
                 "format 3", "2 records pending"):
        assert any(part in finding.what for finding in examined.findings)
    text = run_fastgrey("doctor").stdout
    assert text.splitlines()[0] == f"good    {examined.findings[0].what}"
    assert text.count("\n") == len(examined.findings)


def test_exit_statuses_are_in_the_help(run_fastgrey):
    text = run_fastgrey("doctor", "--help").stdout
    assert "0 all is good, 1 something is in doubt, 2" in " ".join(text.split())
    assert "Example: fastgrey doctor --user" in text


def test_colours_on_a_terminal_only(make_store, run_fastgrey, path):
    make_store("retry_window=1m")
    assert "\x1b" not in run_fastgrey("doctor").stdout
    text = on_terminal(["doctor"], path, "stdout", status=1)
    assert "\x1b[32mgood" in text
    assert "\x1b[33mdoubt" in text


def test_names_of_others_cannot_reach_the_terminal(run_fastgrey, tmp_path):
    """Neither as control characters nor as bytes that are no text."""
    done = run_fastgrey("doctor", "--store", os.fsdecode(bytes(tmp_path) + b"/\x1b[2J\n\xff"))
    assert done.returncode == 2
    assert done.stderr == ""
    assert all(line.isprintable() and line[:5] in ("good ", "doubt", "wrong") for line in done.stdout.splitlines())
    assert run_fastgrey("doctor", "--json", "--store", os.fsdecode(bytes(tmp_path) + b"/\xff")).returncode == 2


# Structure: what is missing, or something else than it should be.

def unlink(*names):
    return lambda store: [directory.remove(store / name) for name in names]


def replaced(name, make):
    def harm(store):
        directory.remove(store / name)
        make(store / name)

    return harm


@pytest.mark.parametrize(("harm", "level", "parts"), [
    (unlink(""), "wrong", ["there is no directory", "fastgrey init"]),
    (unlink("current"), "wrong", ["current", "ln -s passed.000001"]),
    (unlink("current", "passed.000001"), "wrong", ["current", "fastgrey init"]),
    (unlink("stats"), "wrong", ["page of counters", "fastgrey init"]),
    (lambda store: (store / "stats").write_bytes(b"x"), "wrong", ["page of counters", "fastgrey init"]),
    (replaced("stats", Path.mkdir), "wrong", ["page of counters", "rm -r"]),
    (replaced("stats", os.mkfifo), "wrong", ["page of counters", "fastgrey init"]),
    (unlink("passed.000001/lock.mdb"), "doubt", ["lock.mdb", "fastgrey stats"]),
    (lambda store: store.chmod(0o755), "wrong", ["mode 755", "chmod 2770"]),
    (lambda store: store.chmod(0o770), "wrong", ["mode 770", "chmod 2770"]),
    (lambda store: store.chmod(0o2775), "doubt", ["mode 2775", "who wrote to whom"]),
    (lambda store: (store / "stats").chmod(0o600), "wrong", ["the group may not read and write", "chmod g+rw"]),
    (lambda store: (store / "passed.000001").chmod(0o700), "wrong", ["passed.000001", "chmod g+rwx"]),
])
def test_remedy_mends(doctor, make_store, run_hook, harm, level, parts):
    harm(make_store("pending_size=16M"))
    examined = doctor()
    assert examined.status == {"doubt": 1, "wrong": 2}[level]
    follow(the(examined, level, *parts))
    assert doctor().status == 0
    assert run_hook().words == ["defer", "new"]


def test_remedy_for_a_lost_link_loses_nothing(doctor, make_store, run_hook, path):
    make_store("pending_size=16M", "delay=0s")
    for _ in range(2):
        run_hook()
    (path / "current").unlink()
    follow(the(doctor(), "wrong", "ln -s"))
    assert run_hook().words == ["accept", "known-domain"]


def test_lost_link_with_a_choice_of_generations(doctor, make_store, run_fastgrey, path):
    """Which of them was in force cannot be told, and init would remove both."""
    make_store()
    run_fastgrey("compact")
    (path / "current").unlink()
    finding = the(doctor(), "wrong", "current", "passed.000001 or passed.000002")
    assert "init would remove" in finding.remedy


@pytest.mark.parametrize("target", ["nowhere", "passed.000009", "../../etc", "passed.000001/../x", "/etc", "."])
def test_current_points_astray(doctor, make_store, target):
    store = make_store()
    (store / "current").unlink()
    (store / "current").symlink_to(target)
    finding = the(doctor(), "wrong", target)
    assert "backup" in finding.remedy or "passed.000001" in finding.remedy


def test_remedy_for_another_on_error(doctor, make_store, run_hook, path):
    make_store("pending_size=16M", "on_error=defer")
    with (path / "stats").open("r+b") as file:
        file.seek(12)
        file.write(struct.pack("=I", 0))
    follow(the(doctor(), "wrong", "another on_error", "on_error=defer"))
    assert doctor().status == 0
    (path / "current").unlink()
    assert run_hook().words == ["defer", "error"]


@pytest.mark.parametrize("harm", [
    lambda pending: os.truncate(pending / "data.mdb", 0),
    lambda pending: os.truncate(pending / "data.mdb", 8192),
    lambda pending: os.truncate(pending / "data.mdb", 9000),
    lambda pending: (pending / "data.mdb").write_bytes(bytes((pending / "data.mdb").stat().st_size)),
    lambda pending: (pending / "data.mdb").write_bytes((pending / "data.mdb").read_bytes()[:8192] + bytes(8192)),
    lambda pending: replaced("data.mdb", os.mkfifo)(pending),
    lambda pending: replaced(pending.name, Path.touch)(pending.parent),
    lambda pending: replaced(pending.name, lambda path: path.symlink_to(path))(pending.parent),
])
def test_damaged_pending(doctor, make_store, run_hook, path, pending_path, harm):
    """What was earned is not touched by it, and the remedy costs strangers one more wait."""
    make_store("pending_size=16M", "delay=0s")
    for _ in range(2):
        run_hook()
    run_hook(client="198.51.100.7")
    harm(pending_path)
    examined = doctor()
    assert examined.status == 2
    assert any("1 known records" in finding.what or "3 known records" in finding.what for finding in examined.findings)
    follow(next(finding for finding in examined.findings if finding.level == "wrong"))
    assert doctor().status == 0
    assert run_hook().words == ["accept", "known-domain"]
    assert run_hook(client="203.0.113.7").words == ["defer", "new"]


@pytest.mark.parametrize(("size", "what"), [
    *((size, f"data.mdb is cut short: it has {size} ") for size in (0, 1, 100, 4096, 8192)),
    # So few pages are missing that they may be ones never written: only reading the table tells.
    (12_288, "passed is damaged: reading it ended by SIGBUS"),
])
def test_table_cut_short(doctor, make_store, path, size, what):
    make_store()
    os.truncate(path / "passed.000001" / "data.mdb", size)
    assert "backup" in the(doctor(), "wrong", what).remedy


def many(path):
    """So many records that most pages are leaves, beyond the few that open the table."""
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        for now in (int(time.time()) - 1, int(time.time())):
            for number in range(3000):
                store.check(client="192.0.2.1", sender="a@b.example", recipient=f"{number}@x.example", now=now)


MANY = ["delay=0s", "pool_hops=0", "allow_domain_after=0", "allow_client_after=0", "pending_size=16M"]


@pytest.mark.parametrize("harm", [
    lambda data: os.truncate(data, 20 * 4096),
    lambda data: data.write_bytes(data.read_bytes()[:8192] + bytes(data.stat().st_size - 8192)),
    lambda data: data.write_bytes(data.read_bytes()[:8192] + b"\xff" * (data.stat().st_size - 8192)),
    lambda data: data.write_bytes(data.read_bytes()[:8192] + os.urandom(data.stat().st_size - 8192)),
])
def test_damage_deep_in_the_table(doctor, make_store, path, harm):
    """Where reading it ends the reader, that is what is told."""
    make_store(*MANY)
    many(path)
    data = path / "passed.000001" / "data.mdb"
    last = data.stat().st_size // 4096
    with lmdb.open(str(data.parent), readonly=True) as environment:
        assert environment.info()["last_pgno"] > 40
        os.truncate(data, min(last, environment.info()["last_pgno"] + 1) * 4096)
    assert doctor().status == 0
    harm(data)
    examined = doctor()
    assert examined.status == 2
    assert any("backup" in finding.remedy for finding in examined.findings if finding.level == "wrong")


def test_other_format_version(doctor, make_store, path):
    make_store()
    heads.overwrite(path / "passed.000001", 8, struct.pack("=I", 1))
    the(doctor(), "wrong", "another format version", "use the fastgrey that made it")


def test_other_lmdb_format(doctor, make_store, path):
    make_store()
    with (path / "passed.000001" / "data.mdb").open("r+b") as file:
        for page in (0, 4096):
            file.seek(page + 20)
            file.write(struct.pack("=I", 999))
    the(doctor(), "wrong", "another format of LMDB", "use the fastgrey that made it")


KINDS = {
    "missing": lambda path, size: None,
    "directory": lambda path, size: path.mkdir(),
    "empty": lambda path, size: path.touch(),
    "zeroes": lambda path, size: path.write_bytes(bytes(size)),
    "garbage": lambda path, size: path.write_bytes(os.urandom(size)),
    "short": lambda path, size: path.write_bytes(b"short"),
    "symlink to itself": lambda path, size: path.symlink_to(path),
    "symlink to nothing": lambda path, size: path.symlink_to("nothing"),
    "symlink above": lambda path, size: path.symlink_to(".."),
    "pipe": lambda path, size: os.mkfifo(path),
}


def snapshot(path):
    """Everything about a tree but what lock files hold, which opening a table writes to."""
    return {entry: (entry.lstat().st_mode, entry.lstat().st_uid, entry.lstat().st_gid, entry.lstat().st_size,
                    entry.lstat().st_mtime_ns if entry.name != "lock.mdb" else 0,
                    entry.read_bytes() if entry.is_file() and entry.name != "lock.mdb" else None)
            for entry in [path, *path.rglob("*")] if os.path.lexists(entry)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["", "current", "stats", "compaction.lock", "passed.000002", "passed.000002/data.mdb",
                                  "passed.000002/lock.mdb", "PENDING", "PENDING/data.mdb", "PENDING/lock.mdb"])
def test_whatever_stands_in_a_place(make_store, run_hook, path, pending_path, name, kind):
    """Findings and an exit status: no traceback, no waiting, and nothing is changed."""
    make_store("delay=0s", "pending_size=16M")
    for _ in range(2):
        run_hook()
    compaction.compact(str(path))
    run_hook(client="198.51.100.7")
    file = path / name.replace("PENDING", pending_path.name)
    size = file.stat().st_size
    directory.remove(file)
    KINDS[kind](file, size)
    if file.is_file():
        file.chmod(0o660)
    before = snapshot(path)
    status = health.status(health.examine(str(path)))
    assert snapshot(path) == before
    harmless = name == "compaction.lock" or (name == "PENDING" and kind == "missing")
    # LMDB makes lock files anew where nobody has them open.
    if name.endswith("lock.mdb") and kind in ("missing", "empty", "zeroes", "garbage", "short", "symlink to nothing"):
        assert status in (0, 1)
    else:
        assert status == (0 if harmless else 2)


def test_answer_that_does_not_come(make_store, path, monkeypatch):
    """A process that holds what opening waits for."""
    make_store()
    lock = path / "passed.000001" / "lock.mdb"
    holder = subprocess.Popen([sys.executable, "-c", f"import fcntl\nf = open({str(lock)!r}, 'r+b')\n"
                               "fcntl.lockf(f, fcntl.LOCK_EX)\nprint(flush=True)\ninput()"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    monkeypatch.setattr(isolation, "SECONDS", 0.5)
    try:
        holder.stdout.readline()
        findings = health.examine(str(path))
    finally:
        holder.communicate(b"\n")
    assert [finding.remedy for finding in findings if "no answer" in finding.what] == [
        "look for a stopped process that holds the store, and for a slow disk"]


# The hook's user.

@pytest.fixture
def hook(tmp_path):
    """A hook where every user can reach it."""
    return shutil.copy(HOOK, tmp_path)


def as_the_user(group):
    """Options of subprocess that make a child what `doctor --user nobody:GROUP` judges."""
    return {"user": NOBODY, "group": group, "extra_groups": []}


@needs_root
@pytest.mark.parametrize(("harm", "parts"), [
    (lambda store: os.chown(store, 0, 0), ["may not enter, read and write", f"chgrp -R {GROUP}"]),
    (lambda store: os.chown(store / "passed.000001/data.mdb", 0, 0), ["data.mdb", f"chgrp -R {GROUP}"]),
    (lambda store: (store / "passed.000001/lock.mdb").chmod(0o640), ["lock.mdb", "chmod g+rw"]),
    (lambda store: (store / "passed.000001").chmod(0o2700), ["passed.000001", "chmod g+rwx"]),
    (lambda store: next(store.glob("pending.*/data.mdb")).chmod(0o600), ["pending.", "chmod g+rw"]),
])
def test_access_of_a_user(doctor, make_store, run_hook, tmp_path, hook, harm, parts):
    """Doctor is content when the hook as that very user is, and not before."""
    open_the_way(tmp_path)
    store = make_store("pending_size=16M", group=GROUP)
    run_hook()
    arguments = ("--user", f"nobody:{GROUP}", "--hook", hook)
    assert doctor(*arguments).status == 0
    harm(store)
    assert run_hook(sender="first@first.example", **as_the_user(GROUP)).words == ["accept", "error"]
    follow(the(doctor(*arguments), "wrong", *parts))
    the(doctor(*arguments), "good", f"nobody:{GROUP} may use the store")
    assert run_hook(sender="second@second.example", **as_the_user(GROUP)).words == ["defer", "new"]


@needs_root
@pytest.mark.parametrize("harm", [lambda file: os.chown(file, 0, 0), lambda file: file.chmod(0o600)])
def test_counters_that_a_user_cannot_reach(doctor, make_store, tmp_path, path, hook, harm):
    open_the_way(tmp_path)
    make_store("pending_size=16M", group=GROUP)
    harm(path / "stats")
    arguments = ("--user", f"nobody:{GROUP}", "--hook", hook)
    follow(the(doctor(*arguments), "wrong", "may not read and write", "stats"))
    assert doctor(*arguments).status == 0


@needs_root
@pytest.mark.parametrize("closed", ["way", "way/further"])
def test_directory_on_the_way_that_is_closed(doctor, tmp_path, hook, run_hook, closed):
    open_the_way(tmp_path)
    store = tmp_path / "way" / "further" / "store"
    fastgrey.create(store, {"pending_size": 16 << 20}, GROUP)
    (tmp_path / closed).chmod(0o750)
    arguments = ("--user", f"nobody:{GROUP}", "--hook", hook, "--store", str(store))
    environment = {"FASTGREY_STORE": str(store)}
    assert run_hook(env=environment, **as_the_user(GROUP)).words == ["accept", "error"]
    finding = the(doctor(*arguments), "wrong", "may not enter")
    assert finding.remedy == f"run: chmod o+x {tmp_path / closed}"
    follow(finding)
    assert doctor(*arguments).status == 0
    assert run_hook(env=environment, **as_the_user(GROUP)).words == ["defer", "new"]


@needs_root
def test_way_through_a_symbolic_link(doctor, tmp_path, hook):
    """Both the directory of the link and those where it leads must be open."""
    open_the_way(tmp_path)
    fastgrey.create(tmp_path / "real" / "store", {"pending_size": 16 << 20}, GROUP)
    (tmp_path / "link").symlink_to("real/store")
    (tmp_path / "real").chmod(0o700)
    finding = the(doctor("--user", f"nobody:{GROUP}", "--hook", hook, "--store", str(tmp_path / "link")), "wrong")
    assert finding.remedy == f"run: chmod o+x {tmp_path / 'real'}"


IN_OWN_ETC = """
set -e
cp -a /etc "$1"
mount --bind "$1" /etc
groupadd "$2"
useradd -M -g nogroup hookuser
shift 2
exec "$@"
"""


@needs_root
@pytest.mark.parametrize("group", ["hookgroup", "root"])
def test_remedy_lets_a_user_into_the_group(tmp_path, path, run_hook, hook, group):
    """On a copy of /etc that only this test sees: usermod changes the machine."""
    open_the_way(tmp_path)
    script = f"""
        set -e
        fastgrey init --store {path} --group {group} --set pending_size=16M >/dev/null
        fastgrey doctor --store {path} --user hookuser --hook {hook} --json || :
        remedy=$(fastgrey doctor --store {path} --user hookuser --hook {hook} | sed -n 's/^wrong.*; run: //p')
        eval "$remedy"
        fastgrey doctor --store {path} --user hookuser --hook {hook} --json >&2
        fastgrey doctor --store {path} --user hookuser:nogroup --hook {hook} | grep ^wrong
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", IN_OWN_ETC, "sh", tmp_path / "etc", "hookgroup",
                           "sh", "-c", script], capture_output=True, text=True, timeout=120,
                          env={"PATH": f"{BIN}:{os.environ['PATH']}"})
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    before, alone = done.stdout.split("\nwrong", 1)
    finding = the(SimpleNamespace(findings=[SimpleNamespace(**one) for one in json.loads(before)["findings"]]), "wrong")
    assert finding.remedy == ("run: usermod -aG hookgroup hookuser" if group == "hookgroup" else
                              f"run: groupadd -f fastgrey && usermod -aG fastgrey hookuser && chgrp -R fastgrey {path}")
    after = json.loads(done.stderr[done.stderr.index("{"):])
    assert after["status"] == 0
    # What tcpserver -g leaves of a user's groups is another matter, and that is said.
    assert any("tcpserver -g" in one["what"] for one in after["findings"])
    assert "hookuser:nogroup may not" in alone


@pytest.mark.parametrize("user", ["no-such-user", "", "nobody:no-such-group", "4294967295:1", "9" * 5000 + ":1", ":"])
def test_user_that_there_is_not(run_fastgrey, make_store, user):
    make_store()
    done = run_fastgrey("doctor", "--user", user)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "there is no" in done.stderr


def examined_as(user, groups, *arguments):
    """What examine finds in a child that is an ordinary user; the command itself may be out of that user's reach."""
    # All that is imported late is imported before the modules are out of reach too.
    health.examine(*arguments)
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(user)
            os.write(sender, json.dumps(health.examine(*arguments)).encode())
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as file:
        found = file.read()
    os.waitpid(child, 0)
    findings = [SimpleNamespace(level=level, what=what, remedy=remedy) for level, what, remedy in json.loads(found)]
    return SimpleNamespace(findings=findings, levels={finding.level for finding in findings})


@needs_root
def test_for_an_ordinary_user(make_store, run_hook, path, tmp_path, hook):
    open_the_way(tmp_path)
    make_store("pending_size=16M", group=GROUP)
    run_hook()
    member = examined_as(NOBODY, [GROUP], str(path), None, hook)
    assert member.levels == {"good"}
    assert any("2 records pending" in finding.what for finding in member.findings)
    stranger = examined_as(NOBODY, [], str(path), None, hook)
    assert stranger.levels == {"good", "doubt"}
    assert any("could not look at" in finding.what and "root" in finding.remedy for finding in stranger.findings)
    path.chmod(0o2775)
    (path / "passed.000001").chmod(0o775)
    reader = examined_as(NOBODY, [], str(path), None, hook)
    assert "wrong" not in reader.levels
    assert any("was not looked at" in finding.what or "could not look" in finding.what for finding in reader.findings)


@needs_root
def test_ordinary_user_about_another(make_store, path, tmp_path, hook):
    """The kernel cannot be asked for somebody else, so the modes are looked at."""
    open_the_way(tmp_path)
    make_store("pending_size=16M", group=GROUP)
    assert examined_as(NOBODY, [GROUP], str(path), f"daemon:{GROUP}", hook).levels == {"good"}
    outside = examined_as(NOBODY, [GROUP], str(path), "daemon:daemon", hook)
    the(outside, "wrong", "daemon:daemon may not", "chgrp -R daemon")


# The hook and LMDB.

def patched(hook, old, new):
    """A real executable that says it is of another version."""
    content = Path(hook).read_bytes()
    assert old in content
    Path(hook).write_bytes(content.replace(old, new))


def test_versions_of_lmdb_that_are_no_good():
    assert [number for number in range(100) if programs.lmdb_trouble((0, 9, number)) is None] == [
        24, 25, *range(32, 70)]
    assert programs.lmdb_trouble((1, 0, 0)) is not None


def test_no_remedy_writes_over_another_program(doctor, make_store):
    make_store("pending_size=16M")
    finding = the(doctor("--hook", "/bin/true"), "wrong", "/bin/true is no qmail-checkenv")
    assert finding.remedy.startswith("name qmail-checkenv with --hook")


def test_lmdb_in_the_hook(doctor, make_store, hook):
    make_store("pending_size=16M")
    number = ".".join(map(str, fastgrey._core.lmdb_version())).encode()
    patched(hook, b"LMDB " + number, b"LMDB 0.9.29")
    the(doctor("--hook", hook), "wrong", "LMDB 0.9.29", "ITS#9278")
    finding = the(doctor("--hook", hook), "doubt", "different versions of LMDB")
    follow(finding)
    assert doctor("--hook", hook).status == 0


def test_hook_of_another_version(doctor, make_store, hook):
    make_store("pending_size=16M")
    patched(hook, b"0.1.0\0", b"0.0.9\0")
    examined = doctor("--hook", hook)
    assert examined.status == 1
    follow(the(examined, "doubt", "is of version 0.0.9, this program of 0.1.0", "install -m 755"))
    assert doctor("--hook", hook).status == 0


@pytest.mark.parametrize(("harm", "level", "parts"), [
    (lambda hook: hook.unlink(), "wrong", ["there is no", "install -m 755"]),
    (lambda hook: hook.chmod(0o644), "wrong", ["is not executable", "chmod 755"]),
    (lambda hook: hook.chmod(0o777), "doubt", ["every user may write", "chmod 755"]),
    (lambda hook: hook.write_text("#!/bin/sh\nexec false\n"), "wrong", ["does not run", "install -m 755"]),
    (lambda hook: hook.write_text("#!/nonexistent\n"), "wrong", ["does not run", "install -m 755"]),
    (lambda hook: hook.write_text(f'#!/bin/sh\nexec {HOOK} "$@"\n'), "doubt", ["another exec", "install -m 755"]),
    (lambda hook: shutil.copy("/bin/sh", hook), "doubt", ["dynamically", "install -m 755"]),
    (lambda hook: shutil.copy("/bin/true", hook), "wrong", ["said 'true", "install -m 755"]),
    (lambda hook: os.truncate(hook, 70), "wrong", ["does not run", "install -m 755"]),
    (lambda hook: os.truncate(hook, 0), "doubt", ["another exec", "install -m 755"]),
])
def test_hook(doctor, make_store, hook, harm, level, parts):
    make_store("pending_size=16M")
    assert doctor("--hook", hook).status == 0
    harm(Path(hook))
    follow(the(doctor("--hook", hook), level, *parts))
    assert doctor("--hook", hook).status == 0


@pytest.mark.parametrize("name", ["greylist", "qmail-spp-2", "checkenv.bin", "fastgrey-qmail-checkenv"])
def test_hook_by_a_name_that_is_none(doctor, make_store, tmp_path, name):
    """It would answer every recipient with a fault."""
    make_store("pending_size=16M")
    renamed = shutil.copy(HOOK, tmp_path / name)
    the(doctor("--hook", renamed), "doubt", f"by the name {name} it does not know", "call it qmail-checkenv or")
    done = subprocess.run([renamed, "a", "b"], env={}, capture_output=True, text=True)
    assert "there is no hook named" in done.stderr


@pytest.mark.parametrize("name", [name for hook in hooks.HOOKS.values()
                                  for name in (hook.name, f"qmail-{hook.name}", f"fastgrey-{hook.name}")])
def test_hook_by_each_of_its_names(doctor, make_store, tmp_path, name):
    make_store("pending_size=16M")
    renamed = shutil.copy(HOOK, tmp_path / name)
    assert doctor("--hook", renamed).status == 0
    done = subprocess.run([renamed, "a", "b"], env={}, capture_output=True, text=True)
    assert "there is no hook" not in done.stderr


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_hook_that_is_no_file(doctor, make_store, tmp_path, make):
    make_store("pending_size=16M")
    make(tmp_path / "hook")
    assert doctor("--hook", str(tmp_path / "hook")).status == 2


@needs_root
def test_hook_for_its_user(doctor, make_store, tmp_path, hook):
    open_the_way(tmp_path)
    make_store("pending_size=16M", group=GROUP)
    arguments = ("--user", f"nobody:{GROUP}", "--hook", hook)
    os.chmod(hook, 0o700)
    finding = the(doctor(*arguments), "wrong", "may not execute")
    assert finding.remedy == f"run: chmod o+x {hook}"
    follow(finding)
    assert doctor(*arguments).status == 0
    os.chown(hook, NOBODY, 0)
    os.chmod(hook, 0o755)
    follow(the(doctor(*arguments), "doubt", "may write to", "chown root"))
    assert doctor(*arguments).status == 0


def test_writable_hook_is_not_run(doctor, make_store, tmp_path):
    """It would run with the rights of whoever asks for the store's health."""
    make_store("pending_size=16M")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'was-run'}\n")
    hook.chmod(0o757)
    the(doctor("--hook", str(hook)), "doubt", "was not run")
    assert not (tmp_path / "was-run").exists()


# Readers.

READER = """
import fcntl, lmdb, sys
if len(sys.argv) > 3:
    lock = open(sys.argv[3], "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
environment = lmdb.open(sys.argv[1], readonly=True, max_readers=8192, max_dbs=1)
kept = [environment.begin() for _ in range(int(sys.argv[2]))]
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def reader():
    """Start a process that reads a table, with so many snapshots open, and may hold the lock of compaction."""
    running = []

    def start(table, number=1, *lock):
        process = subprocess.Popen([sys.executable, "-c", READER, str(table), str(number), *lock],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout.readline() == b"open\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_readers_in_use(doctor, make_store, path, reader):
    make_store("pending_size=16M")
    # Somebody must have the table open first with all its slots.
    with fastgrey.open(path) as store:
        store.known()
        reader(path / "passed.000001", 5)
        stale = reader(path / "passed.000001", 3)
        stale.kill()
        stale.communicate()
        examined = doctor()
        assert examined.status == 0
        what = the(examined, "good", "passed: ", "reader slots").what
        assert "passed: 6 of 8192 reader slots in use, 10 at once at most, 3 stale ones freed" in what
        assert ", 0 stale ones freed" in the(doctor(), "good", "passed: ", "reader slots").what


def test_many_readers(doctor, make_store, path, reader):
    make_store("pending_size=16M")
    with fastgrey.open(path) as store:
        store.known()
        many = reader(path / "passed.000001", 6500)
        the(doctor(), "doubt", "of 8192 reader slots", "fuser")
        many.kill()
        many.communicate()
    # With nobody there the table of readers begins anew.
    assert doctor().status == 0


def write_150_times(table):
    with lmdb.open(str(table), max_dbs=8, sync=False, map_size=1 << 24) as writer:
        touched = writer.open_db(b"touched")
        for number in range(150):
            with writer.begin(db=touched, write=True) as txn:
                txn.put(b"x", str(number).encode())
        with writer.begin(db=touched, write=True) as txn:
            txn.delete(b"x")


def test_snapshot_of_a_running_compaction_is_not_in_doubt(doctor, make_store, path, reader):
    make_store("pending_size=16M")
    with fastgrey.open(path) as store:
        store.known()
        process = reader(path / "passed.000001", 1, path / "compaction.lock")
        (path / "compaction.lock").chmod(0o660)
        write_150_times(path / "passed.000001")
        examined = doctor()
        assert examined.status == 0
        the(examined, "good", f"a compaction is running, as process {process.pid}")


@pytest.mark.parametrize("part", ["passed", "pending"])
def test_reader_of_old_pages(doctor, make_store, path, pending_path, run_hook, reader, part):
    make_store("pending_size=16M")
    run_hook()
    table = pending_path if part == "pending" else path / "passed.000001"
    with fastgrey.open(path) as store:
        store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
        process = reader(table)
        if part == "pending":
            for number in range(150):
                store.check(client="192.0.2.1", sender="a@example.org", recipient=f"{number}@example.net")
        else:
            write_150_times(table)
    finding = the(doctor(), "doubt", f"{part}: process {process.pid} (", "transactions ago")
    assert f"{sys.executable} -c" in finding.what
    follow(finding)
    assert process.wait(60) == -signal.SIGTERM
    assert doctor().status == 0


# Room.

@needs_root
def test_little_room(tmp_path, doctor):
    """First too little for pending to grow, then too little for a compaction."""
    with small_disk(tmp_path / "disk", 40 << 20) as disk:
        store = disk / "store"
        fastgrey.create(store, {"pending_size": 1 << 30})
        arguments = ("--store", str(store))
        examined = doctor(*arguments)
        assert examined.status == 1
        follow(the(examined, "doubt", "pending may take", "pending_size="))
        assert doctor(*arguments).status == 0
        fill_up(disk / "filler")
        the(doctor(*arguments), "wrong", "a compaction takes", "make room on", str(disk))
        (disk / "filler").unlink()
        assert doctor(*arguments).status == 0
        with (disk / "filler").open("wb") as file:
            file.write(bytes(38 << 20))
        the(doctor(*arguments), "doubt", "pending may take", "make room on")


@needs_root
def test_little_room_where_a_configuration_is_in_force(tmp_path, doctor, config, run_fastgrey):
    """init would refuse to set what is set there."""
    main = config('pending_size = "1G"')
    with small_disk(tmp_path / "disk", 40 << 20) as disk:
        arguments = ("--store", str(disk / "store"))
        run_fastgrey("init", *arguments)
        run_fastgrey("apply", *arguments)
        remedy = the(doctor(*arguments), "doubt", "pending may take", f"in {main}, then: fastgrey apply").remedy
        config(remedy.removeprefix("set ").partition(" in ")[0])
        run_fastgrey("apply", *arguments)
        assert doctor(*arguments).status == 0


@needs_root
def test_few_inodes(tmp_path, doctor):
    with small_disk(tmp_path / "disk", 64 << 20, "nr_inodes=20") as disk:
        store = disk / "store"
        fastgrey.create(store, {"pending_size": 16 << 20})
        assert doctor("--store", str(store)).status == 0
        for number in range(10):
            (disk / str(number)).touch()
        the(doctor("--store", str(store)), "wrong", "inodes are free", str(disk))


@needs_root
def test_read_only(tmp_path, doctor, run_hook):
    with small_disk(tmp_path / "disk with a blank", 64 << 20) as disk:
        store = disk / "store"
        fastgrey.create(store, {"pending_size": 16 << 20})
        run_hook(env={"FASTGREY_STORE": str(store)})
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        finding = the(doctor("--store", str(store)), "wrong", "for reading only")
        assert finding.remedy == f"run: mount -o remount,rw '{disk}'"
        follow(finding)
        assert doctor("--store", str(store)).status == 0


def in_own_mounts(script, path):
    """Run doctor on a store after script, which may mount what it likes: only this process sees it."""
    command = ["unshare", "-m", "sh", "-c", f'{script}\nexec "$@"', "sh", FASTGREY, "doctor", "--json", "--store", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60,
                          env={"PATH": f"{BIN}:{os.environ['PATH']}"})
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr)
    return read(done)


@needs_root
def test_network_file_system(make_store, path, tmp_path):
    """The kernel's own list, with another kind in it."""
    make_store("pending_size=16M")
    lines = Path("/proc/self/mounts").read_text() + f"server:/export {path} nfs4 rw 0 0\n"
    (tmp_path / "mounts").write_text(lines)
    examined = in_own_mounts(f"mount --bind {tmp_path / 'mounts'} /proc/$$/mounts", path)
    the(examined, "wrong", "is on nfs4", "move the store")


@needs_root
def test_no_proc(make_store, path):
    make_store("pending_size=16M")
    examined = in_own_mounts("mount -t tmpfs tmpfs /proc", path)
    assert the(examined, "wrong", "boot_id", "mount").remedy == "run: mount -t proc proc /proc"
    assert in_own_mounts("mount -t tmpfs tmpfs /proc\nmount -t proc proc /proc", path).status == 0


# The address space of the hook.

@needs_root
@pytest.mark.parametrize(("limit", "level", "words"), [
    ("4M", "wrong", ["accept", "error"]), ("20M", "doubt", ["defer", "new"]), ("60M", None, ["defer", "new"]),
])
def test_server_with_a_limit_on_address_space(doctor, make_store, run_hook, path, tmp_path, limit, level, words):
    """As softlimit -m sets it. What is said of the hook is what the hook then does."""
    make_store("pending_size=16M")
    number = int(limit[:-1]) << 20
    call = ["prlimit", f"--as={number}", tool("tcpserver"), "-1", "-H", "-R", "-l0", "127.0.0.1", "0", "/bin/true"]
    server = subprocess.Popen(call, stdout=subprocess.PIPE, env={"FASTGREY_STORE": str(path)})
    try:
        assert server.stdout.readline()
        found = [finding for finding in doctor().findings if f"tcpserver, process {server.pid}," in finding.what]
        assert run_hook(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (number, number))).words == words
        assert [finding.level for finding in found] == ([level] if level else [])
        assert all("softlimit -d" in finding.remedy for finding in found)
        other = tmp_path / "other"
        fastgrey.create(other, {})
        assert not [finding for finding in doctor("--store", str(other)).findings if "process" in finding.what]
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.mark.parametrize("size", ["16M", "1G"])
def test_address_space_that_is_enough(doctor, make_store, run_hook, size):
    """With as much as is said, the hook works; it is told for now and for a pending that is full."""
    make_store(f"pending_size={size}")
    run_hook()
    what = the(doctor(), "good", "of address space").what
    now, unit, full = re.fullmatch(r"the hook takes (\S+) (MiB) of address space, (\S+ \SiB) when pending is full",
                                   what).groups()
    number = int(float(now) * (1 << 20))
    done = run_hook(sender="b@example.org", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (number, number)))
    assert (done.words, full.split()[1]) == (["defer", "new"], "GiB" if size == "1G" else "MiB")


# The policy in force and the configuration.

def test_no_policy_and_no_configuration(doctor, make_store):
    make_store("pending_size=16M")
    assert "no configuration at" in the(doctor(), "good", "no policy in force").what


def test_a_configuration_that_was_never_applied(doctor, make_store, config, run_fastgrey):
    make_store("pending_size=16M")
    config('pending_size = "16M"\ndelay = "6m"')
    finding = the(doctor(), "doubt", "no policy in force is older than")
    follow(finding)
    assert "policy 1, applied" in the(doctor(), "good", "is what").what


def test_a_policy_that_is_older_than_its_file(doctor, make_store, config, run_fastgrey):
    make_store()
    rules = 'pending_size = "16M"\nopt_out = ["a.example", { file = "more" }]'
    main = config(rules, more="b.example")
    run_fastgrey("apply")
    assert f"in force is what {main} says, 2 rules" in the(doctor(), "good", "policy 1").what
    config(rules, more="c.example")
    finding = the(doctor(), "doubt", "policy 1", f"older than {main}")
    # Also where the environment names no configuration, or another one.
    the(doctor(env={"FASTGREY_CONFIG": "/nowhere"}), "doubt", f"older than {main}")
    follow(finding)
    the(doctor(), "good", "policy 2")


@pytest.mark.parametrize("size", ["", 'pending_size = "disk"'])
def test_a_policy_that_goes_by_the_disk(doctor, make_store, config, run_fastgrey, size):
    make_store()
    main = config(size)
    assert run_fastgrey("apply").returncode == 0
    the(doctor(), "good", "policy 1", f"in force is what {main} says")


def test_a_configuration_that_cannot_be_applied(doctor, make_store, config, run_fastgrey):
    make_store()
    main = config('pending_size = "16M"')
    run_fastgrey("apply")
    config("nonsense = 1")
    the(doctor(), "doubt", "policy 1", "stays in force", f"{main}:1: nonsense: no such option", "mend it")


def test_a_remedy_names_where_the_settings_are(doctor, make_store, config, run_fastgrey):
    make_store()
    main = config('pending_size = "16M"\ndelay = "3d"')
    run_fastgrey("apply")
    the(doctor(), "doubt", "no retry can ever pass", f"change it in {main}, then: fastgrey apply")


# Compaction.

def test_last_compaction(doctor, make_store, run_fastgrey, path):
    make_store(*MANY, "lifetime=1h", "refresh=1m")
    many(path)
    now = time.time()
    assert re.match(r"no compaction in \d+[sm].*, 3002 known records, 0 of them expired", the(
        doctor(), "good", "known records").what)
    run_fastgrey("compact")
    status = path / "compaction.status"
    told = json.loads(status.read_text())
    assert told["succeeded"] >= int(now)
    aging.age(path, path / "none", 7200)
    status.write_text(json.dumps(told | {"succeeded": int(now) - 3 * 86400}))
    assert "last compaction 3d ago, 3002 known records, 3002 of them expired" in the(
        doctor(), "good", "known records").what
    status.write_text(json.dumps(told | {"succeeded": int(now) - 8 * 86400}))
    the(doctor(), "doubt", "last compaction 8d ago", "/etc/cron.d/fastgrey")
    # Where it says nothing, the link tells.
    status.unlink()
    os.utime(path / "current", (now - 8 * 86400, now - 8 * 86400), follow_symlinks=False)
    assert f" root setpriv --reuid={NOBODY} " in the(doctor("--user", str(NOBODY) + ":0"), "doubt", "last compaction 8d ago",
                                                     "/etc/cron.d/fastgrey").remedy
    finding = the(doctor(), "doubt", "last compaction 8d ago", "/etc/cron.d/fastgrey")
    minute_to_user, _, command = finding.remedy.partition(": ")[2].partition(" root ")
    assert len(minute_to_user.split()) == 5
    # Cron has a short path, and nothing of this environment.
    subprocess.run(["sh", "-c", command], check=True, env={"PATH": "/usr/bin:/bin"}, stdout=subprocess.DEVNULL, cwd="/")
    assert doctor().status == 0
    assert "0 known records" in the(doctor(), "good", "known records").what


def test_small_store_needs_no_compaction(doctor, make_store, path):
    make_store("pending_size=16M")
    os.utime(path / "current", (0, 0), follow_symlinks=False)
    assert doctor().status == 0


@pytest.mark.parametrize("make", [
    lambda path: (path / "passed.000002").mkdir(),
    lambda path: (path / "pending.00000000-0000-0000-0000-000000000000").mkdir(),
])
def test_leftovers(doctor, make_store, path, make):
    make_store("pending_size=16M")
    make(path)
    follow(the(doctor(), "doubt", "is left over of", "fastgrey compact"))
    assert doctor().status == 0


def test_put_aside(doctor, make_store, path):
    make_store("pending_size=16M")
    (path / "damaged.000001").mkdir()
    follow(the(doctor(), "doubt", "damaged.000001 was found damaged and put aside", "rm -r"))
    assert doctor().status == 0


def test_compaction_that_runs(doctor, make_store, path):
    """What it is making is no leftover while its lock is held."""
    make_store("pending_size=16M")
    (path / "passed.000002").mkdir()
    with (path / "compaction.lock").open("w") as file:
        (path / "compaction.lock").chmod(0o660)
        fcntl.flock(file, fcntl.LOCK_EX)
        examined = doctor()
        assert examined.status == 0
        the(examined, "good", "a compaction is running")
    assert doctor().status == 1


KILLED = """
import os, signal, sys
from fastgrey import compaction
compaction.compact(sys.argv[1], progress=lambda step, done, total: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_compaction_that_was_killed(doctor, make_store, path):
    make_store("pending_size=16M")
    assert subprocess.run([sys.executable, "-c", KILLED, path]).returncode == -signal.SIGKILL
    examined = doctor()
    the(examined, "doubt", "passed.000002 is left over of a killed compaction")
    follow(the(examined, "doubt", "go on taking notes"))
    assert doctor().status == 0


# The clock.

def test_clock_before_the_store(doctor, make_store, path):
    make_store()
    heads.overwrite(path / "passed.000001", 40, struct.pack("=q", 4_102_444_800))
    the(doctor(), "wrong", "before the making of the store, 2100-01-01 ", "set the clock")


def test_records_of_the_future(doctor, make_store, path):
    make_store("pending_size=16M", "delay=0s", "allow_domain_after=0")
    later = int(time.time()) + 86_400
    with fastgrey.open(path) as store:
        request = {"client": "192.0.2.1", "sender": "a@example.org"}
        store.check(**request, recipient="b@example.net", now=later - 86_400)
        assert doctor().status == 0
        for _ in range(2):
            store.check(**request, recipient="c@example.net", now=later)
    examined = doctor()
    assert examined.status == 1
    the(examined, "doubt", "3 of 3 known records were last seen later than now")
    the(examined, "doubt", "2 of 4 strangers were first seen later than now")


# Settings and counters.

def test_settings_hardly_meant(doctor, make_store):
    make_store("retry_window=1m", "pending_size=16M")
    examined = doctor()
    assert examined.status == 1
    the(examined, "doubt", "no retry can ever pass", "fastgrey init --set")


def test_errors(doctor, make_store, path):
    """One error among very many checks is some client's nonsense; more are worth a look."""
    make_store("pending_size=16M")
    with fastgrey.open(path) as store:
        store.check(client="x", sender="", recipient="b@example.net")
        the(doctor(), "doubt", "1 of 1 checks ended as error")
        for _ in range(1000):
            store.check(client="", sender="", recipient="", relay=True)
    examined = doctor()
    assert examined.status == 0
    the(examined, "good", "1 of 1001 checks ended as error")


def test_write_lock_held_by_another_does_not_stop_doctor(doctor, make_store, run_hook, pending_path):
    make_store("pending_size=16M")
    run_hook()
    with write_lock_held(pending_path):
        assert doctor().status == 0
