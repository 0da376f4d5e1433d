"""The systemd units: checked by systemd's own tools, and what they allow tried on the kernel (tests/sandbox.py)."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastgrey
import sandbox
from conftest import FASTGREY, HOOK
from fastgrey import directory, last_run
from fastgrey.shipped import CHECKOUT
from machine import NOBODY, needs_root, open_the_way

UNITS = CHECKOUT / "contrib" / "systemd"
COMPACT, TIMER, SMTPD, SERVE, SOCKET = (UNITS / name for name in (
    "fastgrey-compact.service", "fastgrey-compact.timer", "qmail-smtpd.service", "fastgrey-serve.service",
    "fastgrey-serve.socket"))
GROUP = 12_345


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture
def units(tmp_path):
    """Copies in which the program is where this checkout has it."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("ExecStart=fastgrey ", f"ExecStart={FASTGREY} ")
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", [COMPACT.name, TIMER.name, SMTPD.name, SERVE.name, SOCKET.name])
def test_verify(units, name):
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(units / name))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_sees_a_wrong_option(units):
    (units / SMTPD.name).write_text(SMTPD.read_text() + "[Service]\nNoSuchOption=true\n")
    assert "NoSuchOption" in run("systemd-analyze", "verify", "--man=no", str(units / SMTPD.name)).stderr


@pytest.mark.parametrize(("unit", "tenths"), [(COMPACT, 4), (SMTPD, 26), (SERVE, 12)])
def test_exposure(unit, tenths):
    """systemd's own figure from 0 (none) to 10; what is left of each is told in docs/service.md."""
    done = run("systemd-analyze", "security", "--offline=true", f"--threshold={tenths}", str(unit))
    assert done.returncode == 0, done.stdout


def test_timer_is_daily():
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(TIMER)
    done = run("systemd-analyze", "calendar", "--iterations=2", parser["Timer"]["OnCalendar"])
    assert done.returncode == 0
    first, second = re.findall(r"^ *(?:Next elapse|Iteration #2|Iter. #2): \w+ (\S+) ", done.stdout, re.MULTILINE)
    assert first != second
    assert parser["Timer"]["Persistent"] == "true"
    assert parser["Install"]["WantedBy"] == "timers.target"


# What the sandbox of the compaction lets through.

def way_to(program):
    """Whether an ordinary user can run it."""
    return subprocess.run(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", program, "--version"],
                          capture_output=True, cwd="/").returncode == 0


@pytest.fixture
def sandboxed(make_store, path, tmp_path):
    """Run a command as fastgrey-compact.service would, on the store of the test."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    if not way_to(FASTGREY):
        pytest.skip("an ordinary user has no way into the directory of the checkout")
    make_store("pending_size=16M", group=GROUP)

    def call(*words):
        return run(sys.executable, sandbox.__file__, COMPACT, path, *words,
                   env={**os.environ, "SANDBOX_GROUP": str(GROUP)})

    return call


@needs_root
def test_compaction_in_its_sandbox(sandboxed, path, tmp_path):
    """It reads what the hook's user and root made, removes what is old, and what it makes the hook's user can use."""
    open_the_way(tmp_path)
    hook = shutil.copy(HOOK, tmp_path)

    def check():
        return subprocess.run([hook, "a@example.org", "b@example.net"], user=NOBODY, group=GROUP, extra_groups=[GROUP],
                              env={"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}, capture_output=True,
                              text=True, timeout=60).stderr.split()[1:3]

    assert check() == ["defer", "new"]
    earlier = path / "pending.00000000-0000-0000-0000-000000000000"
    shutil.copytree(path / f"pending.{directory.boot_id()}", earlier)
    for made in (earlier, *earlier.iterdir()):
        os.chown(made, NOBODY, GROUP)
    for number in (2, 3, 4):
        done = sandboxed(FASTGREY, "compact")
        assert (done.returncode, done.stderr) == (0, "")
        assert os.readlink(path / "current") == f"passed.{number:06d}"
        assert check() == ["defer", "early"]
    assert not earlier.exists()
    assert not (path / "passed.000001").exists()
    program, *words = sandbox.options(COMPACT)["ExecStart"][0].split()
    assert program == "fastgrey"
    done = sandboxed(FASTGREY, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no compaction is needed" in done.stdout
    generation = path / "passed.000004"
    assert (generation.stat().st_gid, generation.stat().st_mode & 0o7777) == (GROUP, 0o2770)
    assert generation.stat().st_uid not in (0, NOBODY)


@needs_root
@pytest.mark.parametrize(("script", "refused"), [
    ("echo x > /etc/fastgrey.test", "Read-only file system"),
    ("echo x > /var/lib/other", "Read-only file system"),
    ("chmod 2770 /var/lib/fastgrey/stats", "not permitted"),
    ("unshare -U true", "not permitted"),
    ("chown nobody /var/lib/fastgrey/stats", "not permitted"),
])
def test_sandbox_refuses(sandboxed, script, refused):
    done = sandboxed("/bin/sh", "-c", script)
    assert done.returncode != 0
    assert refused in done.stderr


@needs_root
def test_sandbox_allows(sandboxed):
    """What fastgrey needs, and no capability."""
    done = sandboxed("/bin/sh", "-c", "cat /proc/sys/kernel/random/boot_id && echo x > /var/lib/fastgrey/stats.new && "
                     "rm /var/lib/fastgrey/stats.new && echo x > /tmp/x && "
                     "grep -E 'CapBnd|CapEff|NoNewPrivs' /proc/self/status")
    assert done.stderr == ""
    boot, *status = done.stdout.split()
    assert boot == directory.boot_id()
    assert status == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]


@needs_root
def test_sandbox_has_no_network_and_no_code_that_is_written(sandboxed):
    done = sandboxed(sys.executable, "-c", "import mmap, socket\n"
                     "try:\n    socket.socket()\nexcept OSError as error:\n    print(error.errno)\n"
                     "try:\n    mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
                     "except OSError as error:\n    print(error.strerror)\n")
    # Kernels before 6.3 know no MDWE; there, systemd filters the calls.
    assert done.stdout.splitlines() == ["97", *(["Permission denied"] if sandbox.has_mdwe() else [])]


# qmail-smtpd: what its options mean for it.

def test_the_queue_can_be_reached():
    """qmail-queue is set-user-id; forbidding new privileges would let no mail into the queue."""
    unit = sandbox.options(SMTPD)
    assert unit["NoNewPrivileges"] == ["false"]
    # With these, NoNewPrivileges would be implied for want of a capability.
    assert not {"User", "DynamicUser"} & unit.keys()
    assert unit["ReadWritePaths"] == ["-/var/lib/fastgrey /var/qmail/queue"]


@pytest.fixture
def started(tmp_path, make_store):
    """The command of the unit with its capabilities and no other, around a stub; variables of its environment."""
    open_the_way(tmp_path)
    unit = sandbox.options(SMTPD)
    stub = tmp_path / "stub"
    stub.write_text("#!/bin/sh\nid -u; id -G; exec \"$CHECKENV\" a@example.org b@example.net 2>&1\n")
    stub.chmod(0o755)
    # Words and $$ as systemd.service(5) has them; port 0 and -1 make tcpserver tell which one it took.
    program, option, script = re.fullmatch(r"(\S+) (\S+) '(.*)'", unit["ExecStart"][0]).groups()
    script = script.replace("$$", "$").replace("tcpserver -v", "tcpserver -1 -v")
    capabilities = unit["CapabilityBoundingSet"][0].lower().replace("cap_", "+").replace(" ", ",")
    words = ["setpriv", "--bounding-set", f"-all,{capabilities}", "--inh-caps", "-all", program, option, script]

    def start(**variables):
        environment = dict(entry.split("=", 1) for value in unit["Environment"] for entry in value.split())
        environment |= {"PATH": os.environ["PATH"], "SMTPD": str(stub), "SMTPD_USER": "nobody", "STORE_GROUP": "daemon",
                        "CHECKENV": shutil.copy(HOOK, tmp_path), "FASTGREY_STORE": str(make_store(group=1)),
                        "ADDRESS": "127.0.0.1", "PORT": "0", "RULES": str(tmp_path / "none.cdb")} | variables
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@needs_root
def test_tcpserver_as_the_unit_starts_it(started):
    """tcpserver becomes the user, in the store's group."""
    server = started()
    try:
        port = server.stdout.readline().strip()
        said = run("tcpclient", "-RHl0", "127.0.0.1", port, "sh", "-c", "cat <&6").stdout.splitlines()
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert said[:2] == [str(NOBODY), "1"]
    assert said[2].startswith("fastgrey: defer new wait=300 client=127.0.0.1 ")


@needs_root
@pytest.mark.parametrize(("variable", "said"), [
    ("SMTPD_USER", "no-such-name"), ("STORE_GROUP", "there is no group no-such-name; make it with: groupadd"),
])
def test_tcpserver_is_not_started_as_root(started, variable, said):
    """It would stay root where -u or -g has no number."""
    server = started(**{variable: "no-such-name"})
    try:
        port, errors = server.communicate(timeout=20)
    finally:
        server.kill()
    assert server.returncode > 0
    assert (port, said in errors) == ("", True)


# Users, groups, directories, cron.

def test_sysusers(tmp_path):
    (tmp_path / "etc").mkdir()
    done = run("systemd-sysusers", f"--root={tmp_path}", str(CHECKOUT / "contrib" / "sysusers.d" / "fastgrey.conf"))
    assert done.returncode == 0, done.stderr
    name, _, uid, gid, text, home, shell = (tmp_path / "etc" / "passwd").read_text().strip().split(":")
    assert (name, home) == ("fastgrey", "/var/lib/fastgrey")
    assert "nologin" in shell
    groups = (tmp_path / "etc" / "group").read_text().splitlines()
    assert [line.split(":")[0::2] for line in groups] == [["fastgrey", gid]]
    assert int(uid) < 1000


@needs_root
def test_tmpfiles_then_init_then_compact(tmp_path, run_fastgrey):
    """In a root of its own, with the group that sysusers made there."""
    (tmp_path / "etc").mkdir()
    create = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(CHECKOUT / "contrib/tmpfiles.d/fastgrey.conf")]
    users = str(CHECKOUT / "contrib/sysusers.d/fastgrey.conf")
    assert run("systemd-sysusers", f"--root={tmp_path}", users).returncode == 0
    done = run(*create)
    assert (done.returncode, done.stderr) == (0, "")
    gid = int((tmp_path / "etc" / "group").read_text().split(":")[2])
    store = tmp_path / "var" / "lib" / "fastgrey"
    assert (store.stat().st_uid, store.stat().st_gid, store.stat().st_mode & 0o7777) == (0, gid, 0o2770)
    assert (tmp_path / "etc" / "fastgrey" / "conf.d").is_dir()
    for words in (("init",), ("compact",), ("doctor", "--json")):
        done = run_fastgrey(*words, "--store", store)
        assert done.returncode == 0, done.stdout + done.stderr
    for made in store.rglob("*"):
        assert made.lstat().st_gid == gid, made
    # Once more changes nothing.
    before = sorted((made, made.lstat().st_mode) for made in store.rglob("*"))
    assert run(*create).returncode == 0
    assert sorted((made, made.lstat().st_mode) for made in store.rglob("*")) == before


def cron_table():
    """Its variables and its lines, as cron(8) reads a table of /etc/cron.d."""
    variables, lines = {}, []
    for line in (CHECKOUT / "contrib" / "cron" / "fastgrey").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\w+)=(.*)", line)
        if match:
            variables[match[1]] = match[2]
        else:
            lines.append(re.fullmatch(r"((?:\S+\s+){5})(\S+)\s+(.*)", line).groups())
    return variables, lines


@needs_root
def test_cron_line(tmp_path, path, make_store):
    """Run as cron runs it, on a machine where fastgrey is in one of the table's directories."""
    variables, ((when, user, command),) = cron_table()
    assert all(re.fullmatch(r"[0-9*]+", field) for field in when.split())
    assert user == "root"
    assert "%" not in command
    # Users of this machine in the place of qmail's; root only where nobody has no way into the directory of the checkout.
    user_id = NOBODY if way_to(FASTGREY) else 0
    for option, name in (("--reuid=qmaild ", f"--reuid={user_id} "), ("--regid=fastgrey ", "--regid=daemon ")):
        assert command.count(option) == 1
        command = command.replace(option, name)
    # Cron's environment, with the directory of this checkout in the place of the first of the table's.
    assert variables["PATH"].split(":")[0] == "/usr/local/sbin"
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin" / "fastgrey").symlink_to(FASTGREY)
    environment = {"SHELL": variables["SHELL"], "HOME": "/root", "LOGNAME": user, "FASTGREY_STORE": str(path),
                   "PATH": variables["PATH"].replace("/usr/local/sbin", str(tmp_path / "sbin"), 1)}

    def run_as_cron():
        return run(variables["SHELL"], "-c", command, env=environment, cwd="/", stdin=subprocess.DEVNULL)

    open_the_way(tmp_path)
    make_store("pending_size=16M", group=1)
    # What a killed one left makes the first one needed; the second finds nothing to do.
    (path / "passed.000002").mkdir()
    for result in ("done", "declined"):
        done = run_as_cron()
        # What a table prints, cron mails.
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert os.readlink(path / "current") == "passed.000002"
        assert last_run.read(path).result == result
    assert {(made.stat().st_uid, made.stat().st_gid) for made in (path / "passed.000002").iterdir()} == {(user_id, 1)}
    (path / "current").unlink()
    done = run_as_cron()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"fastgrey: there is no store {path}")
    assert done.stderr.count("\n") == 1


def test_file_names_of_cron_and_systemd():
    """cron(8) passes over names with a dot; a packager finds each where that tool looks for it."""
    contrib = CHECKOUT / "contrib"
    assert re.fullmatch("[A-Za-z0-9_-]+", next((contrib / "cron").iterdir()).name)
    for folder in ("sysusers.d", "tmpfiles.d"):
        assert [entry.name for entry in (contrib / folder).iterdir()] == ["fastgrey.conf"]
    assert fastgrey.directory.DEFAULT_STORE in (contrib / "tmpfiles.d" / "fastgrey.conf").read_text()
    assert Path(sandbox.STORE) == Path(fastgrey.directory.DEFAULT_STORE)
