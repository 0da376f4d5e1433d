"""What the log says, whoever writes it, and whatever the envelope holds."""

import re
import subprocess

import pytest

from machine import NOBODY, needs_root, tool
from tcpserver import GROUP, wait_until

DEFERRAL = "fastgrey: defer new wait=300 client=127.0.0.1"


@pytest.fixture
def store(make_store, store_group):
    """A store for the sessions."""
    return make_store("pool_hops=0", group=store_group)


@needs_root
def test_the_checker_is_the_session_s_user(serve, checker):
    """One user, one group, no others: tcpserver gave all else up."""
    server = serve(CHECKENV=checker('echo "$(id -ru) $(id -u) $(id -rg) $(id -g) $(id -G)" >&2'))
    assert server.session().mail("a@example.org", "b@example.net") == ["250"]
    assert server.log() == [f"{NOBODY} {NOBODY} {GROUP} {GROUP} {GROUP}"]


def test_the_hook_s_line_reaches_standard_error(store, serve):
    server = serve()
    assert server.session().mail("a@example.org", "b@example.net") == ["451"]
    (line,) = server.log()
    assert line.startswith(f"{DEFERRAL} sender=a@example.org recipient=b@example.net key=")


def test_the_hook_s_line_reaches_multilog(store, serve, tmp_path):
    place = tmp_path / "main"
    multilog = subprocess.Popen([tool("multilog"), "t", place], stdin=subprocess.PIPE)
    server = serve(stderr=multilog.stdin)
    multilog.stdin.close()
    with server.session() as client:
        assert client.mail("a@example.org", "b@example.net", "c@example.net") == ["451", "451"]
    current = place / "current"
    assert wait_until(lambda: current.exists() and current.read_text().count("\n") == 2)
    for line, recipient in zip(current.read_text().splitlines(), "bc", strict=True):
        stamp, rest = line.split(" ", 1)
        assert stamp.startswith("@4000") and len(stamp) == 25
        assert rest.startswith(f"{DEFERRAL} sender=a@example.org recipient={recipient}@example.net key=")
    assert server.end() == []
    assert multilog.wait(60) == 0


HOSTILE = {
    "control bytes": bytes([*range(1, 10), *range(11, 13), *range(14, 32), 127]) + b"@example.org",
    "carriage return": b"a\rfastgrey: accept relay client=192.0.2.1@example.org",
    "a reply": b"a\r250 ok\r451 no@example.org",
    "NUL": b"a\0fastgrey: accept relay@example.org",
    "escapes": b"\x1b[2J\x1b]0;title\x07\x9b31m@example.org",
    "format": b"%s%n%x%100000d%%@example.org",
    "not ASCII": "ä\u2028\u0085fastgrey: accept@example.org".encode() + b"\xff\xfe",
    "spaces": b"a  client=192.0.2.1 sender=b key=0@example.org",
    "quotes": b'"a\\"b\'`id`$(id);|&<@example.org',
    "an option": b"--version",
    "long": b"x" * 890,
    "long and to be escaped": b"\x01" * 890,
}
CHECKER = {"the hook": "", "none": "/no/such/checker"}
DEFERRED = {
    "the hook": "451 4.7.1 greylisted, please try again later",
    "none": "451 4.3.0 sorry, this recipient could not be checked, please try again later",
}
ENVELOPE = r"client=127\.0\.0\.1 sender=[!-~]* recipient=[!-~]*"
FORM = {
    "the hook": re.compile(rf"fastgrey: (defer (new|early) wait=\d+|accept error) {ENVELOPE}"
                           r"( key=[0-9a-f]{12}|: [ -~]+; [ -~]+)"),
    "none": re.compile(rf"checkenv: defer error {ENVELOPE}: /no/such/checker cannot be run: [ -~]+; [ -~]+"),
}


@pytest.mark.parametrize("who", CHECKER)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_envelopes_forge_nothing(store, serve, careful_smtpd, kind, who):
    """One reply a command and one line a check, all of printable characters and of the form they always have."""
    hostile = HOSTILE[kind]
    server = serve(careful_smtpd, CHECKENV=CHECKER[who], CHECKENV_ON_ERROR="defer")
    client = server.session()
    commands = [b"MAIL FROM:<%s>" % hostile, b"RCPT TO:<b@example.net>", b"RCPT TO:<%s>" % hostile,
                b"MAIL FROM:<a@example.org>", b"RCPT TO:<%s>" % hostile, b"NOOP", b"QUIT"]
    replies = client.say(*commands)
    assert client.reply() == ""
    # What cannot be an address gets the hook's own on_error.
    checked = "250 ok" if b"\r" in hostile and not CHECKER[who] else DEFERRED[who]
    assert replies == ["250 ok", checked, checked, "250 ok", checked, "250 ok", "221 mx.example"]
    lines = server.log()
    assert len(lines) == 3, lines
    for line in lines:
        assert FORM[who].fullmatch(line), line
        assert len(line) < 4096


@pytest.mark.parametrize("words", [
    ("--version", "x"), ("--help", "x"), ("--hook", "spp"), ("--hook", "rcptcheck"), ("--", "-")])
def test_addresses_that_look_like_options_are_addresses(store, serve, words):
    """What a client sends cannot make the hook another program."""
    server = serve()
    assert server.session().mail(*words) == ["451"]
    (line,) = server.log()
    assert line.startswith(f"{DEFERRAL} sender={words[0]} recipient={words[1]} key=")
