"""contrib/qmail/checkenv.c: compiled strictly, called by a small driver, with real programs and real faults."""

import os
import re
import shutil
import signal
import subprocess
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
from machine import NOBODY, needs_root, open_the_way

from fastgrey.shipped import shipped

HERE = Path(__file__).parent
SOURCE = shipped("qmail/checkenv.c")
STRICT = ["-g", "-O2", "-Wall", "-Wextra", "-Werror"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

ACCEPTED = "accepted"
DEFERRED = "451 4.7.1 greylisted, please try again later"
REJECTED = "553 5.7.1 sorry, your mail is not wanted here"
UNCHECKED = "451 4.3.0 sorry, this recipient could not be checked, please try again later"


def build(target, *flags, compiler="gcc"):
    """The driver around checkenv.c."""
    subprocess.run([compiler, *STRICT, *flags, f"-I{SOURCE.parent}", HERE / "driver.c", SOURCE, "-o", target],
                   check=True)
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the driver with these flags, once."""
    folder = tmp_path_factory.mktemp("driver")

    def get(*flags):
        target = folder / ("driver" + "".join(flags).replace("/", "_"))
        return target if target.exists() else build(target, *flags)

    return get


@pytest.fixture(params=["plain", "sanitized"])
def driver(request, built):
    """The driver, as it is and under the sanitizers of address and undefined behaviour."""
    return built(*SANITIZED) if request.param == "sanitized" else built()


@pytest.fixture
def plain(built):
    """The driver where a sanitizer cannot live, as with three open files."""
    return built()


@pytest.fixture
def program(tmp_path):
    """Write a script that is the checker; gives its path."""

    def write(body, first="#!/bin/sh\n", mode=0o755, name="checker"):
        path = tmp_path / name
        path.write_text(first + body + "\n")
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def call(tmp_path):
    """Run a driver; gives its replies, what it left behind, and the lines on standard error."""

    def run(driver, checker, *options, sender="a@example.org", recipient="b@example.net", env=None, **popen):
        report = tmp_path / "report"
        report.unlink(missing_ok=True)
        environment = {"PATH": os.environ["PATH"]} | (env or {})
        if checker is not None:
            environment["CHECKENV"] = os.fspath(checker)
        # Files, because a program that outlives its check would keep a pipe open.
        with open(tmp_path / "stdout", "wb") as stdout, open(tmp_path / "stderr", "wb") as stderr:
            done = subprocess.run([driver, report, *options, sender, recipient], env=environment, timeout=60,
                                  stdout=stdout, stderr=stderr, **popen)
        errors = (tmp_path / "stderr").read_text("ascii")
        assert done.returncode == 0, errors
        # Nothing of it may reach the SMTP connection.
        assert (tmp_path / "stdout").read_bytes() == b""
        text = report.read_bytes().decode("ascii")
        state = dict(re.findall(r"^([a-z]+) (\S+)$", text, re.MULTILINE))
        replies = text[:text.index("descriptors ")].splitlines(keepends=True)
        for reply in replies:
            assert reply == "accepted\n" or (reply.endswith("\r\n") and len(reply) <= 512)
        log = errors.splitlines()
        return SimpleNamespace(replies=[reply.rstrip() for reply in replies], reply=replies[-1].rstrip(), state=state,
                               log=log, faults=[line for line in log if line.startswith("checkenv: ")])

    return run


def assert_fault(done, action, what, remedy=""):
    """One line that says who, how it was answered, which program, why, what to do; and the answer."""
    assert len(done.faults) == len(done.replies)
    for line in done.faults:
        assert re.fullmatch(rf"checkenv: {action} error client=\S* sender=\S* recipient=\S*: \S+ {what}; .*{remedy}.*",
                            line), line
    assert set(done.replies) == {UNCHECKED if action == "defer" else ACCEPTED}


COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("standard", ["gnu89", "c90", "c99", "gnu2x"])
def test_every_compiler_takes_it(tmp_path, compiler, standard):
    subprocess.run([compiler, *STRICT, "-pedantic", "-Wconversion", "-Wshadow", f"-std={standard}", "-c", SOURCE, "-o",
                    tmp_path / "checkenv.o"], check=True)


@pytest.mark.parametrize(("status", "reply"), [
    (0, ACCEPTED), (100, REJECTED), (111, DEFERRED), (1, DEFERRED), (99, DEFERRED), (101, DEFERRED), (127, DEFERRED),
    (255, DEFERRED),
])
def test_exit_status(driver, call, program, status, reply):
    done = call(driver, program(f"exit {status}"))
    assert (done.reply, done.log) == (reply, [])


def test_what_the_program_gets(driver, call, program, tmp_path):
    checker = program(
        'printf "%s\\n" "$#" "$0" "$1" "$2" "$TCPREMOTEIP" "$PWD" >&2\n'
        "cut -d' ' -f1,5 /proc/$$/stat >&2\n"
        "echo this is not for the client; cat")
    done = call(driver, checker, sender="", recipient="it's $HOME `x` b@example.net",
                env={"TCPREMOTEIP": "192.0.2.7"}, cwd=tmp_path, stdin=subprocess.PIPE)
    assert done.reply == ACCEPTED
    assert done.log[:6] == ["2", str(checker), "", "it's $HOME `x` b@example.net", "192.0.2.7", str(tmp_path)]
    number, group = done.log[6].split()
    assert number == group
    assert len(done.log) == 7


def test_signals_of_the_program(plain, call, tmp_path):
    """Those that qmail-smtpd or checkenv() touch are as after a login. A shell would hide it; cp SENDER RECIPIENT tells."""
    call(plain, shutil.which("cp"), "-b", "-i", sender="/proc/self/status", recipient=str(tmp_path / "status"))
    signals = dict(re.findall(r"^(Sig...):\t0*(\w+)$", (tmp_path / "status").read_text(), re.MULTILINE))
    touched = sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGALRM, signal.SIGCHLD))
    assert (int(signals["SigBlk"], 16), int(signals["SigIgn"], 16) & touched) == (0, 0)


def test_what_the_program_can_reach(driver, call, program, tmp_path):
    """Its log; not the client, nor anything of the call."""
    files = tmp_path / "files"
    call(driver, program(f"exec find /proc/self/fd -mindepth 1 -fprintf {files} '%f %l\\n'"), "-n", "2",
         stdin=subprocess.PIPE, cwd=tmp_path)
    reached = dict(line.split(" ", 1) for line in files.read_text().splitlines())
    own = {str(files), str(tmp_path)}  # of find
    reached = {number: to for number, to in reached.items() if to not in own and not to.startswith("/proc/")}
    assert reached == {"0": "/dev/null", "1": "/dev/null", "2": f"{tmp_path}/stderr"}


def test_not_asked_at_all(driver, call, program):
    refusing = program("exit 100")
    assert call(driver, None).reply == ACCEPTED
    assert call(driver, refusing, "-r", "").reply == ACCEPTED
    assert call(driver, refusing, "-r", "@relay").reply == ACCEPTED
    assert call(driver, refusing).reply == REJECTED


def test_empty_names_the_usual_program(driver, call, program, tmp_path):
    (tmp_path / "bin").mkdir()
    program("exit 100", name="bin/qmail-checkenv")
    assert call(driver, "", cwd=tmp_path).reply == REJECTED
    assert_fault(call(driver, "", cwd="/"), "accept", "cannot be run: No such file or directory")


@pytest.mark.parametrize("name", ["checker", "./checker", " /checker", "sh"])
def test_no_absolute_path(driver, call, program, name, tmp_path):
    """Neither the working directory nor PATH is searched."""
    program("exit 100")
    assert_fault(call(driver, name, cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}), "accept",
                 "is no absolute path", "without arguments")


@pytest.mark.parametrize(("make", "reason"), [
    (lambda program, tmp_path: tmp_path / "missing", "No such file or directory"),
    (lambda program, tmp_path: f"{program('exit 100')} --hook checkenv", "No such file or directory"),
    (lambda program, tmp_path: program("exit 100") / "below", "Not a directory"),
    (lambda program, tmp_path: tmp_path, "Permission denied"),
    (lambda program, tmp_path: program("exit 100", mode=0o644), "Permission denied"),
    (lambda program, tmp_path: program("exit 100", first="#!/no/such/interpreter\n"), "No such file or directory"),
    (lambda program, tmp_path: program("exit 100", first=""), "Exec format error"),
    (lambda program, tmp_path: "/" + "x" * 5000, "File name too long"),
], ids=["missing", "arguments", "below-file", "directory", "not-executable", "no-interpreter", "no-shell", "too-long"])
@pytest.mark.parametrize("action", ["accept", "defer"])
def test_cannot_be_run(driver, call, program, tmp_path, make, reason, action):
    done = call(driver, make(program, tmp_path), env={"CHECKENV_ON_ERROR": action, "TCPREMOTEIP": "192.0.2.7"})
    assert_fault(done, action, f"cannot be run: {reason}", "qmail-smtpd's user may run it")
    assert " client=192.0.2.7 sender=a@example.org recipient=b@example.net: /" in done.faults[0]


def test_client_over_ipv6_is_named(driver, call):
    assert " client=2001:db8::7 " in call(driver, "/missing", env={"TCP6REMOTEIP": "2001:db8::7"}).faults[0]


@pytest.mark.parametrize("name", ["SEGV", "KILL", "ALRM"])
def test_crash(driver, call, program, name):
    number = int(getattr(signal, f"SIG{name}"))
    done = call(driver, program(f"kill -{name} $$; sleep 30"), env={"CHECKENV_ON_ERROR": "defer"})
    assert_fault(done, "defer", f"died of signal {number}", "softlimit")


def is_gone(pid):
    """Whether a process has ended; what a dead parent left may wait for init as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(("action", "options"), [("accept", ()), ("defer", ("-b", "-i"))])
def test_hang(driver, call, program, tmp_path, action, options):
    """The program is killed with all that it started, also where it ignores what can be ignored."""
    checker = program(f"trap '' TERM INT HUP ALRM\n(trap '' TERM; exec sleep 50) &\necho $$ $! > {tmp_path}/pids\n"
                      "wait; wait; sleep 50")
    done = call(driver, checker, *options, env={"CHECKENV_TIMEOUT": "1", "CHECKENV_ON_ERROR": action})
    assert_fault(done, action, "was killed after 1 s", "CHECKENV_TIMEOUT")
    assert all(is_gone(pid) for pid in (tmp_path / "pids").read_text().split())
    assert done.state["children"] == "none"


@pytest.mark.parametrize(("action", "reply"), [("accept", ACCEPTED), ("defer", UNCHECKED)])
def test_a_hang_is_waited_for_once_a_session(driver, call, program, tmp_path, action, reply):
    checker = program(f"echo >> {tmp_path}/runs; exec sleep 50")
    done = call(driver, checker, "-n", "100", env={"CHECKENV_TIMEOUT": "1", "CHECKENV_ON_ERROR": action})
    assert (tmp_path / "runs").read_text() == "\n"
    assert done.replies == [reply] * 100
    assert " was killed after 1 s; " in done.log[0]
    assert len(done.log) == 100
    assert all(" was not run, it hung for another recipient of this session; " in line for line in done.log[1:])


def test_ten_seconds_unless_told(plain, call, program):
    assert_fault(call(plain, program("sleep 50")), "accept", "was killed after 10 s")


def test_a_slow_answer_is_an_answer(driver, call, program):
    done = call(driver, program("sleep 2; exit 111"), env={"CHECKENV_TIMEOUT": "240"})
    assert (done.reply, done.log) == (DEFERRED, [])


@pytest.mark.parametrize("value", ["", "0", "241", "99999999999999999999", "-1", "5s", " 5", "1.5", "ten"])
def test_timeout_that_cannot_be(driver, call, program, value):
    """Told once a session, not for each of its recipients."""
    done = call(driver, program("exit 111"), "-n", "3", env={"CHECKENV_TIMEOUT": value})
    shown = value.replace(" ", "\\x20")
    assert done.log == [f"checkenv: CHECKENV_TIMEOUT={shown} is not a number of seconds from 1 to 240; 10 is used"]
    assert done.replies == [DEFERRED] * 3


@pytest.mark.parametrize("value", ["", "reject", "ACCEPT", "defer\nx"])
def test_on_error_that_cannot_be(driver, call, value):
    done = call(driver, "/missing", "-n", "3", env={"CHECKENV_ON_ERROR": value})
    shown = value.replace("\n", "\\x0a")
    assert done.log[0] == f"checkenv: CHECKENV_ON_ERROR={shown} is not accept or defer; accept is used"
    assert len(done.log) == 4
    assert done.replies == [ACCEPTED] * 3


@pytest.mark.parametrize(("most", "what"), [
    (4, "was not run, no pipe: Too many open files"),
    (5, "was not run, no pipe: Too many open files"),
    (6, "was not run, no /dev/null: Too many open files"),
])
def test_no_descriptors(plain, call, program, most, what):
    """The driver's report is descriptor 3."""
    done = call(plain, program("exit 100"), "-f", str(most), env={"CHECKENV_ON_ERROR": "defer"})
    assert_fault(done, "defer", what)
    assert done.state["descriptors"] == "same"


@needs_root
def test_no_process(plain, call, program):
    done = call(plain, program("exit 100"), "-u", str(NOBODY), "-p", env={"CHECKENV_ON_ERROR": "defer"})
    assert_fault(done, "defer", "was not run, no process: Resource temporarily unavailable", "limits")
    assert (done.state["descriptors"], done.state["mask"]) == ("same", "same")


@needs_root
def test_program_that_may_not_be_killed(plain, call, tmp_path):
    """One that became another user is not waited for."""
    open_the_way(tmp_path)
    immortal = tmp_path / "immortal"
    subprocess.run(["gcc", *STRICT, HERE / "immortal.c", "-o", immortal], check=True)
    immortal.chmod(0o4755)
    mark = tmp_path / "mark"
    try:
        done = call(plain, immortal, "-u", str(NOBODY),
                    env={"CHECKENV_TIMEOUT": "1", "CHECKENV_ON_ERROR": "defer", "MARK": str(mark)})
        assert_fault(done, "defer", "does not die, killed after 1 s", "see what it waits for")
        assert not is_gone(int(mark.read_text()))
    finally:
        os.kill(int(mark.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("closed", [set(some) for number in range(1, 4) for some in combinations("012", number)],
                         ids="".join)
def test_descriptors_that_are_closed(driver, call, program, tmp_path, closed):
    """The checker has all three; with no log, what it opens first does not become its log."""
    seen = tmp_path / "seen"
    checker = program('for fd in 0 1 2; do all="$all $(readlink /proc/$$/fd/$fd)"; done\n'
                      f"echo $all > {seen}; exit 111")
    options = [option for fd in sorted(closed) for option in ("-c", fd)]
    done = call(driver, checker, *options, "-n", "2")
    assert done.replies == [DEFERRED] * 2
    assert done.state["descriptors"] == "same"
    null_or_log = seen.read_text().split()
    assert null_or_log[:2] == ["/dev/null"] * 2
    assert null_or_log[2] == "/dev/null" if "2" in closed else null_or_log[2] == f"{tmp_path}/stderr"
    assert call(driver, "/missing", *options, env={"CHECKENV_ON_ERROR": "defer"}).reply == UNCHECKED


@pytest.mark.parametrize("body", ["exit 0", "exit 111", "kill -9 $$", None], ids=str)
@pytest.mark.parametrize("options", [(), ("-i",), ("-b",), ("-i", "-b", "-a", "100")], ids="".join)
def test_two_hundred_recipients_leave_nothing(driver, call, program, body, options):
    done = call(driver, program(body) if body else "/missing", "-n", "200", *options)
    expected = DEFERRED if body == "exit 111" else ACCEPTED
    assert done.replies == [expected] * 200
    assert len(done.faults) == (0 if body and body.startswith("exit") else 200)
    assert done.state["descriptors"] == "same"
    assert done.state["children"] == "none"
    assert done.state["mask"] == "same"
    assert done.state["sigchld"] == ("ignored" if "-i" in options else "default")
    assert done.state["sigalrm"] == ("handled" if "-a" in options else "default")
    assert (int(done.state["left"]) > 0) == ("-a" in options)


def test_an_alarm_goes_on(driver, call, program):
    """The time that the check took is taken from it."""
    done = call(driver, program("sleep 3"), "-a", "100")
    assert 1 <= int(done.state["left"]) <= 98
    assert done.state["alarms"] == "0"


@pytest.mark.parametrize(("body", "reply"), [("sleep 3; exit 111", DEFERRED), ("sleep 50", ACCEPTED)])
def test_an_alarm_that_was_due_meanwhile(driver, call, program, body, reply):
    """It is not the bound of the check, and comes when that is over."""
    done = call(driver, program(body), "-a", "1", "-w", "30", env={"CHECKENV_TIMEOUT": "4"})
    assert done.reply == reply
    assert (done.state["left"], done.state["alarms"]) == ("1", "1")


def test_alarm_just_after_the_end(built, call, program):
    """By default it would end qmail-smtpd."""
    done = call(built("-Dalarm=late_alarm", "-DLATE_ALARM"), program("exit 111"), "-n", "3")
    assert done.replies == [DEFERRED] * 3
    assert done.state["sigalrm"] == "default"


def test_no_log_to_write_to(driver, call, program, tmp_path):
    """As in qmail-smtpd SIGPIPE is ignored; a log that is gone is no fault, and the checker has SIGPIPE again."""
    reading, writing = os.pipe()
    os.close(reading)
    report = tmp_path / "report"
    checker = program("echo gone >&2; exit 111")
    for path, reply in (("/missing", UNCHECKED), (checker, UNCHECKED)):
        subprocess.run([driver, report, "a@example.org", "b@example.net"], check=True, timeout=60, stderr=writing,
                       env={"CHECKENV": str(path), "CHECKENV_ON_ERROR": "defer"})
        assert report.read_text().startswith(reply)
    os.close(writing)


@pytest.mark.parametrize(("status", "name", "codes", "usual"), [
    (111, "CHECKENV_DEFER_TEXT", "451 4.7.1 ", DEFERRED), (100, "CHECKENV_REJECT_TEXT", "553 5.7.1 ", REJECTED),
])
def test_texts(driver, call, program, status, name, codes, usual):
    checker = program(f"exit {status}")
    for text, shown in {
        "come back later; see https://example.net/why": "come back later; see https://example.net/why",
        "a\\r\\n250 ok": "a\\r\\n250 ok",
        "a\r\n250 ok\r\n": "a??250 ok??",
        "tab\tbell\x07del\x7fé": "tab?bell?del???",
        "%s%n": "%s%n",
        "x" * 5000: "x" * 500,
        "x" * 499 + "é": "x" * 499 + "?",
    }.items():
        assert call(driver, checker, env={name: text}).reply == codes + shown
    other = {"CHECKENV_DEFER_TEXT", "CHECKENV_REJECT_TEXT"} - {name}
    assert call(driver, checker, env={name: "", other.pop(): "not this"}).reply == usual


def test_faults_have_a_text_of_their_own(driver, call):
    done = call(driver, "/missing", env={"CHECKENV_ON_ERROR": "defer", "CHECKENV_DEFER_TEXT": "greylisted"})
    assert done.reply == UNCHECKED


def test_the_client_writes_no_line_of_the_log(driver, call):
    forged = "b@example.net\ncheckenv: accept error client=192.0.2.9 \x1b[2J\\é"
    done = call(driver, "/mis sing\n", sender=forged, recipient=forged)
    shown = "b@example.net\\x0acheckenv:\\x20accept\\x20error\\x20client=192.0.2.9\\x20\\x1b[2J\\x5c\\xc3\\xa9"
    assert done.log == [
        f"checkenv: accept error client= sender={shown} recipient={shown}: /mis\\x20sing\\x0a cannot be run: No such "
        "file or directory; check the file that CHECKENV names, and that qmail-smtpd's user may run it"]


@pytest.mark.parametrize("byte", ["a", "\n"])
def test_the_longest_line_is_one_piece(driver, call, byte):
    """Of at most 4096 bytes, so lines of many sessions do not mix in a pipe; and it says to the end what to do."""
    done = call(driver, "/" + byte * 1000, sender=byte * 900, recipient=byte * 900, env={"TCPREMOTEIP": byte * 900})
    assert len(done.log) == 1
    assert len(done.log[0]) < 4096
    assert done.log[0].endswith("user may run it")
    assert done.log[0].count("...") == 4
