"""Lines of the server's log: JSON with the facts of the text line, and the priorities of systemd's journal."""

import json
import os
import subprocess
import sys

import pytest

from fastgrey import directory
from fastgrey.serve import log
from fastgrey.verdict import Verdict

NEW = Verdict("defer", "new", 300, None, "0752f3077a02", None)


def line(*arguments, **options):
    said = log.decision(*arguments, **options)
    assert said.endswith(b"\n")
    assert said.count(b"\n") == 1
    return json.loads(said)


def test_decision():
    assert line(b"192.0.2.7", b"a@example.org", b"b@example.net", NEW, now=1_800_000_000.25) == {
        "time": "2027-01-15T08:00:00.250Z", "level": "info", "event": "decision", "action": "defer", "reason": "new",
        "client": "192.0.2.7", "sender": "a@example.org", "recipient": "b@example.net", "wait": 300,
        "key": "0752f3077a02"}


def test_same_facts_as_the_line_of_the_hook(make_store, run_hook):
    """Under the same names."""
    path = make_store()
    said = run_hook().line
    with directory.open_store(path) as store:
        verdict = store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net", dry_run=True)
    facts = line(b"192.0.2.1", b"a@example.org", b"b@example.net", verdict)
    words = dict(word.split("=") for word in said.split() if "=" in word)
    assert set(words) == set(facts) - {"time", "level", "event", "action", "reason"}
    assert words["key"] == facts["key"]


def test_what_is_not_there_is_left_out():
    facts = line(b"192.0.2.7", b"", b"b@example.net", Verdict("accept", "known-client", 0, None, "00", None))
    # The null sender is one.
    assert facts["sender"] == ""
    assert not {"wait", "cause", "rule", "notes"} & set(facts)


def test_a_deferral_without_wait():
    facts = line(b"x", b"a@example.org", b"b@example.net", Verdict("defer", "error", 0, "what; do that", None, None))
    assert (facts["wait"], facts["cause"], facts["level"]) == (0, "what; do that", "warning")


def test_notes():
    facts = line(b"192.0.2.7", b"a", b"b", NEW, ("not recorded",))
    assert (facts["notes"], facts["level"]) == (["not recorded"], "warning")


@pytest.mark.parametrize("byte", [b"\xff", b"\0", b"\x1b", b'"', b"\\", b"\n", "é".encode(), b"a"])
def test_what_mail_brings_stays_one_short_line(byte):
    address = byte * 1000
    said = log.decision(address, address, address, NEW._replace(cause="x" * 300, rule="/etc/f:1"), ("n" * 100,))
    facts = json.loads(said)
    assert len(log.prefixed("error", said)) <= 4096
    assert said.isascii() or byte == "é".encode()
    assert facts["sender"].startswith(byte.decode("utf-8", "backslashreplace"))
    assert facts["sender"].endswith("...")
    # No control character as it is, whatever shows the log.
    assert not [sign for sign in said[:-1] if sign < 32]


def test_events():
    assert json.loads(log.event("error", "engine", "the engine is away", True, now=1_800_000_000)) == {
        "time": "2027-01-15T08:00:00.000Z", "level": "error", "event": "engine", "message": "the engine is away"}
    assert log.event("error", "engine", "the engine is away", False) == b"fastgrey: the engine is away\n"


def test_priorities():
    assert log.prefixed("error", b"x\n") == b"<3>x\n"
    assert log.prefixed("warning", b"x\n") == b"<4>x\n"
    assert log.prefixed("info", b"x\n") == b"<6>x\n"
    assert log.level_of(NEW) == "info"


ASK = "from fastgrey.serve import log; print(log.into_journal())"


@pytest.mark.parametrize(("stream", "into"), [("its own", "True\n"), ("1:2", "False\n"), ("", "False\n"), (None, "False\n")])
def test_into_the_journal_or_not(tmp_path, stream, into):
    """As systemd.exec(5) tells: device and inode of the stream. What was redirected since is none."""
    with open(tmp_path / "stream", "w") as file:
        status = os.fstat(file.fileno())
        environment = {"PATH": os.environ["PATH"]}
        if stream is not None:
            environment["JOURNAL_STREAM"] = stream.replace("its own", f"{status.st_dev}:{status.st_ino}")
        done = subprocess.run([sys.executable, "-c", ASK], stderr=file, stdout=subprocess.PIPE, text=True,
                              env=environment, timeout=60)
        closed = subprocess.run([sys.executable, "-c", "import os; os.close(2)\n" + ASK], stdout=subprocess.PIPE,
                                text=True, env=environment, timeout=60)
    assert (done.stdout, closed.stdout) == (into, "False\n")
