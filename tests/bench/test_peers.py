"""Greylisters that fastgrey is measured beside answer as they should, and what asks them asks. No time is asserted."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import fastgrey
import figures
import peers
from figures import Count, Figure
from peers import own
from peers.asking import Target, Tools
from peers.questions import Questions, known, line, new

ROOT = Path(__file__).resolve().parents[2]
HOOK = Path(sys.executable).parent / "qmail-checkenv"
INSTALLED = [kind for kind in peers.PEERS if not kind.missing()]
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
each_peer = pytest.mark.parametrize("kind", [
    pytest.param(kind, id=kind.name, marks=pytest.mark.skipif(bool(kind.missing()), reason=kind.missing()))
    for kind in peers.PEERS])


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    return Tools(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def place(tmp_path_factory):
    """A directory that a daemon can get to which becomes another user."""
    made = tmp_path_factory.mktemp("peer")
    for parent in [made, *made.parents][:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    return made


def measured(module, kind, tmp_path, *options):
    file = tmp_path / "results.json"
    command = [sys.executable, ROOT / "bench" / f"{module}.py", "--profile", "smoke", "--json", file, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    (content,) = figures.load(file).values()
    assert f"Debian {kind.name}" in content["versions"]
    return content


@each_peer
def test_known_pass_and_strangers_wait(kind, place, tools):
    """Each peer, filled without being asked or by being asked, lets through whom it knows and nobody else."""
    directory = place / kind.name
    directory.mkdir()
    peer = kind(directory)
    peer.fill(30, 10, known)
    questions = Questions(place, 40)
    with peer.running():
        target = Target(peer.way, peer.where)
        for callers in (1, 3):
            found = tools.asked(target, callers, questions.files("known", 20, 1)[0])
            assert (found["accept"], found["defer"], found["wrong"]) == (20, 0, 0)
            for size, times in (("new", 0), ("mixed", 10)):
                found = tools.asked(target, callers, questions.files(size, 20, 1)[0])
                assert (found["accept"], found["defer"], found["wrong"]) == (times, 20 - times, 0)
        # A stranger that is back too early is no less one.
        again = questions.file(line(new(1), "defer") for _ in range(5))
        assert tools.asked(target, 1, again)["defer"] == 5
        # And all answers are checked.
        with pytest.raises(SystemExit, match="not the answer due: "):
            tools.asked(target, 1, questions.file([line(new(1), "accept")]))
        process = peer._process
    assert process.poll() is not None


@each_peer
def test_none_outlives_the_suite(kind, place):
    """However that ends."""
    script = f"""
import os, pathlib, signal, sys
sys.path.insert(0, {str(ROOT / "bench")!r})
import peers
from peers.questions import known
(kind,) = (kind for kind in peers.PEERS if kind.name == {kind.name!r})
peer = kind(pathlib.Path({str(place)!r}))
peer.fill(3, 0, known)
with peer.running():
    print(peer._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=120)
    assert done.returncode == -signal.SIGKILL
    state = Path(f"/proc/{int(done.stdout)}/stat")
    for _ in range(600):
        try:
            # Dead, and not yet collected by whoever inherited it.
            gone = state.read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            gone = True
        if gone:
            return
        time.sleep(0.1)
    pytest.fail(f"{kind.name} is still there")


@each_peer
def test_decisions(kind, tmp_path):
    """Known, new and mixed, the hook and the API are set against the peer, and nobody answered wrongly."""
    content = measured("peer_decisions", kind, tmp_path, "--only", f"peer-{kind.name}")
    pairs = {(one.name, one.baseline) for one in content["figures"]}
    expected = set()
    for what in ("known", "new", "mixed"):
        case = f"{what}, 2 at once"
        expected |= {(f"{who}, {case}", f"{kind.name}, {case}") for who in ("hook", "API")}
        if kind.way == "policy":
            expected.add((f"hook beside a client, {case}", f"a client of {kind.name} for each question, {case}"))
    assert pairs == expected
    assert all(len(one.ratios) == 2 and one.note for one in content["figures"])
    assert [one.numbers["wrong answers"] for one in content["counts"]] == [0, 0, 0]


@each_peer
def test_expiry(kind, tmp_path):
    """It happens while the peer is asked, and half of the entries are gone by it (which the benchmark sees to)."""
    content = measured("peer_expiry", kind, tmp_path, "--peer", kind.name)
    (figure,) = content["figures"]
    assert kind.name in figure.baseline and kind.expires in figure.note
    counts = {one.name.rpartition(",")[0]: one.numbers for one in content["counts"]}
    assert set(counts) == {kind.name, "hooks while fastgrey compacts"}
    for numbers in counts.values():
        assert numbers["came to its end"] == 1
        assert numbers["longest wait"] >= numbers["median of the longest"] > 0


def test_a_peer_that_is_missing_is_said(tmp_path, capsys):
    """With a line, and in the results."""
    class Missing(peers.Postgrey):
        name = "missing"
        packages = ("no-such-package",)

    results = figures.Results(figures.parser("x").parse_args(["--json", str(tmp_path / "results.json")]), ["peers"])
    assert results.wants("peers")
    assert not peers.is_here(Missing, "peers", results)
    results.write()
    assert "  missing is not measured: not installed: no-such-package\n" in capsys.readouterr().out
    content = figures.load(tmp_path / "results.json")["peers"]
    assert content["counts"] == [Count("peers", "missing, skipped", {"measured": 0}, "not installed: no-such-package")]


def test_hook_and_api_are_asked_the_same(tmp_path, tools):
    """Both are checked, too."""
    store = tmp_path / "store"
    own.fill(store, 40, known)
    questions = Questions(tmp_path, 40)
    hook = Target("hook", str(HOOK), store)
    for kind, accepted in (("known", 24), ("new", 0), ("mixed", 12)):
        (file,) = questions.files(kind, 24, 1)
        found = tools.asked(hook, 3, file)
        assert (found["accept"], found["defer"], found["wrong"]) == (accepted, 24 - accepted, 0)
        assert own.asked(store, 3, file)["seconds"] > 0
    with fastgrey.open(store) as opened:
        verdicts = opened.counters()["verdicts"]
    assert sum(number for name, number in verdicts.items() if name.startswith("accept known")) == 72
    # All that are known were new once.
    assert (verdicts["defer new"], verdicts["defer early"]) == (40 + 36, 36)
    wrong = questions.file([line(new(10**6), "accept")])
    with pytest.raises(SystemExit, match="not the answer due: 115"):
        tools.asked(hook, 1, wrong)
    with pytest.raises(SystemExit, match="accept was due: "):
        own.asked(store, 1, wrong)


@pytest.mark.parametrize("answer, status", [
    (b"action=DUNNO\n\n", 0), (b"action=PREPEND X-Greylist: delayed\n\n", 0),
    (b"action=defer_if_permit later\n\n", 111), (b"action=DEFER later\n\n", 111), (b"action=450 later\n\n", 111),
    (b"action=reject no\n\n", 100), (b"action=554 no\n\n", 100),
    (b"", 2), (b"action=DUN", 2), (b"nonsense\n\n", 2)])
def test_client_of_a_daemon(answer, status, tmp_path, tools):
    """ask_postgrey ends as a hook does; without an answer it fails, which no benchmark takes for one."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.settimeout(60)

        def serve():
            connection, _ = listener.accept()
            with connection:
                asked = got = connection.recv(4096)
                while got and not asked.endswith(b"\n\n"):
                    got = connection.recv(4096)
                    asked += got
                requests.append(dict(one.split("=", 1) for one in asked.decode().split("\n") if one))
                connection.sendall(answer)

        requests = []
        server = threading.Thread(target=serve)
        server.start()
        done = subprocess.run([tools.client, tmp_path / "socket", "a@example.org", "b@example.net"],
                              env={"TCPREMOTEIP": "192.0.2.7"}, timeout=60, stderr=subprocess.PIPE)
        server.join(60)
    assert done.returncode == status
    word = {0: b"accept", 111: b"defer", 100: b"reject", 2: b"no answer"}[status]
    assert done.stderr == b"ask_postgrey: " + word + b" client=192.0.2.7 sender=a@example.org recipient=b@example.net\n"
    assert {"request": "smtpd_access_policy", "client_address": "192.0.2.7", "sender": "a@example.org",
            "recipient": "b@example.net", "protocol_state": "RCPT"}.items() <= requests[0].items()


def test_client_without_a_daemon(tmp_path, tools):
    done = subprocess.run([tools.client, tmp_path / "socket", "a@example.org", "b@example.net"],
                          env={"TCPREMOTEIP": "192.0.2.7"}, timeout=60)
    assert done.returncode == 2


def test_clock_set_ahead(tmp_path, tools):
    """For every way that a daemon asks for the time, and while it runs."""
    clock = tmp_path / "clock"
    clock.write_bytes(bytes(8))
    script = ("import sys, time\nfor line in sys.stdin: print(int(time.time()), flush=True)")
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env={"LD_PRELOAD": str(tools.clock), "BENCH_CLOCK": str(clock)}) as process:
        told = []
        for ahead in (0, 100_000):
            with clock.open("r+b") as file:
                file.write(ahead.to_bytes(8, "little"))
            process.stdin.write("\n")
            process.stdin.flush()
            told.append(int(process.stdout.readline()))
        process.stdin.close()
    assert 100_000 <= told[1] - told[0] < 101_000


def test_an_outstanding_question_counts(tmp_path, tools):
    """What is still without an answer when asking ends is the longest wait, not left out."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.settimeout(60)
        target = Target("policy", str(tmp_path / "socket"))
        questions = Questions(tmp_path, 1).file([line(known(0), "accept")])
        with contextlib.ExitStack() as stack:
            with tools.probing(target, questions) as found:
                connection, _ = listener.accept()
                stack.enter_context(connection)
                assert connection.recv(4096)
                connection.sendall(b"action=DUNNO\n\n")
                assert connection.recv(4096)
    assert (found["accept"], found["none"]) == (1, 0)
    # It waits for so long before it gives a question up.
    assert found["longest"] >= 2
