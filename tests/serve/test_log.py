"""The server's log: text or JSON with the same facts, and the priorities of systemd's journal."""

import json
import os
import signal
import signal
import subprocess
import sys

import pytest

from fastgrey.serve import log_lines
from serving import policy, until

CLIENT = "192.0.2.1"


def decisions(server, number):
    """The JSON lines of decisions, once there are so many; every line of the log is one object."""
    until(lambda: len(server.said('"decision"')) >= number, "the lines")
    lines = [json.loads(line) for line in server.log().splitlines()]
    return [line for line in lines if line["event"] == "decision"]


def words(line):
    """The facts of a line of text by their names."""
    verdict, *rest = line.removeprefix("fastgrey: ").split(" client=")
    action, reason, *wait = verdict.split()
    facts = {"action": action, "reason": reason} | dict(word.split("=", 1) for word in wait)
    return facts | dict(word.split("=", 1) for word in f"client={rest[0]}".split(" "))


def test_same_facts_as_text(serve, config, run_fastgrey, make_store):
    """Of deferrals, acceptances and a rejection by a rule, under the same names."""
    make_store()
    config('deny_senders = ["bad@example.org"]\nopt_out = ["b@example.net"]\n')
    assert run_fastgrey("apply").returncode == 0
    asked = [{"sender": "bad@example.org"}, {"recipient": "c@example.net"}, {"sender": ""}, {"sender": 'a"\\b@x.org'},
             {"sender": "é@example.org", "recipient": "c@example.net"}]
    told = {}
    for log in ("text", "json"):
        server = serve(config=f'log = "{log}"')
        for request in asked:
            server.ask(policy(**request))
        until(lambda server=server: len(server.said("client=" if log == "text" else '"decision"')) == len(asked), "lines")
        told[log] = server
        server.stop()
    text = sorted((words(line) for line in told["text"].said("client=")), key=str)
    found = sorted(({name: str(value) for name, value in line.items() if name not in ("time", "level", "event")}
                    for line in decisions(told["json"], len(asked))), key=str)
    # The second server finds waiting what the first one saw.
    for line in [*text, *found]:
        line["reason"] = line["reason"].replace("early", "new")
        line.pop("wait", None)
    assert sorted(found, key=lambda line: line["sender"]) == sorted(text, key=lambda line: line["sender"])
    assert {line["reason"] for line in found} == {"denied", "new", "opted-out"}


def test_fields(serve):
    server = serve(config='log = "json"')
    server.ask(policy())
    (line,) = decisions(server, 1)
    assert list(line) == ["time", "level", "event", "action", "reason", "wait", "client", "sender", "recipient", "key"]
    assert (line["level"], line["action"], line["wait"]) == ("info", "defer", 300)
    assert line["time"][10] == "T" and line["time"].endswith("Z") and len(line["time"]) == 24


def test_a_decision_that_fails(serve):
    server = serve(config='log = "json"')
    server.ask(policy(client="nonsense"))
    (line,) = decisions(server, 1)
    assert (line["level"], line["reason"], "wait" in line) == ("warning", "error", False)
    assert line["cause"].startswith("client address is not an IP address") or "address" in line["cause"]


@pytest.mark.parametrize("byte", ['"', "\\", "\x01", "\x7f", "é", "a"])
def test_what_mail_brings_stays_one_whole_line(serve, byte):
    """However long: it is cut, and is JSON still."""
    server = serve(config='log = "json"')
    server.ask(policy(sender=byte * 450, recipient=byte * 450, client=byte * 450))
    (line,) = decisions(server, 1)
    (raw,) = server.said('"decision"')
    assert raw.isascii() and raw.isprintable()
    assert len(raw) < 4096
    assert line["sender"].endswith("...")
    assert len(line["sender"]) > 100


def test_events_of_the_server(serve):
    """Master, workers and core say what befalls them as JSON too."""
    server = serve(config='log = "json"')
    server.client().send(b"GARBAGE\n")
    until(lambda: server.said('"broken"'), "the line")
    server.configure("nonsense = 1")
    server.signal(signal.SIGHUP)
    until(lambda: server.said("not reloaded"), "the line")
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [
        ("info", "server"), ("warning", "broken"), ("warning", "server")]
    assert lines[0]["message"].startswith("serving ")
    assert "connection closed: " in lines[1]["message"]


def test_whoever_else_has_something_to_say_says_it_as_json(serve, path):
    """The keeper of an engine that is away, and the scribes of a store that is."""
    server = serve(config='log = "json"\nengine = "valkey://127.0.0.1:1/0"')
    until(lambda: server.said("what was earned without the engine waits"), "the keeper's line")
    server.stop()
    assert all(json.loads(line)["event"] == "server" for line in server.log().splitlines())
    server = serve(config='log = "json"')
    os.rename(path / "current", path / "elsewhere")
    for _, scribes in server.processes().items():
        for pid in scribes:
            os.kill(pid, signal.SIGKILL)
    until(lambda: server.said("there is no store"), "the line of a scribe that cannot begin")
    os.rename(path / "elsewhere", path / "current")
    server.stop()
    assert all(json.loads(line)["event"] == "server" for line in server.log().splitlines())


def test_into_the_journal(make_store, path, tmp_path):
    """A line has its priority before it where standard error is the stream that JOURNAL_STREAM names."""
    make_store()
    log = tmp_path / "journal"
    (tmp_path / "serve.toml").write_text("[serve]\nworkers = 1\n")
    with open(log, "wb") as stream:
        status = os.fstat(stream.fileno())
        process = subprocess.Popen(
            [os.path.join(os.path.dirname(sys.executable), "fastgrey"), "serve", "--store", path, "--config",
             tmp_path / "serve.toml"], stderr=stream, stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    try:
        until(lambda: b"serving" in log.read_bytes(), "it serves")
        from serving import Client

        one = Client(os.path.relpath(path / "serve.sock"))
        one.ask(policy())
        one.ask(policy(client="nonsense"))
        one.close()
        until(lambda: log.read_bytes().count(b"client=") == 2, "the lines")
    finally:
        process.terminate()
        process.wait(60)
    assert [line[:13] for line in log.read_text().splitlines()[:3]] == ["<6>fastgrey: ", "<6>fastgrey: ", "<4>fastgrey: "]


@pytest.mark.parametrize(("stream", "into"), [("its own", True), ("1:2", False), ("", False), (None, False)])
def test_into_the_journal_or_not(tmp_path, stream, into):
    """As systemd.exec(5) tells: device and inode of the stream. What was redirected since is none."""
    with open(tmp_path / "stream", "w") as file:
        status = os.fstat(file.fileno())
        environment = {"PATH": os.environ["PATH"]}
        if stream is not None:
            environment["JOURNAL_STREAM"] = stream.replace("its own", f"{status.st_dev}:{status.st_ino}")
        done = subprocess.run([sys.executable, "-c", "from fastgrey.serve import log_lines; print(log_lines.form('text'))"],
                              stderr=file, stdout=subprocess.PIPE, text=True, env=environment, timeout=60)
    assert done.stdout == f"{log_lines.LOG_PRIORITY if into else 0}\n"


@pytest.mark.parametrize("form", [0, 1, 2, 3])
def test_own_lines_are_bounded(form):
    for text in ("x" * 100_000, "\1" * 100_000, "\udce9" * 5000):
        line = log_lines.event("warning", text.encode("utf-8", "backslashreplace").decode(), form)
        assert len(line) < 4096
        assert line.startswith(b"<4>") == bool(form & log_lines.LOG_PRIORITY)
        if form & log_lines.LOG_JSON:
            assert json.loads(line.removeprefix(b"<4>"))["level"] == "warning"
