"""What people write, mutated: configuration, rule files, envelope files, command lines. Each ends well or in one line.

In this process, through the entry point of the command, so that there are many; a sample again as the real process.
"""

import contextlib
import io
import os
import random
import subprocess
import sys

import pytest

import fastgrey
import mutation
from effort import times, tried
from fastgrey.cli import main as entry

pytestmark = pytest.mark.torture

CONFIGURATION = b'''# What a server may have.
delay = "10m"
retry_window = "2d"
lifetime = 3110400
trust_client_name = true
null_sender = "accept"
mode = 'learn'
pending_size = "64M"
allow_client_after = 5
allow_clients = ["192.0.2.0/24", "mail.example.org", { file = "rules" }]
deny_senders = [
    "*%*",
    "/^news-[0-9]+@/",  # a comment
]
opt_out = ["postmaster@"]
'''
RULES = b'''# postgrey's manner
192.0.2.1
10.20
2001:db8::/32
mail.example.org
/^mx[0-9]+\\.example\\.net$/
/(^|\\.)(a|b){1,3}[[:alpha:]]+$/
mail2.example.org. # caf\xc3\xa9
'''
ENVELOPES = b'''time\tclient_ip\tclient_name\tsender\trecipient\tlabel
1700000000\t192.0.2.1\tmx.example.org\ta@example.org\tb@example.net\tham
1700000400\t192.0.2.1\tmx.example.org\ta@example.org\tb@example.net\tham
1700000500\t2001:db8::1\t\t<>\tb@example.net\tspam
'''
TOKENS = {
    "configuration": [b'"', b"'", b"[", b"]", b"{", b"}", b"=", b"\n", b"#", b",", b".", b'"""', b"\\u0000", b"\\x",
                      b"[" * 3000, b"[a]\n", b"[[a]]\n", b"nan", b"inf", b"-1", b"1e400", b"0x10", b"9" * 20,
                      b"9" * 5000, b"1979-05-27", b"true", b'"5m"', b'"99999999999d"', b'{ file = "rules" }',
                      b'{ file = "none" }', b'{ file = "\\u0000" }', b'{ file = "." }', b"delay", b"opt_in = []\n",
                      b"\xff", b"\0", b"\r", b"a.b.c = 1\n", b"delay.x = 1\n", b"\xef\xbb\xbf"],
    "rules": [b"/", b"//", b"*", b"(", b")", b"[", b"]", b"{", b"}", b"{255}", b"{1,99999}", b"+", b"?", b"|", b"^",
              b"$", b"\\", b"\\1", b"[[:", b"[[:alpha:]]", b"[z-a]", b"#", b"@", b"::", b"/33", b"/129", b"256", b"\0",
              b"\xff", b"\n", b"\r", b"<>", b"9" * 5000, b"((((" * 300, b"(a*)*", b"x" * 1001, b"\x1b[2J", b"\xc2\xa0"],
    "envelopes": [b"\t", b"\t\t", b"\n", b"\r\n", b"time", b"client_ip", b"sender", b"9" * 13, b"9" * 5000, b"-1", b"0",
                  b"\0", b"\xff", b"\xd9\xa1", b"<", b">", b"@", b"x" * 1001, b" ", b"\x1b[2J", b"::"],
}
WORDS = ["check", "explain", "pass", "forget", "expect", "list", "show", "stats", "replay", "config", "apply", "init",
         "compact", "rollback", "nonsense", "restore", "backup"]
ARGUMENTS = ["192.0.2.1", "2001:db8::1", "a@example.org", "b@example.net", "-", "--", "--json", "--dry-run", "-n",
             "--help", "--store", "store", "none", "--config", "rules", "--set", "delay=5m", "delay=", "mode=x",
             "--now", "1700000000", "-1", "9" * 20, "--for", "15m", "--name", "mx.example.org", "--jsonl",
             "envelopes", "describe", "show", "check", "triplets", "clients", "0752f3077a02", "--prometheus",
             "--nonsense", "", " ", "\x1b[2J", "caf\u00e9", "\udcff", "a\nb", "--relay", "--limit", "3", "--from",
             "example.org", "--until", "12:00"]


class Ended(Exception):
    """A command line that ended in something else than success or lines that say why."""


def run_here(*arguments):
    """Run the command in this process as the shell would; gives its status. Raises Ended where it does not end well."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2))
    before = sys.argv
    sys.argv = ["fastgrey", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            entry.main()
    except SystemExit as left:
        status = left.code
    except BaseException as error:
        raise Ended(f"{arguments}: {type(error).__name__}: {error}") from error
    finally:
        sys.argv = before
    err.flush()
    return judged(status, err.buffer.getvalue().decode("utf-8"), arguments)


def judged(status, said, arguments):
    """The status, where it and what was said on standard error go together."""
    if status not in (0, 1, 2, 3, 4) or "Traceback" in said:
        raise Ended(f"{arguments}: {status}: {said}")
    # Before the line that says why it ended, a command may have told doubts, a line each.
    lines = said.split("\n")
    if status and not (lines.pop() == "" and lines and all(line.startswith("fastgrey: ") and line.isprintable()
                                                           for line in lines)):
        raise Ended(f"{arguments}: {status}: {said!r}")
    return status


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with a store and files of each kind, in which commands run."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    fastgrey.create(folder / "store")
    (folder / "fastgrey.toml").write_bytes(CONFIGURATION)
    (folder / "rules").write_bytes(RULES)
    (folder / "envelopes").write_bytes(ENVELOPES)
    monkeypatch.setenv("FASTGREY_STORE", str(folder / "store"))
    monkeypatch.setenv("FASTGREY_CONFIG", str(folder / "fastgrey.toml"))
    return folder


FILES = {
    "configuration": ("fastgrey.toml", CONFIGURATION, [("config", "check"), ("apply", "--dry-run")]),
    "rules": ("rules", RULES, [("config", "check"), ("apply", "--dry-run")]),
    "envelopes": ("envelopes", ENVELOPES, [("replay", "envelopes", "--jsonl")]),
}


@pytest.mark.parametrize("kind", FILES)
def test_files(place, run_fastgrey, kind):
    name, whole, commands = FILES[kind]
    assert [run_here(*command) for command in commands] == [0] * len(commands)
    outcomes = {0: 0, 1: 0}
    for case in range(times(80)):
        pick = random.Random(f"{kind} {case}")
        (place / name).write_bytes(mutation.mutated(pick, whole, TOKENS[kind]))
        try:
            status = run_here(*pick.choice(commands))
        except Ended as error:
            pytest.fail(f"{kind} {case}: {error}\n{(place / name).read_bytes()[:2000]!r}")
        outcomes[status] = outcomes.get(status, 0) + 1
        if case % 40 == 0:
            done = run_fastgrey(*commands[0], cwd=place, env={"FASTGREY_CONFIG": str(place / "fastgrey.toml")})
            judged(done.returncode, done.stderr, (kind, case))
    # Nearly all that are refused are refused for what they say, and some mutations change nothing of it.
    assert min(outcomes[0], outcomes[1]) > 0
    tried(f"fuzz, {kind} files", cases=times(80), refused=outcomes[1], tracebacks=0)


LONG = b"9" * 5000
# What ended in a traceback before.
ONCE = [
    ("configuration", b"delay = " + LONG), ("configuration", b'delay = "' + LONG + b'"'),
    ("configuration", b'pending_size = "' + LONG + b'"'), ("configuration", b"delay = " + b"[" * 3000),
    ("envelopes", ENVELOPES.replace(b"1700000400", LONG)), ("envelopes", ENVELOPES.replace(b"1700000400", b"0" * 5000)),
]


@pytest.mark.parametrize(("kind", "content"), ONCE, ids=range(len(ONCE)))
def test_files_that_were_tracebacks(place, kind, content):
    name, _, commands = FILES[kind]
    (place / name).write_bytes(content)
    assert run_here(*commands[0]) == 1


@pytest.mark.parametrize(("words", "status"), [
    (["init", "-n", "--set", "delay=" + LONG.decode()], 2), (["expect", "a@b", "--for", LONG.decode() + "s"], 2),
    (["check", "192.0.2.1", "a", "b", "\x1b[2J", "c"], 2),
])
def test_command_lines_that_were_tracebacks(place, words, status):
    assert run_here(*words) == status


def command_line(pick):
    """A command, arguments of any command behind it, some of them mutated."""
    words = [pick.choice(WORDS), *pick.choices(ARGUMENTS, k=pick.randrange(7))]
    for number, word in enumerate(words):
        if pick.random() < 0.1:
            changed = mutation.mutated(pick, os.fsencode(word), [b"=", b"-", b"9", b"@", b"%", b"\xff", b" ", b"\n"])
            words[number] = os.fsdecode(changed.replace(b"\0", b"").replace(b"/", b""))
    return words


def test_command_lines(place, run_fastgrey):
    statuses = {}
    for case in range(times(200)):
        pick = random.Random(f"command {case}")
        words = command_line(pick)
        try:
            status = run_here(*words)
        except Ended as error:
            pytest.fail(f"{case}: {error}")
        statuses[status] = statuses.get(status, 0) + 1
        if case % 50 == 0:
            done = run_fastgrey(*words, cwd=place, stdin=subprocess.DEVNULL)
            judged(done.returncode, done.stderr, words)
    assert statuses.keys() >= {0, 1, 2}
    tried("fuzz, command lines", cases=times(200), accepted=statuses[0], tracebacks=0)
