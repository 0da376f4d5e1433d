"""Checkers that fail: the session goes on, the recipient is answered as CHECKENV_ON_ERROR says, the log says why."""

import os

import pytest

from machine import needs_root

FAULT_CODES = {"accept": "250", "defer": "451"}

# A shell script where the checker is, and what the line says of it.
FAULTS = {
    "crash": ("kill -SEGV $$", " died of signal 11; "),
    "killed": ("kill -KILL $$", " died of signal 9; "),
    # Its answer comes too late to count.
    "hangs": ("sleep 20; exit 100", " was killed after 1 s; "),
    "hangs and will not end": ("trap '' TERM ALRM INT HUP; while :; do sleep 600; done", " was killed after 1 s; "),
}


@pytest.fixture(params=FAULT_CODES)
def on_error(request):
    """Both ways of CHECKENV_ON_ERROR."""
    return request.param


@pytest.fixture
def ask(serve):
    """Have a recipient checked by CHECKENV; gives the code of the reply and the lines logged. The session goes on."""

    def one(checker, **environment):
        server = serve(CHECKENV=checker, **environment)
        client = server.session()
        code = client.mail("a@example.org", "b@example.net")
        assert client.say("NOOP", "RSET") == ["250 ok", "250 flushed"]
        assert len(server.messages()) == (code == ["250"])
        client.close()
        return code[0], server.log()

    return one


@pytest.mark.parametrize("kind", FAULTS)
def test_checker_fails(ask, checker, on_error, kind):
    script, why = FAULTS[kind]
    code, (line,) = ask(checker(script), CHECKENV_ON_ERROR=on_error, CHECKENV_TIMEOUT=1)
    assert code == FAULT_CODES[on_error]
    assert why in line


@pytest.mark.parametrize("kind", ["missing", "not executable", "a directory", "no program", "no interpreter"])
def test_checker_cannot_run(ask, checker, home, on_error, kind):
    program = home / "bin" / "other"
    if kind == "not executable":
        checker("exit 0", "other", mode=0o644)
    elif kind == "a directory":
        program.mkdir()
    elif kind == "no program":
        checker("", "other").write_text("no magic\n")
    elif kind == "no interpreter":
        checker("", "other").write_text("#!/no/such/interpreter\n")
    code, (line,) = ask(program, CHECKENV_ON_ERROR=on_error)
    assert code == FAULT_CODES[on_error]
    assert str(program) in line


def test_default_checker_is_missing(ask, home, on_error):
    (home / "bin" / "qmail-checkenv").unlink()
    code, (line,) = ask("", CHECKENV_ON_ERROR=on_error)
    assert code == FAULT_CODES[on_error]
    assert "bin/qmail-checkenv" in line


@pytest.mark.parametrize("named", ["checker", "bin/checker", "./bin/checker", "/bin/true argument", "/bin/true;", "$0"])
def test_checker_named_in_a_way_that_is_refused(ask, checker, on_error, named):
    """No path search, no shell, no arguments."""
    checker("exit 100")
    code, (line,) = ask(named, CHECKENV_ON_ERROR=on_error, PATH=f"{checker('exit 100').parent}:{os.environ['PATH']}")
    assert code == FAULT_CODES[on_error]
    assert f": {named} ".replace(" ", r"\x20")[5:-4] in line


@pytest.mark.parametrize(("limit", "why"), [("nproc=0", "not run, no process"), ("nofile=4", "not run, no pipe")])
@needs_root
def test_limits_leave_no_room_for_a_checker(serve, checker, smtpd, on_error, limit, why):
    """As an ordinary user: root is not held to the number of processes."""
    server = serve(checker(f"exec prlimit --{limit} {smtpd}", "limited"), CHECKENV_ON_ERROR=on_error)
    assert server.session().mail("a@example.org", "b@example.net") == [FAULT_CODES[on_error]]
    (line,) = server.log()
    assert why in line


@pytest.mark.parametrize(("name", "value"), [
    ("CHECKENV_TIMEOUT", ""), ("CHECKENV_TIMEOUT", "0"), ("CHECKENV_TIMEOUT", "-1"), ("CHECKENV_TIMEOUT", "1s"),
    ("CHECKENV_TIMEOUT", "99999999999999999999"), ("CHECKENV_ON_ERROR", ""), ("CHECKENV_ON_ERROR", "Defer"),
])
def test_settings_that_cannot_be_are_told_once_a_session(serve, checker, name, value):
    """The default holds, and the session goes on."""
    server = serve(CHECKENV=checker("kill -KILL $$"), **{name: value})
    assert server.session().mail("a@example.org", "b@example.net", "c@example.net") == ["250", "250"]
    told = [line for line in server.log() if line.startswith(f"checkenv: {name}={value} is not ")]
    assert (len(told), len(server.log())) == (1, 3)


def test_faults_accept_unless_said_otherwise(ask, checker):
    assert ask(checker("kill -KILL $$"))[0] == "250"


@pytest.mark.parametrize(("status", "code"), [
    (0, "250"), (100, "553"), (111, "451"),
    *[(status, "451") for status in (1, 2, 10, 99, 101, 110, 112, 120, 126, 127, 128, 137, 255)],
])
@pytest.mark.parametrize("how", ["accept", "defer"])
def test_exit_status(ask, checker, status, code, how):
    """An exit is an answer, and what is neither yes nor no is not now; no fault, whatever the number."""
    assert ask(checker(f"exit {status}"), CHECKENV_ON_ERROR=how) == (code, [])


def test_rubbish_on_standard_output_is_not_a_reply(ask, checker):
    """More than a pipe holds, and as much like SMTP as can be."""
    script = "printf '250 ok\\r\\n354 go\\r\\n'; head -c 1000000 /dev/zero | tr '\\0' '\\n'; exit 111"
    assert ask(checker(script)) == ("451", [])


def test_checker_says_much_on_standard_error(ask, checker):
    code, lines = ask(checker("seq 20000 >&2; exit 111"))
    assert (code, lines) == ("451", [str(number) for number in range(1, 20_001)])


def test_checker_has_no_way_to_the_client(serve, checker):
    """No descriptor of the session but standard error."""
    server = serve(CHECKENV=checker("ls -l /proc/self/fd | grep -c 'socket:' >&2; exit 0"))
    assert server.session().mail("a@example.org", "b@example.net") == ["250"]
    assert server.log() == ["0"]


def test_checker_that_leaves_a_child_behind_is_not_waited_for(serve, checker, place):
    """Its exit is its answer, though a child of it still holds what it inherited."""
    checker = checker(f"sleep 600 & echo $! > {place}/child; exit 111")
    (place / "child").touch()
    (place / "child").chmod(0o666)
    server = serve(CHECKENV=checker)
    try:
        assert server.session().mail("a@example.org", "b@example.net") == ["451"]
    finally:
        os.kill(int((place / "child").read_text()), 9)


def test_next_session_after_a_fault_is_fine(serve, checker, home, make_store, store_group):
    make_store(group=store_group)
    server = serve(CHECKENV_ON_ERROR="defer")
    good = home / "bin" / "qmail-checkenv"
    aside = good.rename(home / "aside")
    client = server.session()
    assert client.mail("a@example.org", "b@example.net") == ["451"]
    assert "fastgrey: " not in server.log()[0]
    aside.rename(good)
    assert client.mail("a@example.org", "b@example.net") == ["451"]
    assert server.log()[1].startswith("fastgrey: defer new")
