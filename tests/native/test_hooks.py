"""The manners of each hook: one verdict, said in the terms of whoever runs the program (docs/hooks.md)."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import aging
import fastgrey
from calling import call
from conftest import HOOK, full_pipe, nothing_said_into, write_lock_held
from fastgrey import hooks
from fastgrey.shipped import CHECKOUT
from raw_exec import raw_exec

HOOKS = list(hooks.HOOKS)
FRIEND, STRANGER, SPAMMER = "friend@example.org", "new@example.com", "spam@example.org"
RULES = f'on_error = "defer"\nallow_senders = ["{FRIEND}"]\ndeny_senders = ["{SPAMMER}"]\n'
DEFER_TEXT, REJECT_TEXT = b"greylisted, please try again later", b"sorry, your mail is not wanted here"
DEFERRED = b"E451 4.7.1 " + DEFER_TEXT + b"\n"
REJECTED = b"E553 5.7.1 " + REJECT_TEXT + b"\n"


@pytest.fixture
def store(make_store, config, run_fastgrey):
    """With an allowed and a denied sender, and errors that defer."""
    made = make_store()
    config(RULES)
    assert run_fastgrey("apply").returncode == 0
    return made


@pytest.fixture
def ask(store, ask_plain):
    """As ask_plain, on the store with rules."""
    return ask_plain


@pytest.fixture
def ask_plain(run_hook):
    """Run the executable as a hook; more variables by env, otherwise as run_hook."""

    def run(hook, sender=STRANGER, recipient="b@example.net", client="192.0.2.1", env=None, **options):
        called = call(hook, sender, recipient, client)
        options.setdefault("name", f"fastgrey-{hook}")
        return run_hook(client=client, argv=called["argv"], env=called["env"] | (env or {}), **options)

    return run


@pytest.mark.parametrize(("hook", "sender", "status", "said", "note"), [
    ("checkenv", FRIEND, 0, b"", None),
    ("checkenv", STRANGER, 111, b"", None),
    ("checkenv", SPAMMER, 100, b"", None),
    ("envelope-scanner", FRIEND, 0, b"", None),
    ("envelope-scanner", STRANGER, 101, b"", None),
    ("envelope-scanner", SPAMMER, 100, b"", None),
    ("rcptcheck", FRIEND, 0, b"", None),
    ("rcptcheck", STRANGER, 0, b"", "accepted all the same: this hook cannot defer"),
    ("rcptcheck", SPAMMER, 100, b"", None),
    ("spp", FRIEND, 0, b"", None),
    ("spp", STRANGER, 0, DEFERRED, None),
    ("spp", SPAMMER, 0, REJECTED, None),
    ("postgrey", FRIEND, 0, b"", None),
    ("postgrey", STRANGER, 10, b"", None),
    ("postgrey", SPAMMER, 10, b"", "deferred only: this hook cannot reject"),
])
def test_verdict_in_the_terms_of_the_hook(ask, hook, sender, status, said, note):
    result = ask(hook, sender, says=said)
    verdict = {FRIEND: ["accept", "allowed"], STRANGER: ["defer", "new"], SPAMMER: ["reject", "denied"]}[sender]
    assert (result.status, result.words) == (status, verdict)
    assert result.line.endswith(f"; {note}\n") if note else "; " not in result.line
    if sender == STRANGER:
        assert ask(hook, sender, says=said).words == ["defer", "early"], "recorded all the same"


@pytest.mark.parametrize(("hook", "status", "said"), [
    ("checkenv", 111, b""), ("envelope-scanner", 101, b""), ("rcptcheck", 0, b""), ("spp", 0, DEFERRED),
    ("postgrey", 10, b""),
])
def test_error_in_the_terms_of_the_hook(ask, run_fastgrey, config, hook, status, said):
    result = ask(hook, client="nonsense", says=said)
    assert (result.status, result.words) == (status, ["defer", "error"])
    assert "no IP address" in result.line
    config(RULES.replace("defer", "accept"))
    assert run_fastgrey("apply").returncode == 0
    result = ask(hook, client="nonsense")
    assert (result.status, result.words) == (0, ["accept", "error"])


@pytest.mark.parametrize("hook", HOOKS)
def test_relay_client(ask, store, hook):
    result = ask(hook, SPAMMER, env={"RELAYCLIENT": ""})
    assert result.status == 0
    # qmail-spp runs plugins for relay clients too, and for every recipient of their mail.
    assert result.words == ([] if hook == "spp" else ["accept", "relay"])


@pytest.mark.parametrize(("hook", "argv", "words"), [
    ("envelope-scanner", [], "wants exactly two arguments"),
    ("envelope-scanner", ["a", "b", "c"], "wants exactly two arguments"),
    ("rcptcheck", ["a", "b"], "are not in the environment"),
    ("spp", ["a", "b"], "are not in the environment"),
    ("postgrey", ["1.2.3.4", "a", "b"], "wants as arguments SERVER, "),
    ("postgrey", ["1.2.3.4", "a", "b", "192.0.2.1", "unknown", "x"], "wants as arguments SERVER, "),
])
def test_bad_usage(store, run_hook, hook, argv, words):
    said = DEFERRED if hook == "spp" else b""
    result = run_hook(argv=argv, name=f"qmail-{hook}", says=said)
    status = {"envelope-scanner": 101, "rcptcheck": 0, "spp": 0, "postgrey": 10}[hook]
    assert (result.status, result.words) == (status, ["defer", "error"])
    assert words in result.line
    assert result.line.count("\n") == 1


@pytest.mark.parametrize("missing", ["SENDER", "RECIPIENT"])
def test_half_an_envelope_in_the_environment(store, run_hook, missing):
    variables = call("rcptcheck")["env"]
    del variables[missing]
    assert "are not in the environment" in run_hook(argv=[], env=variables, name="rcptcheck").line


@pytest.mark.parametrize(("hook", "status"), [
    ("checkenv", 111), ("envelope-scanner", 101), ("rcptcheck", 0), ("spp", 0), ("postgrey", 10),
])
def test_gigantic_environment(ask, hook, status):
    """As much as the kernel passes on: 128 KiB for each string."""
    longest = "x" * 131_000
    env = {f"V{number}": longest for number in range(8)} | {"TCPREMOTEHOST": longest, "PROTO": longest}
    said = DEFERRED if hook == "spp" else b""
    assert ask(hook, env=env, says=said).words == ["defer", "new"]
    for sender, client in ((longest, "192.0.2.1"), ("a@example.org", longest)):
        result = ask(hook, sender, client=client, env=env, says=said)
        assert (result.status, result.words) == (status, ["defer", "error"])
        assert len(result.line) <= 4096
        assert result.line.count("\n") == 1
        assert "x..." in result.line


@pytest.mark.parametrize("hook", HOOKS)
def test_envelope_that_is_no_text(ask, hook):
    """Nothing of it may end the log line, begin a field there, or reach what is said."""
    sender = os.fsdecode(b"\xff\x01\x1b[2J a=b\\@\xc3.example")
    for words in (["defer", "new"], ["defer", "early"]):
        result = ask(hook, sender, "\u00e9@example.net", says=DEFERRED if hook == "spp" else b"")
        assert result.words == words
        assert r" sender=\xff\x01\x1b[2J\x20a=b\x5c@\xc3.example recipient=\xc3\xa9@example.net " in result.line
        assert result.line.count("\n") == 1


# Which hook it is.

@pytest.mark.parametrize("name", [
    "{}", "qmail-{}", "fastgrey-{}", "/var/qmail/bin/qmail-{}", "./{}", "a/b/../fastgrey-{}",
])
@pytest.mark.parametrize(("hook", "status"), [
    ("checkenv", 111), ("envelope-scanner", 101), ("rcptcheck", 0), ("spp", 0), ("postgrey", 10),
])
def test_name_of_the_program_chooses(ask, name, hook, status):
    result = ask(hook, name=name.format(hook), says=DEFERRED if hook == "spp" else b"")
    assert (result.status, result.words) == (status, ["defer", "new"])


@pytest.mark.parametrize("program", ["qmail-checkenv", "fastgrey-spp", "anything", ""])
@pytest.mark.parametrize(("hook", "status"), [
    ("checkenv", 111), ("envelope-scanner", 101), ("rcptcheck", 0), ("spp", 0), ("postgrey", 10),
])
def test_option_goes_before_the_name(store, run_hook, program, hook, status):
    called = call(hook)
    result = run_hook(argv=["--hook", hook, *called["argv"]], env=called["env"], name=program,
                      says=DEFERRED if hook == "spp" else b"")
    assert (result.status, result.words) == (status, ["defer", "new"])


@pytest.mark.parametrize("name", [
    "qmail-nosuch", "", "/", "qmail-", "fastgrey-qmail-spp", "SPP", "checkenv ", "x" * 5000,
])
def test_wrong_name_says_which_there_are(store, run_hook, name):
    result = run_hook(name=name)
    assert (result.status, result.words) == (111, ["defer", "error"])
    shown = name.rpartition("/")[2].replace(" ", r"\x20")[:400]
    assert f": there is no hook named {shown}" in result.line
    for hook in HOOKS:
        assert hook in result.line.partition("no hook named")[2]
    assert result.line.count("\n") == 1
    assert " sender=a@example.org recipient=b@example.net" in result.line


def test_one_list_of_hooks(store, run_hook):
    """The same hooks in the command line, in the executable's error and help, and in docs/hooks.md."""
    named = run_hook(name="nosuch").line.split("call it ")[1].split(", alone")[0]
    assert named.replace(" or ", ", ").split(", ") == HOOKS
    said = subprocess.run([HOOK, "--help"], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^([a-z-]+) {2,}([a-z-]+)\b.* \d+ +\d+ +\d+$", said, re.M)
    assert rows == [(hook.name, hook.installed) for hook in hooks.HOOKS.values()]
    table = re.findall(r"^\| `(\S+)` \| `(\S+)` \|", (CHECKOUT / "docs" / "hooks.md").read_text(), re.M)
    assert table == rows


@pytest.mark.parametrize("argv", [["--hook"], ["--hook", "nosuch", "a", "b"], ["--hook", "qmail-spp", "a"]])
def test_wrong_name_by_option(store, run_hook, argv):
    result = run_hook(argv=argv)
    assert (result.status, result.words) == (111, ["defer", "error"])
    assert "there is no hook named" in result.line


def test_wrong_name_by_option_alone(store, run_hook):
    """For a person who tries it, without a client."""
    assert "there is no hook named nosuch;" in run_hook(argv=["--hook", "nosuch"], client=None).line
    assert "there is no hook named nosuch;" in run_hook(argv=["--hook", "nosuch"], name="fastgrey-spp").line
    assert "are not in the environment" in run_hook(argv=["--hook", "spp"], client=None, says=DEFERRED).line


@pytest.mark.parametrize("recipient", ["nosuch", "", "checkenv", "spp", "rcptcheck", "postgrey", "b@example.net"])
@pytest.mark.parametrize(("hook", "status"), [("checkenv", 111), ("envelope-scanner", 101)])
def test_sender_that_looks_like_the_option(store, run_hook, recipient, hook, status):
    """A client that calls itself --hook must not choose how it is judged."""
    for words in (["defer", "new"], ["defer", "early"]):
        result = run_hook(argv=["--hook", recipient], name=f"qmail-{hook}")
        assert (result.status, result.words) == (status, words)
        assert f" sender=--hook recipient={recipient} " in result.line


@pytest.mark.parametrize("sender", ["--version", "--help", "-"])
def test_senders_that_look_like_other_options(store, run_hook, sender):
    assert run_hook(sender=sender).words == ["defer", "new"]


def test_empty_argument_vector(store, path):
    """Since 5.18 the kernel puts an empty string there; before, there is nothing."""
    done = raw_exec(HOOK, [], [f"FASTGREY_STORE={path}"])
    assert (done.returncode, done.stdout) == (111, b"")
    assert b"there is no hook named" in done.stderr


def test_help_names_every_hook():
    done = subprocess.run([HOOK, "--help"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for hook in HOOKS:
        assert re.search(rf"^{hook} ", done.stdout, re.M)
    for variable in ("FASTGREY_STORE", "FASTGREY_DEFER_TEXT", "FASTGREY_REJECT_TEXT", "FASTGREY_TRACE",
                     "FASTGREY_RCPTCHECK", "RELAYCLIENT", "TCPREMOTEHOST"):
        assert variable in done.stdout
    assert done.stdout.endswith("\n")
    assert max(map(len, done.stdout.splitlines())) <= 112


# RCPTCHECK.

def run_rcptcheck(path, sender, env=None, four="pipe", close_two=False):
    """Run it with descriptor 4 a pipe, closed, gone (a pipe without reader), a file, or the reading end; status, what
    came, the line."""
    reader, writer = os.pipe()
    extra = None
    if four == "gone":
        os.close(reader)
    elif four == "file":
        extra = os.open(path.parent / "four", os.O_RDWR | os.O_CREAT)
    elif four == "reading":
        extra = os.dup(reader)

    def arrange():
        if four == "closed":
            with contextlib.suppress(OSError):
                os.close(4)
        else:
            os.dup2(writer if extra is None else extra, 4)
        if close_two:
            os.close(2)

    variables = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1", "SENDER": sender,
                 "RECIPIENT": "b@example.net", "USE_FD4": "1"} | (env or {})
    done = subprocess.run(["rcptcheck"], executable=HOOK, preexec_fn=arrange, close_fds=False, capture_output=True,
                          timeout=60, env={name: value for name, value in variables.items() if value is not None})
    os.close(writer)
    came = b""
    if four != "gone":
        came = os.read(reader, 9999)
        os.close(reader)
    if extra is not None:
        os.close(extra)
    assert done.stdout == b""
    return SimpleNamespace(status=done.returncode, came=came, line=done.stderr.decode())


def test_reply_on_descriptor_4(store, path):
    deferred = run_rcptcheck(path, STRANGER)
    assert (deferred.status, deferred.came) == (100, b"450 4.7.1 " + DEFER_TEXT + b"\n")
    assert "cannot" not in deferred.line
    rejected = run_rcptcheck(path, SPAMMER)
    assert (rejected.status, rejected.came) == (100, b"553 5.7.1 " + REJECT_TEXT + b"\n")
    # Text beside an exit status that accepts would be taken for a refusal in the log of qmail-smtpd.
    accepted = run_rcptcheck(path, FRIEND)
    assert (accepted.status, accepted.came) == (0, b"")
    relayed = run_rcptcheck(path, SPAMMER, {"RELAYCLIENT": ""})
    assert (relayed.status, relayed.came) == (0, b"")
    fault = run_rcptcheck(path, STRANGER, {"TCPREMOTEIP": "nonsense"})
    assert (fault.status, fault.came[:4]) == (100, b"450 ")


def test_nothing_is_said_to_who_did_not_ask_for_it(store, path):
    """Without USE_FD4, descriptor 4 is somebody else's, be it a pipe."""
    result = run_rcptcheck(path, STRANGER, {"USE_FD4": None})
    assert (result.status, result.came) == (0, b"")
    assert "accepted all the same: this hook cannot defer" in result.line


@pytest.mark.parametrize("four", ["closed", "gone", "file", "reading"])
@pytest.mark.parametrize("close_two", [False, True])
def test_descriptor_4_that_is_no_pipe(store, path, four, close_two):
    """Exit 100 without a reply would refuse for good what is only deferred."""
    for number in range(3):
        result = run_rcptcheck(path, f"x@host{number}.example", four=four, close_two=close_two)
        assert (result.status, result.came) == (0, b"")
        assert close_two or "accepted all the same: this hook cannot defer" in result.line
        assert run_rcptcheck(path, f"x@host{number}.example", {"FASTGREY_RCPTCHECK": "close"}, four=four).status == 111
    assert run_rcptcheck(path, SPAMMER, four=four).status == 100
    nothing_said_into(path.parent, DEFER_TEXT)
    with fastgrey.open(path) as opened:
        assert opened.counters()["verdicts"] == {"defer new": 3, "defer early": 3, "reject denied": 1}


def test_session_is_cut_where_that_is_wanted(ask):
    result = ask("rcptcheck", env={"FASTGREY_RCPTCHECK": "close"})
    assert (result.status, result.words) == (111, ["defer", "new"])
    assert result.line.endswith("; the session is cut: this hook cannot defer one recipient\n")
    assert ask("rcptcheck", FRIEND, env={"FASTGREY_RCPTCHECK": "close"}).status == 0
    assert ask("rcptcheck", SPAMMER, env={"FASTGREY_RCPTCHECK": "close"}).status == 100
    assert ask("rcptcheck", client="", env={"FASTGREY_RCPTCHECK": "close"}).status == 111
    assert ask("rcptcheck", env={"FASTGREY_RCPTCHECK": "CLOSE"}).status == 0
    assert ask("checkenv", FRIEND, env={"FASTGREY_RCPTCHECK": "close"}).status == 0


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "rcptcheck"])
def test_descriptor_4_is_of_no_concern_to_others(store, path, hook):
    reader, writer = os.pipe()
    called = call(hook)
    environment = called["env"] | {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1", "USE_FD4": "1"}
    done = subprocess.run([hook, *called["argv"]], executable=HOOK, preexec_fn=lambda: os.dup2(writer, 4),
                          close_fds=False, capture_output=True, timeout=60, env=environment)
    os.close(writer)
    assert os.read(reader, 99) == b""
    os.close(reader)
    assert b"defer new" in done.stderr


# qmail-spp.

def test_recipients_of_other_hosts_are_none_of_our_business(ask, path):
    result = ask("spp", SPAMMER, env={"SMTPRCPTHOSTSOK": "0"})
    assert (result.status, result.line) == (0, "")
    with fastgrey.open(path) as opened:
        assert opened.counters()["verdicts"] == {}


def test_null_sender_is_deferred_at_data(ask):
    """Who verifies an address by a callout is the null sender, and leaves before DATA (Harris 2003)."""
    later = b"LD451 4.7.1 " + DEFER_TEXT + b"\n"
    assert ask("spp", "", says=later).words == ["defer", "new"]
    assert ask("spp", "", says=later).words == ["defer", "early"]
    assert ask("spp", "", client="nonsense", says=later).words == ["defer", "error"]
    # The server would answer DATA with one reply for each such command, and the client take the second for another's.
    assert ask("spp", "", "c@example.net", env={"SMTPRCPTCOUNTALL": "2"}, says=DEFERRED).words == ["defer", "new"]


def test_null_sender_that_is_denied(ask, config, run_fastgrey):
    config('deny_recipients = ["b@example.net"]')
    assert run_fastgrey("apply").returncode == 0
    assert ask("spp", "", says=REJECTED).words == ["reject", "denied"]


def version():
    return subprocess.run([HOOK, "--version"], capture_output=True, text=True).stdout.split()[1].rstrip(",")


@pytest.mark.parametrize(("clients", "reason"), [
    (["192.0.2.1", "192.0.2.1"], "retry"), (["192.0.2.1", "198.51.100.1", "203.0.113.1"], "pool"),
])
def test_trace_of_what_waited(make_store, ask_plain, path, pending_path, clients, reason):
    make_store("allow_domain_after=0")
    trace = {"FASTGREY_TRACE": ""}
    *before, last = clients
    for client in before:
        assert ask_plain("spp", client=client, env=trace, says=DEFERRED).words == ["defer", "new"]
    aging.age(path, pending_path, 4000)
    result = ask_plain("spp", client=last, env=trace, says=None)
    assert result.words == ["accept", reason]
    said = re.fullmatch(rf"HX-Greylist: delayed (\d+) seconds by fastgrey-{version()} \({reason}\)\n",
                        result.said.decode())
    assert 4000 <= int(said[1]) < 4100
    ask_plain("spp", client=last, env=trace,
              says=f"HX-Greylist: passed by fastgrey-{version()} (known-triplet)\n".encode())


@pytest.mark.parametrize(("name", "header"), [("", "X-Greylist"), ("X-Why", "X-Why"), ("x" * 60, "x" * 60)])
def test_trace(ask, name, header):
    said = f"H{header}: passed by fastgrey-{version()} (allowed)\n".encode()
    trace = {"FASTGREY_TRACE": name}
    ask("spp", FRIEND, env=trace, says=said)
    assert len(said) < 120
    # It belongs to the message, not to each of its recipients.
    ask("spp", FRIEND, env=trace | {"SMTPRCPTCOUNT": "1", "SMTPRCPTCOUNTALL": "2"})
    ask("spp", FRIEND, env=trace | {"SMTPRCPTCOUNTALL": "2"}, says=said)
    ask("spp", STRANGER, env=trace, says=DEFERRED)
    ask("spp", FRIEND, env=trace | {"RELAYCLIENT": ""})


@pytest.mark.parametrize("name", [
    "X Greylist", "X-Grey:list", "X-Gr\u00e9y", "A\nB", "A\rB", " ", "x" * 61, "x" * 5000,
])
def test_trace_that_is_no_header(ask, name):
    result = ask("spp", FRIEND, env={"FASTGREY_TRACE": name})
    assert (result.status, result.words) == (0, ["accept", "allowed"])
    assert "FASTGREY_TRACE is no name of a header" in result.line


@pytest.mark.parametrize("closed", [(0,), (0, 1), (0, 1, 2), (1,), (0, 2)])
def test_closed_descriptors(store, path, closed):
    """qmail-spp closes 0; nothing that is said may land in a table that got the number of a closed descriptor."""
    def arrange():
        for number in closed:
            os.close(number)

    environment = call("spp")["env"] | {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}
    for number in range(10):
        done = subprocess.run(["spp"], executable=HOOK, preexec_fn=arrange, capture_output=True, timeout=60,
                              env=environment | {"SMTPMAILFROM": f"x@host{number}.example"})
        assert done.returncode == 0
        assert done.stdout == (b"" if 1 in closed else DEFERRED)
        if 2 not in closed:
            assert (b"accepted all the same: standard output cannot be written" in done.stderr) is (1 in closed)
    nothing_said_into(path, DEFER_TEXT)
    with fastgrey.open(path) as opened:
        assert opened.counters()["verdicts"] == {"defer new": 10}


def test_nobody_reads_the_commands(store, path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(["spp"], executable=HOOK, stdout=writer, stderr=subprocess.PIPE, timeout=60,
                          env=call("spp")["env"] | {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"})
    os.close(writer)
    assert done.returncode == 0
    assert b"accepted all the same" in done.stderr


# Texts.

@pytest.mark.parametrize(("text", "said"), [
    ("come back", b"come back"),
    ("a\r\nRSET\tb\x7f\u00e9", b"a??RSET?b???"),
    ("", DEFER_TEXT),
    ("x" * 5000, b"x" * 500),
])
def test_texts(ask, path, text, said):
    variables = {"FASTGREY_DEFER_TEXT": text, "FASTGREY_REJECT_TEXT": text}
    ask("spp", env=variables, says=b"E451 4.7.1 " + said + b"\n")
    ask("spp", "", env=variables, says=b"LD451 4.7.1 " + said + b"\n")
    if text:
        ask("spp", SPAMMER, env=variables, says=b"E553 5.7.1 " + said + b"\n")
    came = run_rcptcheck(path, STRANGER, variables).came
    assert came == b"450 4.7.1 " + said + b"\n"
    # With CR and LF of the server, RFC 5321 section 4.5.3.1.5.
    assert len(came) + 1 <= 512


# s/qmail.

def test_postgrey_takes_client_and_name_from_its_arguments(make_store, config, run_fastgrey, run_hook):
    make_store()
    config('trust_client_name = true\nallow_clients = ["mail.example.org", "198.51.100.0/24"]')
    assert run_fastgrey("apply").returncode == 0

    def ask(client, name, **env):
        argv = ["::1%eth0;60000", STRANGER, "b@example.net", client, name]
        return run_hook(client=None, argv=argv, env=env, name="qmail-postgrey")

    assert ask("198.51.100.7", "unknown").words == ["accept", "allowed"]
    assert ask("198.51.100.7", "unknown", TCPREMOTEIP="192.0.2.1").words == ["accept", "allowed"]
    # Where the argument tells nothing, the environment does.
    assert ask("unknown", "unknown", TCP6REMOTEIP="::ffff:198.51.100.7").words == ["accept", "allowed"]
    assert ask("192.0.2.1", "mail.example.org").words == ["accept", "allowed"]
    assert ask("192.0.2.1", "unknown", TCPREMOTEHOST="mail.example.org").words == ["accept", "allowed"]
    assert ask("192.0.2.1", "unknown").words == ["defer", "new"]
    without_name = run_hook(argv=["::1", STRANGER, "b@example.net", "192.0.2.1"], client=None, name="qmail-postgrey")
    assert (without_name.status, without_name.words) == (10, ["defer", "early"])


# Signals.

def start(hook, path, blocked=()):
    """A check of a stranger that waits for a lock somebody else holds."""
    called = call(hook, "held@held.example")
    process = subprocess.Popen([hook, *called["argv"]], executable=HOOK, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked),
                               env=called["env"] | {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"})
    while process.poll() is None and not Path(f"/proc/{process.pid}/syscall").read_text().startswith("202 "):
        os.sched_yield()
    return process


@pytest.mark.parametrize(("hook", "status", "said"), [
    ("checkenv", 111, b""), ("envelope-scanner", 101, b""), ("rcptcheck", 0, b""), ("spp", 0, DEFERRED),
    ("postgrey", 10, b""),
])
@pytest.mark.parametrize(("number", "words"), [
    (signal.SIGALRM, b"in time"), (signal.SIGBUS, b"damaged or was cut short"),
])
def test_signal_in_the_middle(ask, path, pending_path, hook, status, said, number, words):
    ask("checkenv")
    with write_lock_held(pending_path):
        process = start(hook, path)
        process.send_signal(number)
        output, line = process.communicate(timeout=60)
    assert (process.returncode, output) == (status, said)
    assert b"fastgrey: defer error" in line
    assert words in line


@pytest.mark.parametrize(("number", "words"), [
    (signal.SIGALRM, b"in time"), (signal.SIGPROF, b"regular expression"), (signal.SIGBUS, b"damaged or was cut short"),
    (signal.SIGSEGV, b"damaged or was cut short"), (signal.SIGFPE, b"damaged or was cut short"),
])
def test_signal_that_the_parent_blocked(ask, path, pending_path, number, words):
    ask("checkenv")
    with write_lock_held(pending_path):
        process = start("checkenv", path, blocked={number})
        process.send_signal(number)
        line = process.communicate(timeout=60)[1]
    assert process.returncode == 111
    assert words in line


def test_counters_cut_meanwhile(ask, path, pending_path):
    """The page that counts the fault is itself what is damaged."""
    ask("checkenv")
    with write_lock_held(pending_path):
        process = start("checkenv", path)
        os.truncate(path / "stats", 0)
    line = process.communicate(timeout=60)[1]
    assert process.returncode == 111
    assert line.startswith(b"fastgrey: defer error ")
    assert b"damaged or was cut short" in line
    assert line.count(b"\n") == 1


def test_signal_after_the_answer(store, path):
    """A log that nobody reads holds the process between its words and its end: the alarm must not make it repeat
    them."""
    full, log = full_pipe()
    process = subprocess.Popen(["spp"], executable=HOOK, stdout=subprocess.PIPE, stderr=log,
                               env=call("spp")["env"] | {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"})
    assert process.stdout.readline() == DEFERRED
    process.send_signal(signal.SIGALRM)
    assert process.communicate(timeout=60) == (b"", None)
    assert process.returncode == 0
    os.close(full)
    os.close(log)


def test_many_signals_and_one_answer(ask, path, pending_path):
    """Whatever comes while the answer is made and written, it is given once."""
    ask("checkenv")
    numbers = [signal.SIGALRM, signal.SIGBUS, signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGPROF]
    answers = []
    with write_lock_held(pending_path):
        for _ in range(30):
            process = start("spp", path)
            with contextlib.suppress(ProcessLookupError):
                for number in numbers * 3:
                    os.kill(process.pid, number)
            output, line = process.communicate(timeout=60)
            assert process.returncode == 0
            assert line.count(b"\n") <= 1
            answers.append(output)
    assert DEFERRED in answers
    assert set(answers) <= {DEFERRED, b""}
