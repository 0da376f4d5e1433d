"""A hostile envelope forges nothing: no log line, no sequence for a terminal, no path."""

import re
import string
import subprocess
from pathlib import Path

import pytest

from conftest import BIN

# Of every kind that a terminal, a log or a reader can be led astray by: C0, DEL, C1 as bytes and as UTF-8, marks that
# turn the direction of writing, separators of lines, what is no UTF-8.
HOSTILE = [b"\x1b]0;owned\x07", b"\x1b[2J", b"\x9b31m", b"\xc2\x9b31m", b"\x7f", b"\x08\x08", b"\t", b"\xe2\x80\xae",
           b"\xe2\x81\xa6", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b\x0c", b"\xff\xfe", b"\\x41",
           b" accept relay", b"../../etc",
           b"%n%s", b"$(id)", b"`id`", b"' ; id"]
SHOWN = set((string.ascii_letters + string.digits + string.punctuation + " ").encode())


@pytest.mark.parametrize("text", HOSTILE)
def test_log_line(make_store, run_hook, text):
    """One line, printable ASCII, with as many words as any other."""
    make_store("trust_client_name=true")
    plain = run_hook(sender=b"a@example.org", env={"TCPREMOTEHOST": "a.b.example"}).line
    line = run_hook(sender=b"a" + text + b"@example.org", recipient=b"b" + text + b"@example.net",
                    env={b"TCPREMOTEHOST": b"a" + text + b".b.example"}).line
    assert line.endswith("\n") and line.count("\n") == 1
    assert set(line[:-1].encode()) <= SHOWN
    assert [word.partition("=")[0] for word in line.split()] == [word.partition("=")[0] for word in plain.split()]


def commands(sender, recipient, name):
    envelope = ["192.0.2.1", sender, recipient]
    yield ["check", *envelope, "--name", name]
    yield ["check", *envelope, "--json"]
    yield ["explain", *envelope, "--name", name]
    yield ["explain", *envelope, "--json"]
    yield ["pass", *envelope]
    yield ["forget", *envelope]
    yield ["expect", recipient, "--from", sender, "--for", "5m"]
    yield ["explain", sender, recipient, recipient]
    yield ["show", sender]
    yield ["list", sender]
    yield ["init", "--set", f"delay={sender}"]
    yield ["stats", "--store", sender]
    yield ["doctor", "--store", sender]
    yield ["doctor", "--hook", sender]
    yield ["doctor", "--user", sender]
    yield ["compact", sender]
    yield ["backup", f"{sender}/x"]
    yield ["restore", sender]
    yield ["replay", sender]
    yield ["config", "check", "--config", sender]


def quiet(text):
    """Whether a terminal takes it for nothing but text: what is not printable (Unicode) is only the end of a line."""
    return all(sign.isprintable() or sign == "\n" for sign in text)


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07\x9b31m\x7f", "\u202e\u2066\u2028\x85"],
                         ids=["controls", "directions"])
def test_what_commands_say(make_store, run_fastgrey, run_hook, text):
    """Of what they are given and what is stored: to a person, and as JSON."""
    make_store()
    for words in commands(f"a{text}@example.org", f"b{text}@example.net", f"h{text}.host.example"):
        done = run_fastgrey(*words)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert quiet(done.stdout), (words, done.stdout)
        assert quiet(done.stderr), (words, done.stderr)


def test_what_stands_in_files(make_store, run_fastgrey, config, path, tmp_path):
    """Rules, names of files in the store, envelopes for replay, the status of a compaction."""
    text = "\x1b]0;owned\x07\u202e"
    make_store()
    rules = f'deny_senders = ["a{text}@example.org"]\nallow_clients = [{{ file = "list{text}" }}]\n'
    config(rules.replace("\x1b", "\\u001b").replace("\x07", "\\u0007"), **{f"list{text}": "203.0.113.0/24\n"})
    envelopes = tmp_path / "envelopes.tsv"
    envelopes.write_text("time\tclient_ip\tclient_name\tsender\trecipient\tlabel\n"
                         f"1\t192.0.2.1\t\ta{text}@example.org\tb@example.net\t\nx{text}\t1\t2\t3\t4\t5\n")
    (path / f"pending.{text}").mkdir()
    (path / "compaction.status").write_text(f'{{"result": "failed", "began": 1, "why": "a\\u001b]0;x\\u0007"}}')
    for words in (["config", "check"], ["config", "show"], ["apply", "--dry-run"], ["apply"], ["stats"],
                  ["stats", "--json"],                   ["check", "192.0.2.1", f"a{text}@example.org", "b@example.net"],
                  ["explain", "192.0.2.1", f"a{text}@example.org", "b@example.net"],
                  ["doctor"], ["verify"], ["compact", "--dry-run"], ["replay", str(envelopes)], ["compact"],
                  ["stats", "--prometheus"]):
        done = run_fastgrey(*words)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert quiet(done.stdout), (words, done.stdout)
        assert quiet(done.stderr), (words, done.stderr)


ONCALL = Path(__file__).resolve().parents[2] / "docs" / "oncall.md"


@pytest.mark.parametrize("address", ["key=deadbeef0000@example.org", "key=deadbeef0000", "x key=deadbeef0000@example.org"])
def test_key_that_the_manual_takes_from_a_line(make_store, run_hook, run_fastgrey, tmp_path, address):
    """An address may read like another field of the line: the command of docs/oncall.md does not take it for one."""
    make_store()
    line = run_hook(sender=address, recipient=address).line
    (tmp_path / "log").write_text(line)
    (taking,) = re.findall(r"fastgrey show \$\((.+)\)$", ONCALL.read_text(), re.MULTILINE)
    found = subprocess.run(["sh", "-c", taking], cwd=tmp_path, capture_output=True, text=True).stdout.split()
    assert found == [line.rpartition(" key=")[2].split()[0]]
    assert run_fastgrey("show", *found).stdout.startswith("pending triplet ")


@pytest.mark.parametrize("address", ["--store=/nowhere", "--help", "-x@example.org", "$(id)@example.org", "a'b@example.org",
                                     "a;id@example.org", "~root@example.org", "!!@example.org"])
def test_commands_to_paste(make_store, run_hook, run_fastgrey, path, address):
    """What explain says to type does what it says, whatever the sender calls itself."""
    make_store()
    run_hook(sender=address, recipient=address)
    said = run_fastgrey("explain", "--", "192.0.2.1", address, address).stdout
    commands_ = re.findall("to let it pass now: (.+)", said)
    assert len(commands_) == 2
    for command in commands_:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True,
                              env={"PATH": f"{BIN}:/usr/bin:/bin", "FASTGREY_STORE": str(path), "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0 and done.stdout.startswith(("made known: ", "open: ")), (command, done)
    assert run_hook(sender=address, recipient=address).words[0] == "accept"
