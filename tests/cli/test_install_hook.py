"""fastgrey install-hook: real files, owners and modes, on a mail server's home made for the test."""

import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastgrey
from conftest import BIN, HOOK, write_lock_held
from fastgrey import hooks
from fastgrey.installation import files
from machine import NOBODY, fill_up, needs_root, open_the_way, small_disk

pytestmark = needs_root

GROUP = 12_345
FOREIGN = b"#!/bin/sh\n# another's\nexit 0\n"
NAMES = {
    "checkenv": "bin/qmail-checkenv",
    "envelope-scanner": "bin/fastgrey-envelope-scanner",
    "rcptcheck": "bin/fastgrey-rcptcheck",
    "spp": "plugins/fastgrey-spp",
    "postgrey": "bin/qmail-postgrey",
}


@pytest.fixture
def qmail(tmp_path):
    """A home of qmail with a qmail-smtpd that knows every hook, open to every user."""
    open_the_way(tmp_path)
    home = tmp_path / "qmail"
    for name in ("bin", "plugins", "control"):
        (home / name).mkdir(parents=True)
    (home / "bin" / "qmail-smtpd").write_bytes(b"\0".join(hook.sign for hook in hooks.HOOKS.values()))
    (home / "control" / "smtpplugins").write_text("[connection]\n[rcpt]\nplugins/fastgrey-spp\n[data]\n")
    return home


@pytest.fixture
def install(qmail, run_fastgrey):
    """Run install-hook for an unprivileged user; gives status, lines of error, and what it printed."""

    def run(*arguments, group=GROUP, **options):
        done = run_fastgrey("install-hook", *arguments, "--qmail", qmail, "--user", "nobody", "--group", str(group),
                            **options)
        assert "Traceback" not in done.stderr
        return SimpleNamespace(status=done.returncode, text=done.stdout, error=done.stderr)

    return run


@pytest.fixture
def answer(install):
    """What install-hook says in JSON; it must be done."""

    def run(*arguments, **options):
        done = install(*arguments, "--json", **options)
        assert (done.status, done.error) == (0, "")
        return SimpleNamespace(**json.loads(done.text))

    return run


@pytest.fixture
def check(install):
    """Run --check; gives its exit status and findings, which JSON and exit status have to agree on."""

    def run(hook="checkenv", **options):
        done = install(hook, "--check", "--json", **options)
        assert done.error == ""
        found = json.loads(done.text)
        findings = [SimpleNamespace(**finding) for finding in found["findings"]]
        levels = {finding.level for finding in findings}
        assert found["status"] == done.status == (2 if "wrong" in levels else 1 if "doubt" in levels else 0)
        return SimpleNamespace(status=done.status, findings=findings)

    return run


def the(examined, level, *parts):
    """The one finding of that level with all parts in it."""
    found = [finding for finding in examined.findings
             if finding.level == level and all(part in f"{finding.what}; {finding.remedy}" for part in parts)]
    assert len(found) == 1, examined.findings
    return found[0]


def follow(finding):
    """Do what the remedy says, as a person would at a shell."""
    assert finding.remedy.startswith("run: "), finding
    subprocess.run(["sh", "-c", finding.remedy.removeprefix("run: ")], check=True, timeout=60,
                   env={"PATH": f"{BIN}:{os.environ['PATH']}"}, stdout=subprocess.DEVNULL)


def tree(home):
    """Everything below: name, kind and mode, owner, content."""
    found = {}
    for path in sorted(home.rglob("*")):
        status = path.lstat()
        content = (os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None)
        found[str(path.relative_to(home))] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def is_installed(target):
    status = target.lstat()
    return (stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o755
            and (status.st_uid, status.st_gid) == (0, 0) and target.read_bytes() == HOOK.read_bytes())


def older(target):
    """An executable of an earlier version in its place."""
    content = HOOK.read_bytes()
    assert content.count(b"0.1.0\0") == 1
    target.write_bytes(content.replace(b"0.1.0\0", b"0.0.9\0"))
    target.chmod(0o755)


# Putting it in place.

@pytest.mark.parametrize("hook", NAMES)
def test_each_hook(install, answer, check, qmail, path, hook):
    done = answer(hook)
    target = qmail / NAMES[hook]
    assert (done.hook, done.program, done.action, done.kept) == (hook, str(target), "installed", None)
    assert (done.store_created, done.group_created) == (True, False)
    assert is_installed(target)
    assert check(hook).status == 0
    again = answer(hook)
    assert (again.action, again.store_created) == ("unchanged", False)
    assert not [name for name in os.listdir(target.parent) if name.startswith(".")]
    if hook == "spp":
        (qmail / "control" / "smtpplugins").write_text("[rcpt]\n")
    assert "was removed" in install(hook, "--uninstall").text
    assert not target.exists()
    assert (path / "current").exists()


def test_hook_runs_as_its_user_after_install(answer, qmail, path):
    """With the group that the printed numbers give, and no other."""
    answer()
    for words in (["defer", "new"], ["defer", "early"]):
        done = subprocess.run([qmail / "bin" / "qmail-checkenv", "a@example.org", "b@example.net"], user=NOBODY,
                              group=GROUP, extra_groups=[GROUP], capture_output=True, text=True, timeout=60,
                              env={"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"})
        assert done.stderr.split()[1:3] == words


def test_default_is_checkenv_in_bin(install, qmail):
    assert install().text.startswith(f"{qmail / 'bin' / 'qmail-checkenv'}: was installed\n")


def test_spp_without_a_folder_for_plugins(answer, qmail):
    (qmail / "plugins").rmdir()
    assert answer("spp").program == str(qmail / "bin" / "fastgrey-spp")


@pytest.mark.parametrize(("hook", "where", "expected"), [
    ("checkenv", "in the run script", "export CHECKENV={qmail}/bin/qmail-checkenv"),
    ("checkenv", "in the rules of tcpserver", '192.0.2.:allow,CHECKENV="{qmail}/bin/qmail-checkenv"'),
    ("checkenv", "in the run script", "export FASTGREY_STORE={store}"),
    ("envelope-scanner", "in the run script", "export ENVELOPE_SCANNER={qmail}/bin/fastgrey-envelope-scanner"),
    ("rcptcheck", "in the run script", "export RCPTCHECK={qmail}/bin/fastgrey-rcptcheck"),
    ("spp", "in the run script", "export ENABLE_SPP=1"),
    ("spp", "smtpplugins", "plugins/fastgrey-spp"),
    ("postgrey", "in the run script", "export POSTGREY='127.0.0.1;10023'"),
])
def test_lines_to_write(answer, qmail, path, hook, where, expected):
    lines = {told["where"]: told["lines"] for told in answer(hook, "--dry-run").lines}
    found = [line for place, some in lines.items() if where in place for line in some]
    assert expected.format(qmail=qmail, store=path) in found


def test_numbers_for_tcpserver(answer):
    (server,) = [line for told in answer().lines for line in told["lines"] if line.startswith("tcpserver")]
    assert server.startswith(f"tcpserver -u {NOBODY} -g {GROUP} ")


def test_the_lines_are_shell(answer, qmail, tmp_path):
    """Also where a name has a blank, what is printed sets the variable to the program."""
    blank = qmail / "a bin"
    blank.mkdir()
    lines = [line for told in answer("--to", blank).lines for line in told["lines"] if line.startswith("export")]
    said = subprocess.run(["sh", "-c", "\n".join([*lines, 'printf %s "$CHECKENV"'])], capture_output=True, text=True)
    assert said.stdout == str(blank / "qmail-checkenv")


def test_user_that_has_a_number_only(qmail, run_fastgrey):
    done = run_fastgrey("install-hook", "--qmail", qmail, "--user", "23456", "--group", "34567")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tcpserver -u 23456 -g 34567 " in done.stdout


def test_next_step(answer, config, path):
    """What is printed last is a command that says all is well; where a configuration is, it comes first."""
    follow(SimpleNamespace(remedy=f"run: {answer().next}"))
    config("delay = '6m'")
    assert answer().next.startswith(f"fastgrey apply --store {path} && fastgrey install-hook checkenv --check ")


def test_dry_run_writes_nothing(answer, qmail, path, tmp_path):
    (qmail / "bin" / "qmail-postgrey").write_bytes(FOREIGN)
    before = tree(tmp_path)
    for hook in NAMES:
        done = answer(hook, "--dry-run")
        assert (done.dry_run, done.store_created) == (True, True)
        assert done.action == ("replaced" if hook == "postgrey" else "installed")
    assert tree(tmp_path) == before
    answer()
    before = tree(tmp_path)
    assert answer("--uninstall", "--dry-run").action == "removed"
    assert tree(tmp_path) == before


def test_dry_run_and_text_agree(install, qmail, path):
    text = install("--dry-run").text
    assert f"{qmail / 'bin' / 'qmail-checkenv'}: would be installed\n" in text
    assert f"{path}: would be created, shared with the group {GROUP}\n" in text
    assert f"{path}: created" in install().text
    assert f"{path}: the store that is there\n" in install().text


# What was there before.

def test_upgrade(answer, check, qmail):
    target = qmail / NAMES["checkenv"]
    older(target)
    assert (check("checkenv").status, answer().action) == (2, "replaced")
    assert is_installed(target)
    assert not (qmail / "bin" / "qmail-checkenv.before-fastgrey").exists()


@pytest.mark.parametrize("harm", [lambda target: target.chmod(0o775), lambda target: os.chown(target, NOBODY, NOBODY)])
def test_owner_and_mode_are_mended(answer, qmail, harm):
    answer()
    harm(qmail / NAMES["checkenv"])
    assert answer().action == "replaced"
    assert is_installed(qmail / NAMES["checkenv"])


def test_foreign_program_is_kept_and_comes_back(answer, install, check, qmail):
    target = qmail / NAMES["postgrey"]
    kept = qmail / "bin" / "qmail-postgrey.before-fastgrey"
    target.write_bytes(FOREIGN)
    target.chmod(0o711)
    os.chown(target, NOBODY, NOBODY)
    before = tree(qmail)
    done = answer("postgrey")
    assert (done.action, done.kept) == ("replaced", str(kept))
    assert is_installed(target)
    assert kept.read_bytes() == FOREIGN
    assert str(kept) in the(check("postgrey"), "good", "was there before").what
    assert answer("postgrey").kept == str(kept)
    older(target)
    assert answer("postgrey").action == "replaced"
    assert kept.read_bytes() == FOREIGN
    assert answer("postgrey", "--uninstall").action == "restored"
    assert tree(qmail) == before


def test_kept_one_is_never_written_over(install, answer, qmail, path):
    target, kept = qmail / NAMES["checkenv"], qmail / "bin" / "qmail-checkenv.before-fastgrey"
    target.write_bytes(FOREIGN)
    kept.write_bytes(b"what was there before that")
    before = tree(qmail)
    done = install()
    assert done.status == 1
    assert f"{target} is not fastgrey's, and {kept} holds what was there before" in done.error
    assert done.error.count("\n") == 1
    assert install("--dry-run").status == 1
    assert tree(qmail) == before
    assert not path.exists()


def test_symbolic_link_is_kept_and_not_written_through(answer, qmail, tmp_path):
    """Whatever it points to, our own executable, too."""
    target, elsewhere = qmail / NAMES["checkenv"], tmp_path / "elsewhere"
    older(elsewhere)
    content = elsewhere.read_bytes()
    target.symlink_to(elsewhere)
    done = answer()
    assert os.readlink(done.kept) == str(elsewhere)
    assert is_installed(target)
    assert elsewhere.read_bytes() == content
    assert answer("--uninstall").action == "restored"
    assert os.readlink(target) == str(elsewhere)


def test_dangling_link(answer, qmail):
    (qmail / NAMES["checkenv"]).symlink_to("nowhere")
    assert os.readlink(answer().kept) == "nowhere"
    assert is_installed(qmail / NAMES["checkenv"])


def test_directory_in_its_place(install, qmail):
    (qmail / NAMES["checkenv"]).mkdir()
    for option in ((), ("--uninstall",)):
        done = install(*option)
        assert (done.status, done.error.count("\n")) == (1, 1)
        assert "is a directory; move it away" in done.error


def test_pipe_in_its_place(answer, qmail):
    os.mkfifo(qmail / NAMES["checkenv"])
    answer()
    assert is_installed(qmail / NAMES["checkenv"])


def test_leftovers_of_a_killed_install_go(answer, check, qmail):
    answer()
    left = qmail / "bin" / ".qmail-checkenv.fastgrey-new"
    left.write_bytes(b"half")
    follow(the(check(), "doubt", "left over", str(left)))
    assert check().status == 0
    left.write_bytes(b"half")
    (qmail / NAMES["checkenv"]).unlink()
    answer()
    assert not left.exists()
    left.write_bytes(b"half")
    answer("--uninstall")
    assert not left.exists()


@pytest.mark.parametrize("content", [
    FOREIGN,
    b"",
    b"\x7fELF of a wrapper that sets FASTGREY_STORE",
    Path("/bin/true").read_bytes(),
    b"#!/bin/sh\n# FASTGREY_STORE LMDB 0.9\n",
])
def test_what_is_not_ours(tmp_path, content):
    file = tmp_path / "file"
    file.write_bytes(content)
    assert not files.is_ours(file)
    assert files.is_ours(HOOK)


def test_programs_of_others_are_not_run(install, check, qmail, tmp_path):
    """By root least of all."""
    target = qmail / NAMES["checkenv"]
    target.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    target.chmod(0o755)
    check()
    install("--uninstall")
    install()
    check()
    install("--uninstall")
    assert not (tmp_path / "was-run").exists()


# Taking it away.

def test_uninstall_of_nothing(answer, qmail):
    before = tree(qmail)
    assert answer("--uninstall").action == "nothing"
    assert tree(qmail) == before


def test_uninstall_refuses_what_is_not_ours(install, qmail):
    target = qmail / NAMES["postgrey"]
    target.write_bytes(FOREIGN)
    done = install("postgrey", "--uninstall")
    assert done.status == 1
    assert done.error == f"fastgrey: {target} is not fastgrey's, so it stays\n"
    assert target.read_bytes() == FOREIGN


def test_uninstall_says_what_stays(install, answer, path):
    answer()
    text = install("--uninstall").text
    assert f"{path}: stays" in text
    assert "take out of the run script" in text


def test_uninstall_while_qmail_spp_lists_it(install, answer, qmail):
    """Mail would stop: qmail-spp defers all where a plugin is missing."""
    answer("spp")
    done = install("spp", "--uninstall")
    assert done.status == 1
    assert "take out the line plugins/fastgrey-spp first" in done.error
    assert is_installed(qmail / NAMES["spp"])


# Kills.

KILLED = """
import os, signal, sys
main_process, steps = os.getpid(), int(sys.argv.pop(1))

def counted(name):
    step = getattr(os, name)
    def call(*arguments, **options):
        global steps
        if os.getpid() != main_process:
            return step(*arguments, **options)
        if not steps:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return step(*arguments, **options)
    setattr(os, name, call)

for name in ("fchown", "fchmod", "fsync", "link", "unlink", "replace"):
    counted(name)
from fastgrey.cli.main import main
main()
"""


@pytest.mark.parametrize("before", ["nothing", "older", "foreign"])
def test_killed_between_any_two_steps(qmail, path, before, answer, install):
    """The old program or the new one is there, whole, and what was there is not lost; run again, it is done."""
    target, kept = qmail / NAMES["checkenv"], qmail / "bin" / "qmail-checkenv.before-fastgrey"
    fastgrey.create(path, group=GROUP)
    arguments = ["install-hook", "--qmail", qmail, "--user", "nobody", "--group", str(GROUP), "--store", path]
    for words, wanted in ((arguments, "installed"), ([*arguments, "--uninstall"], before)):
        for steps in range(100):
            for name in (target, kept):
                name.unlink(missing_ok=True)
            if before == "older":
                older(target)
            elif before == "foreign":
                target.write_bytes(FOREIGN)
            old = target.read_bytes() if target.exists() else None
            if wanted != "installed":
                answer()
            done = subprocess.run([sys.executable, "-c", KILLED, str(steps), *words], timeout=60,
                                  stdout=subprocess.DEVNULL)
            now = target.read_bytes() if target.exists() else None
            assert now in (old, None) or is_installed(target)
            assert now is not None or old is None or (wanted, before) == ("older", "older")
            if before == "foreign":
                assert FOREIGN in (now, kept.read_bytes() if kept.exists() else None)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL
            if wanted == "installed":
                answer()
                assert is_installed(target)
                assert kept.exists() == (before == "foreign")
            else:
                # Refused where it was through and the other program is back.
                assert (install("--uninstall").status == 1) == (now == FOREIGN)
                assert (target.read_bytes() if target.exists() else None) == (old if before == "foreign" else None)
                assert not kept.exists()
            assert not [name for name in os.listdir(target.parent) if name.startswith(".")]
        assert 2 < steps < 99


def test_two_at_once(install, qmail):
    descriptor = os.open(qmail / "bin", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    done = install()
    os.close(descriptor)
    assert done.status == 1
    assert "another install-hook is at work" in done.error
    assert not (qmail / NAMES["checkenv"]).exists()


# What keeps it from being done.

def one_line(done, *parts, status=1):
    assert done.status == status
    assert done.text == ""
    assert done.error.count("\n") == 1
    assert done.error.startswith("fastgrey: ")
    for part in parts:
        assert part in done.error


AS_NOBODY = f"""
import os, sys
from fastgrey.cli import install_hook, main
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
main.main()
"""


@pytest.fixture
def as_nobody(qmail, path, tmp_path):
    """Run install-hook as an ordinary user, who need not have a way to the interpreter nor to what is beside it."""
    found = tmp_path / "found"
    found.mkdir()
    shutil.copy(HOOK, found)
    environment = os.environ | {"PATH": f"{found}:{os.environ['PATH']}"}

    def run(*arguments):
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, "install-hook", *arguments, "--qmail", qmail, "--store",
                               path, "--user", "nobody", "--group", str(GROUP)], capture_output=True, text=True, env=environment)
        assert "Traceback" not in done.stderr
        return SimpleNamespace(status=done.returncode, text=done.stdout, error=done.stderr)

    return run


def test_not_root(as_nobody, qmail, path):
    before = tree(qmail)
    for option in ((), ("--uninstall",)):
        one_line(as_nobody(*option), "only root may install a hook")
    assert "would be installed" in as_nobody("--dry-run").text
    assert tree(qmail) == before
    assert not path.exists()


def test_no_such_user(run_fastgrey, qmail):
    done = run_fastgrey("install-hook", "--qmail", qmail, "--user", "nobody-of-that-name")
    assert done.returncode == 2
    assert done.stderr == ("fastgrey: --user nobody-of-that-name: there is no such user; name the one that runs "
                           "qmail-smtpd (after tcpserver -u)\n")


def test_wrong_hook(install):
    one_line(install("postfix"), "checkenv", "envelope-scanner", "rcptcheck", "spp", "postgrey", status=2)


def test_check_and_uninstall(install):
    one_line(install("--check", "--uninstall"), "exclude each other", status=2)


def test_no_qmail(install, qmail):
    shutil.rmtree(qmail)
    one_line(install(), f"there is no directory {qmail / 'bin'}", "--qmail", "--to")


@pytest.fixture
def new_group():
    """A name of a group that is not there; it is removed in the end."""
    name = f"fastgrey{os.getpid()}"
    yield name
    subprocess.run(["groupdel", name], capture_output=True)


def test_group(install, answer, path, qmail, new_group):
    done = install(group=new_group)
    one_line(done, f"--group {new_group}: there is no such group", f"groupadd --system {new_group}", "--create-group",
             status=2)
    done = answer("--create-group", "--dry-run", group=new_group)
    assert done.group_created
    assert any("-g NUMBER" in line for told in done.lines for line in told["lines"])
    assert not path.exists()
    assert subprocess.run(["getent", "group", new_group], capture_output=True).returncode == 2
    done = answer("--create-group", group=new_group)
    assert (done.group_created, done.store_created) == (True, True)
    number = int(subprocess.run(["getent", "group", new_group], capture_output=True, text=True).stdout.split(":")[2])
    assert path.stat().st_gid == (path / "passed.000001" / "lock.mdb").stat().st_gid == number
    assert any(f"-g {number} " in line for told in done.lines for line in told["lines"])
    assert not answer("--create-group", group=new_group).group_created


def test_group_that_cannot_be_made(install, path):
    one_line(install("--create-group", group="no:group"), "cannot make the group no:group", "by hand")
    assert not path.exists()


def test_full_disk(tmp_path, install, qmail):
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        target = disk / "qmail-checkenv"
        older(target)
        content = target.read_bytes()
        fill_up(disk / "filler")
        done = install("--to", disk)
        one_line(done, f"cannot install {target}", os.strerror(errno.ENOSPC), "nothing is lost")
        assert target.read_bytes() == content
        assert sorted(os.listdir(disk)) == ["filler", "qmail-checkenv"]


def test_read_only(tmp_path, install):
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        one_line(install("--to", disk), os.strerror(errno.EROFS))


def test_no_executable_beside_the_command(qmail, path, tmp_path):
    """An installation of the Python part alone."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    script = "import sys; sys.executable = sys.argv.pop(1); from fastgrey.cli.main import main; main()"
    call = [sys.executable, "-c", script, tmp_path / "bin" / "python", "install-hook", "--qmail", qmail,
            "--user", "nobody", "--group", str(GROUP)]
    done = subprocess.run(call, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no qmail-checkenv is beside fastgrey" in done.stderr
    shutil.copy("/bin/true", tmp_path / "bin" / "qmail-checkenv")
    done = subprocess.run(call, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert "is not fastgrey's executable" in done.stderr
    assert not (qmail / NAMES["checkenv"]).exists()


# The store.

def test_store_of_another_group(install, path, qmail):
    """The program is put in its place all the same; what does not fit is told, and the remedy mends it."""
    fastgrey.create(path)
    done = install()
    assert done.status == 1
    assert is_installed(qmail / NAMES["checkenv"])
    assert f"nobody:{GROUP} may not enter, read and write {path}; run: chgrp -R {GROUP} {path}" in done.error
    subprocess.run(["chgrp", "-R", str(GROUP), path], check=True)
    assert install().status == 0


def test_store_without_its_link(install, path, qmail):
    """A new one would be made in its place, and begin with the removal of what was learned."""
    fastgrey.create(path, group=GROUP)
    (path / "current").unlink()
    before = tree(path)
    for option in ((), ("--dry-run",)):
        one_line(install(*option), f"{path} has a store without its link", f"ask: fastgrey doctor --store {path}")
    assert tree(path) == before
    assert not (qmail / NAMES["checkenv"]).exists()


def test_directory_that_others_may_write_to(install, path, qmail):
    """Installed all the same, and told."""
    os.chown(qmail / "bin", NOBODY, 0)
    done = install()
    assert done.status == 1
    assert is_installed(qmail / NAMES["checkenv"])
    assert f"nobody may write to {qmail / 'bin'}, and so exchange the program" in done.error


def test_store_keeps_what_it_has(answer, path):
    fastgrey.create(path, {"delay": 77}, group=GROUP)
    answer()
    with fastgrey.open(path) as store:
        assert fastgrey.settings.by_name(store.head()["settings"])["delay"] == 77


def test_store_that_cannot_be_made(install, path, qmail):
    path.mkdir()
    (path / "mail").touch()
    one_line(install(), f"{path} holds other files (mail)")
    assert not (qmail / NAMES["checkenv"]).exists()


# Judging what is installed.

@pytest.mark.parametrize(("harm", "level", "parts"), [
    (lambda target: target.unlink(), "wrong", ["there is no", "fastgrey install-hook checkenv"]),
    (lambda target: target.write_bytes(FOREIGN), "wrong", ["is not fastgrey's", "fastgrey install-hook checkenv"]),
    (lambda target: target.chmod(0o775), "wrong", ["mode 775", "chmod 755"]),
    (lambda target: target.chmod(0o700), "wrong", ["mode 700", "chmod 755"]),
    (lambda target: target.chmod(0o4755), "wrong", ["mode 4755", "chmod 755"]),
    (lambda target: target.chmod(0o745), "wrong", ["mode 745", "chmod 755"]),
    (lambda target: os.chown(target, NOBODY, 0), "wrong", ["belongs to nobody", "chown root"]),
    (lambda target: older(target), "doubt", ["is of version 0.0.9"]),
    (lambda target: target.write_bytes(HOOK.read_bytes() + b"\0"), "doubt", ["another build", "install-hook"]),
    (lambda target: os.chown(target.parent, NOBODY, 0), "wrong", ["may write to", "chown root"]),
    (lambda target: target.parent.chmod(0o757), "wrong", ["every user may write to", "chmod go-w"]),
    (lambda target: os.chown(target.parent.parent, 4321, 0), "wrong", ["user 4321 may write to", "chown root"]),
    (lambda target: (os.chown(target.parent, 0, 12), target.parent.chmod(0o775)), "wrong",
     ["the group man may write to", "chmod go-w"]),
])
def test_check_and_its_remedies(answer, check, qmail, harm, level, parts):
    answer()
    assert check().status == 0
    harm(qmail / NAMES["checkenv"])
    examined = check()
    assert examined.status == {"doubt": 1, "wrong": 2}[level]
    follow(the(examined, level, *parts))
    assert check().status == 0


def test_check_without_qmail(answer, check, qmail):
    """One finding, and nothing is said to be wrong with the store."""
    answer()
    shutil.rmtree(qmail)
    examined = check()
    assert "there is no" in the(examined, "wrong").what


def test_check_of_a_link(answer, check, qmail, tmp_path):
    answer()
    target = qmail / NAMES["checkenv"]
    shutil.move(target, tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    follow(the(check(), "doubt", "is a symbolic link"))
    assert check().status == 0
    assert is_installed(target)


@pytest.mark.parametrize("hook", NAMES)
def test_check_looks_at_qmail_smtpd(answer, check, qmail, hook):
    answer(hook)
    server = qmail / "bin" / "qmail-smtpd"
    server.write_bytes(b"plain")
    the(check(hook), "wrong", f"does not know {hooks.HOOKS[hook].sign.decode()}")
    server.unlink()
    the(check(hook), "doubt", "there is no", "--qmail")


@pytest.mark.parametrize("text", ["", "[mail]\nplugins/fastgrey-spp\n[rcpt]\n", "[rcpt]\n#plugins/fastgrey-spp\n"])
def test_check_looks_at_the_list_of_plugins(answer, check, qmail, text):
    answer("spp")
    assert check("spp").status == 0
    (qmail / "control" / "smtpplugins").write_text(text)
    the(check("spp"), "wrong", "smtpplugins does not name it", "plugins/fastgrey-spp")


def test_check_of_the_store(answer, check, path, new_group):
    answer()
    shutil.rmtree(path)
    follow(the(check(), "wrong", "there is no store", "install-hook"))
    assert check().status == 0
    path.chmod(0o750)
    follow(the(check(), "wrong", "mode 750", "chmod 2770"))
    assert check().status == 0
    the(check(group=54_321), "wrong", "may not enter, read and write")
    the(check(group=new_group), "wrong", f"there is no group {new_group}", "fastgrey install-hook", "--create-group")


def test_check_while_the_store_is_in_use(answer, check, path):
    answer()
    with write_lock_held(path / "passed.000001"):
        assert check().status == 0


def test_check_by_an_ordinary_user(answer, as_nobody, qmail):
    """Says what it could not look at."""
    answer()
    done = as_nobody("--check")
    assert done.status >= 1
    assert f"good    {qmail / NAMES['checkenv']}: version" in done.text
    assert "run this as root" in done.text


def test_check_as_text(install, answer, qmail):
    answer()
    text = install("--check").text
    assert f"good    {qmail / NAMES['checkenv']}: version" in text
    assert all(line.startswith("good    ") for line in text.splitlines())


def test_names_of_others_cannot_reach_the_terminal(install, qmail):
    evil = qmail / "a\x1b[2J"
    evil.mkdir()
    done = install("--check", "--to", evil)
    assert "\x1b" not in done.text
