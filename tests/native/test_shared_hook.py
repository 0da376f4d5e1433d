"""The hook on a store whose records are shared: it asks fastgrey serve, and whatever answers there or does not, mail goes on."""

import contextlib
import os
import queue
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import aging
import effort
import fastgrey
from calling import call
from conftest import HOOK
from fastgrey import directory, hooks
from herds import herd, verdicts
from listening import SOCKET, asked, attributes, bound, listening, serving, short
from machine import as_nobody, needs_root, open_the_way
from tcpserver import wait_until

HOOKS = list(hooks.HOOKS)
FRIEND, STRANGER, SPAMMER = "friend@example.org", "new@example.com", "spam@example.org"
RULES = f'on_error = "defer"\nallow_senders = ["{FRIEND}"]\ndeny_senders = ["{SPAMMER}"]\n'
NEW = b"verdict=defer new 300\nkey=0123456789ab\n\n"
NOBODY = "no answer from fastgrey serve, which decides where records are shared: "
# Numbers of connect(2), by which it is told that a hook waits in it.
CONNECTING = ("42 ", "203 ")


@pytest.fixture(params=["accept", "defer"])
def on_error(request):
    return request.param


@pytest.fixture
def shared(make_store):
    """A store whose hooks ask, and errors defer."""
    return make_store("shared=true", "on_error=defer")


def unanswered(result, on_error, store, *parts):
    """One line: nobody answers; where, why, what to do."""
    assert (result.status, result.words) == ((0, ["accept", "error"]) if on_error == "accept" else
                                             (111, ["defer", "error"]))
    assert f": {NOBODY}{store} (serve.sock)" in result.line
    assert result.line.endswith("; start it with: fastgrey serve, or set shared = false and: fastgrey apply\n")
    assert result.line.count("\n") == 1
    for part in parts:
        assert part in result.line


def counted(store):
    with fastgrey.open(store) as opened:
        return opened.counters()["verdicts"]


# The same as on a store of its own.

@pytest.fixture
def two(path, tmp_path, run_fastgrey, config):
    """Two stores with one secret, rules and settings, of which the other one is shared."""

    def make(*assignments):
        fastgrey.create(path, {})
        other = tmp_path / "shared"
        shutil.copytree(path, other, symlinks=True)
        for store, last in ((path, "false"), (other, "true")):
            config("\n".join([RULES, *assignments, f"shared = {last}"]))
            applied = run_fastgrey("apply", "--store", str(store))
            assert applied.returncode == 0, applied.stderr
        return path, other

    return make


def plain(text):
    """What is said, without the numbers that the second may change between two questions, and the store."""
    return re.sub(r"wait=\d+|delayed \d+", "", text).replace("/shared/", "/store/")


@pytest.mark.parametrize("hook", HOOKS)
def test_same_as_on_a_store_of_its_own(two, run_hook, hook):
    """Every verdict in the manner of every hook: status, what is said, the line, and what is counted."""
    embedded, other = two("pool_hops=2", "allow_domain_after=2")
    seen = []

    def both(sender, client="192.0.2.1", **env):
        called = call(hook, sender, client=client)
        results = [run_hook(argv=called["argv"], client=client, name=f"fastgrey-{hook}", says=None,
                            env=called["env"] | {"FASTGREY_TRACE": "", "FASTGREY_STORE": str(store)} | env)
                   for store in (embedded, other)]
        one, two = ((result.status, plain(result.said.decode()), plain(result.line)) for result in results)
        assert one == two
        seen.append(" ".join(results[0].words))

    def later():
        for store in (embedded, other):
            aging.age(store, store / f"pending.{directory.boot_id()}", 4000)

    with serving(other):
        for sender in (FRIEND, SPAMMER, STRANGER, STRANGER, "", "odd\xff =b@example.com"):
            both(sender)
        both(STRANGER, client="nonsense")
        both("x" * 1001)
        both("roams@example.com", client="198.51.100.1")
        if hook != "spp":
            both(SPAMMER, RELAYCLIENT="")
    later()
    with serving(other):
        both("roams@example.com", client="203.0.113.1")
        both("roams@example.com", client="233.252.0.1")
        both(STRANGER)
        both(STRANGER)
        both("other@example.com")
    assert {"accept allowed", "reject denied", "defer new", "defer early", "defer error", "accept pool", "accept retry",
            "accept known-triplet", "accept known-pair"} <= set(seen)
    assert counted(embedded) == counted(other), "once, by whoever decided"
    assert sum(counted(other).values()) == len(seen)


@pytest.mark.parametrize("bytes_", [b" a@b", b"a@b ", b"<a@b>", b"=", b"a=b\xff\x01@x", b"@r:a@b", b"a" * 1000, b"\t"])
def test_addresses_arrive_as_they_are(shared, run_hook, bytes_):
    with listening(shared, NEW) as questions:
        assert run_hook(argv=[bytes_, bytes_]).words == ["defer", "new"]
    assert attributes(questions[0]) == {"request": b"fastgrey", "client_address": b"192.0.2.1", "sender": bytes_,
                                        "recipient": bytes_}


@pytest.mark.parametrize(("client", "name", "sent", "called"), [
    ("192.0.2.7", "mx.example.org", "192.0.2.7", "mx.example.org"),
    ("::ffff:192.0.2.7", "", "::ffff:192.0.2.7", None),
    # Behind the % of a scope anything may stand, as in a name.
    ("fe80::1%eth0\nrecipient=other@example.net", None, "fe80::1", None),
    ("192.0.2.7", "mx.example.org\ndry_run=yes", "192.0.2.7", None),
    ("192.0.2.7", "a\r", "192.0.2.7", None),
    ("192.0.2.7", "x" * 1001, "192.0.2.7", "x" * 1001),
    ("192.0.2.7", "x" * 1002, "192.0.2.7", None),
])
def test_clients_that_are_asked_about(shared, run_hook, client, name, sent, called):
    with listening(shared, NEW) as questions:
        run_hook(client=client, env={} if name is None else {"TCPREMOTEHOST": name})
    found = attributes(questions[0])
    assert found["client_address"] == sent.encode()
    assert found.get("client_name") == (called.encode() if called else None)
    assert found["recipient"] == b"b@example.net"


def test_largest_question(shared, run_hook):
    longest = "x" * 1000
    with listening(shared, NEW) as questions:
        assert run_hook(argv=[longest, longest], env={"TCPREMOTEHOST": longest + "."},
                        client="ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255").words == ["defer", "new"]
    assert len(questions[0]) > 3000
    assert len(attributes(questions[0])) == 5


def test_what_needs_no_records_is_not_asked(two, run_hook):
    """Rules hold while nobody answers, and what cannot be decided is nobody's question."""
    _, store = two()
    with listening(store, NEW) as questions:
        env = {"FASTGREY_STORE": str(store)}
        assert run_hook(sender=FRIEND, env=env).words == ["accept", "allowed"]
        assert run_hook(sender=SPAMMER, env=env).words == ["reject", "denied"]
        assert run_hook(env=env | {"RELAYCLIENT": ""}).words == ["accept", "relay"]
        assert run_hook(client="nonsense", env=env).words == ["defer", "error"]
        assert run_hook(argv=["a\nb", "c"], env=env).words == ["defer", "error"]
        assert run_hook(argv=["a"], env=env).words == ["defer", "error"]
        assert questions == []
        assert run_hook(env=env).words == ["defer", "new"]
    assert len(questions) == 1
    assert counted(store) == {"accept allowed": 1, "reject denied": 1, "accept relay": 1, "defer error": 3}


def test_store_that_is_not_shared_asks_nobody(make_store, run_hook):
    store = make_store()
    with listening(store, NEW) as questions:
        assert run_hook().words == ["defer", "new"]
        assert run_hook().words == ["defer", "early"]
    assert questions == []


# Answers.

@pytest.mark.parametrize(("answer", "status", "line"), [
    (b"verdict=accept known-domain 0\n\n", 0, "accept known-domain .* key=[0-9a-f]{12}"),
    (b"verdict=defer early 17\nkey=0123456789ab\n\n", 111, "defer early wait=17 .* key=0123456789ab"),
    (b"verdict=defer new 4398046511104\n\n", 111, "defer new wait=4398046511104 .*"),
    (b"verdict=reject denied 0\nrule=/etc/rules:7\n\n", 100, "reject denied .* rule=/etc/rules:7"),
    (b"verdict=accept retry 0\nwaited=4000\n\n", 0, "accept retry .*"),
    (b"verdict=accept error 0\ncause=the engine is away; look: there\n\n", 0,
     "accept error .*: the engine is away; look: there"),
    (b"verdict=defer error 0\ncause=a\n\n", 111, "defer error wait=0 .*: a"),
    (b"verdict=accept known-pair 0\nnote=one\nnote=two; three\n\n", 0, "accept known-pair .*; one; two; three"),
    (b"verdict=accept learn 0\ncause=" + b"x" * 3000 + b"\nnote=" + b"y" * 900 + b"\n\n", 0,
     "accept learn .*: x{1023}; y{509}"),
    # A newer server may say more.
    (b"verdict=accept pool 0\nengine=there\nmore=\n\n", 0, "accept pool .*"),
])
def test_answers(shared, run_hook, answer, status, line):
    with listening(shared, answer) as questions:
        result = run_hook()
    assert re.fullmatch(f"fastgrey: {line}\n", result.line)
    assert "no answer" not in result.line
    assert result.status == status
    assert len(questions) == 1
    assert counted(shared) == {}, "who decides counts"


BROKEN = {
    "nothing": b"", "an empty line": b"\n\n", "half": b"verdict=defer new 300\nkey=01", "no empty line": b"verdict=defer new 300\n",
    "no verdict": b"key=0123456789ab\n\n", "verdict second": b"key=0123456789ab\nverdict=defer new 300\n\n",
    "two verdicts": b"verdict=defer new 300\nverdict=accept pool 0\n\n", "another order": b"verdict=new defer 300\n\n",
    "no wait": b"verdict=defer new\n\n", "a wait that is no number": b"verdict=defer new -1\n\n",
    "a wait too large": b"verdict=defer new 4398046511105\n\n", "a wait that overflows": b"verdict=defer new 18446744073709551617\n\n",
    "a word more": b"verdict=defer new 300 400\n\n", "two blanks": b"verdict=defer  new 300\n\n",
    "an action there is none of": b"verdict=delay new 300\n\n", "a reason there is none of": b"verdict=defer late 300\n\n",
    "no action": b"verdict= new 300\n\n", "accepted as new": b"verdict=accept new 0\n\n",
    "accepted as denied": b"verdict=accept denied 0\n\n", "rejected as error": b"verdict=reject error 0\n\n",
    "deferred as known": b"verdict=defer known-pair 300\n\n", "deferred as denied": b"verdict=defer denied 300\n\n",
    "accepted with a wait": b"verdict=accept pool 1\n\n", "a longer key": NEW.replace(b"ab\n", b"abc\n"),
    "a key of capitals": NEW.replace(b"ab\n", b"AB\n"), "a key of other letters": NEW.replace(b"ab\n", b"ag\n"),
    "a rule with a blank": b"verdict=reject denied 0\nrule=a b:1\n\n", "no rule": b"verdict=reject denied 0\nrule=\n\n",
    "a rule too long": b"verdict=reject denied 0\nrule=" + b"x" * 240 + b"\n\n",
    "a wait of words": b"verdict=accept retry 0\nwaited=long\n\n", "a line without =": b"verdict=accept pool 0\nx\n\n",
    "a control character": b"verdict=accept pool 0\nnote=\x1b[2J\n\n", "a byte of no ASCII": b"verdict=accept pool 0\nnote=\xc3\xa9\n\n",
    "a NUL": b"verdict=accept pool 0\nnote=a\0b\n\n", "CR LF": b"verdict=accept pool 0\r\n\r\n",
    "an empty line in between": b"verdict=accept pool 0\n\nnote=a\n\n", "more behind the end": NEW + b"x", "two answers": NEW + NEW, "words of another protocol": b"action=DUNNO\n\n",
    "random": bytes(range(256)), "a line of 5,000 bytes": b"verdict=accept pool 0\nnote=" + b"x" * 5000 + b"\n\n",
    "a megabyte": b"x" * (1 << 20), "a megabyte of lines": b"a=b\n" * (1 << 18),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_broken_answers(shared, run_hook, answer):
    with listening(shared, answer):
        unanswered(run_hook(), "defer", shared, "Connection reset by peer" if answer == b"" else "Protocol error")
    assert counted(shared) == {"defer error": 1}


def test_answer_in_pieces(shared, run_hook):
    def piecewise(connection, question):
        for number in range(len(NEW)):
            connection.sendall(NEW[number:number + 1])

    with listening(shared, piecewise):
        assert run_hook().words == ["defer", "new"]


# Nobody answers.

def make_gone(store):
    """The socket of a server that was killed."""
    bound(store).close()


def make_pipe(store):
    os.mkfifo(store / SOCKET)


def make_datagrams(store):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, short(store) as path:
        other.bind(path)


@pytest.mark.parametrize(("make", "why"), [
    (lambda store: None, "No such file or directory"),
    (make_gone, "Connection refused"),
    (lambda store: (store / SOCKET).write_bytes(NEW), "Connection refused"),
    (lambda store: (store / SOCKET).mkdir(), "Connection refused"),
    (make_pipe, "Connection refused"),
    (make_datagrams, "Connection refused"),
], ids=["nothing", "gone", "file", "directory", "pipe", "datagrams"])
def test_no_server(make_store, run_hook, on_error, make, why):
    store = make_store("shared=true", f"on_error={on_error}")
    make(store)
    for _ in range(2):
        unanswered(run_hook(), on_error, store, f": {why}; ")
    assert counted(store) == {f"{on_error} error": 2}


def test_link_is_not_followed(shared, run_hook, tmp_path):
    """A member of the group could have the hook of another one speak to any socket of the machine."""
    (tmp_path / "elsewhere").mkdir()
    with listening(tmp_path / "elsewhere", NEW) as questions:
        for target in (tmp_path / "elsewhere" / SOCKET, "nowhere", SOCKET):
            (shared / SOCKET).unlink(missing_ok=True)
            (shared / SOCKET).symlink_to(target)
            result = run_hook()
            assert (result.status, result.words) == (111, ["defer", "error"])
            assert "a link stands where the store has a file or directory of its own" in result.line
            assert "(serve.sock)" in result.line
            with fastgrey.open(shared) as store:
                cause = store.ask(client="192.0.2.1", sender="a@example.org", recipient="b@example.net").cause
            assert cause.startswith("a link stands where the store has a file or directory of its own")
    assert questions == []


@pytest.mark.parametrize("hook", HOOKS)
def test_nobody_answers_in_the_terms_of_the_hook(shared, run_hook, hook):
    called = call(hook)
    said = b"E451 4.7.1 greylisted, please try again later\n" if hook == "spp" else b""
    result = run_hook(argv=called["argv"], env=called["env"], name=f"fastgrey-{hook}", says=said)
    assert result.words == ["defer", "error"]
    assert result.status == {"checkenv": 111, "envelope-scanner": 101, "rcptcheck": 0, "spp": 0, "postgrey": 10}[hook]
    assert NOBODY in result.line


def test_learning(make_store, run_hook):
    store = make_store("shared=true", "mode=learn", "on_error=defer")
    result = run_hook()
    assert (result.status, result.words) == (0, ["accept", "learn"])
    assert NOBODY in result.line
    assert counted(store) == {"accept learn": 1}


def start(store, *wrapped):
    return subprocess.Popen([*wrapped, HOOK, "a@example.org", "b@example.net"], stderr=subprocess.PIPE,
                            env={"FASTGREY_STORE": str(store), "TCPREMOTEIP": "192.0.2.1"})


def ended(process):
    line = process.communicate(timeout=120)[1].decode()
    return SimpleNamespace(status=process.returncode, line=line, words=line.split()[1:3])


def connecting(process):
    """Whether it waits for room at a socket, or is gone."""
    return process.poll() is not None or Path(f"/proc/{process.pid}/syscall").read_text().startswith(CONNECTING)


def full(store):
    """A listener that takes nobody, and those that wait there already."""
    listener, waiting = bound(store, 0), []
    with short(store) as path, contextlib.suppress(BlockingIOError):
        while True:
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            waiting[-1].setblocking(False)
            waiting[-1].connect(path)
    waiting.pop().close()
    return [listener, *waiting]


def test_servers_that_take_their_time(tmp_path):
    """One that is silent, one that says a byte now and then, one that never takes a connection, one that was stopped:
    none keeps a hook longer than it may live, where its own bound would not (LIFE_SECONDS)."""
    def silent(connection, question):
        while connection.recv(1024):
            pass

    def slow(connection, question):
        connection.sendall(b"verdict=accept pool 0\nnote=")
        pause = threading.Event()
        while True:
            connection.sendall(b"x")
            pause.wait(0.1)

    stores = {}
    for name in ("silent", "slow", "full", "stopped"):
        stores[name] = tmp_path / name
        fastgrey.create(stores[name], fastgrey.settings.parse_assignments(["shared=true", "on_error=defer"]))
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(stores["silent"], silent))
        stack.enter_context(listening(stores["slow"], slow))
        server = stack.enter_context(serving(stores["stopped"]))
        queue = full(stores["full"])
        os.killpg(server.pid, signal.SIGSTOP)
        try:
            hooks = {name: start(store) for name, store in stores.items()}
            for name, process in hooks.items():
                unanswered(ended(process), "defer", stores[name], ": Connection timed out; ")
        finally:
            os.killpg(server.pid, signal.SIGCONT)
            for one in queue:
                one.close()
    for name, store in stores.items():
        assert counted(store).get("defer error") == 1, name


def test_room_comes_in_time(shared):
    """Who finds the queue full waits there, and is answered."""
    queue = full(shared)
    listener = queue[0]
    process = start(shared)
    assert wait_until(lambda: connecting(process))
    for one in queue[1:]:
        listener.accept()[0].close()
        one.close()
    connection, _ = listener.accept()
    with connection:
        question = asked(connection)
        connection.sendall(NEW)
    assert attributes(question)["sender"] == b"a@example.org"
    assert ended(process).words == ["defer", "new"]
    listener.close()


# Where and as whom.

def long_path(folder):
    """A path as long as a store may have."""
    room = 392 - len(str(folder)) - 2
    place = folder / ("x" * (room // 2)) / ("y" * (room - room // 2))
    place.parent.mkdir()
    return place


def test_path_longer_than_an_address_of_a_socket(tmp_path, run_hook):
    store = long_path(tmp_path)
    fastgrey.create(store, fastgrey.settings.parse_assignments(["shared=true"]))
    with listening(store, NEW) as questions:
        assert run_hook(env={"FASTGREY_STORE": str(store)}).words == ["defer", "new"]
    assert len(questions) == 1
    unanswered(run_hook(env={"FASTGREY_STORE": str(store)}), "accept", store, "No such file")
    with serving(store):
        assert run_hook(env={"FASTGREY_STORE": str(store)}).words == ["defer", "new"]


def test_relative_path(shared, run_hook):
    with listening(shared, NEW):
        assert run_hook(env={"FASTGREY_STORE": shared.name}, cwd=shared.parent).words == ["defer", "new"]


@needs_root
def test_member_of_the_group_asks_a_server_of_root(make_store, run_hook, tmp_path):
    open_the_way(tmp_path)
    store = make_store("shared=true", group=12_345)
    with serving(store):
        assert run_hook(**as_nobody(12_345)).words == ["defer", "new"]
        assert run_hook(**as_nobody(12_345)).words == ["defer", "early"]
        (store / SOCKET).chmod(0o600)
        unanswered(run_hook(**as_nobody(12_345)), "accept", store, "Permission denied")


@pytest.mark.parametrize("closed", [(0,), (0, 1), (0, 1, 2), (1,), (2,)])
def test_closed_descriptors(shared, closed):
    """What the mail server closed is not given to the socket as something to write to."""
    environment = call("spp")["env"] | {"FASTGREY_STORE": str(shared), "TCPREMOTEIP": "192.0.2.1"}

    def arrange():
        for number in closed:
            os.close(number)

    with listening(shared, NEW) as questions:
        done = subprocess.run(["spp"], executable=HOOK, preexec_fn=arrange, capture_output=True, timeout=60,
                              env=environment)
    assert done.returncode == 0
    assert len(done.stdout) == (0 if 1 in closed else 46)
    assert len(attributes(questions[0])) == 4


@pytest.mark.parametrize("files", [5, 6, 12])
def test_too_few_descriptors(shared, run_hook, files):
    """The store can be opened; first the socket cannot be made, then its name not be opened."""
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    with listening(shared, NEW):
        result = run_hook(preexec_fn=limit)
    if files == 12:
        assert result.words == ["defer", "new"]
    else:
        unanswered(result, "defer", shared, ": Too many open files; ")


def test_signal_while_it_waits(shared):
    """The bound on its life holds while it asks, as everywhere."""
    begun = queue.SimpleQueue()

    def silent(connection, question):
        # Its question may come before this process knows it.
        begun.get(timeout=60).send_signal(signal.SIGALRM)
        connection.recv(1024)

    with listening(shared, silent):
        process = start(shared)
        begun.put(process)
        result = ended(process)
    assert (result.status, result.words) == (111, ["defer", "error"])
    assert "no answer from the store in time" in result.line
    assert "(serve.sock)" in result.line
    assert counted(shared) == {"defer error": 1}


def test_nothing_is_kept_open_while_it_waits(shared):
    """A snapshot held for seconds would pin what others free: the hook waits without one."""
    held = []

    def look(connection, question):
        with fastgrey.open(shared) as opened:
            held.extend(pinned for _, pinned in fastgrey._core.reader_table(opened, False)["readers"])
        connection.sendall(NEW)

    with listening(shared, look):
        process = start(shared)
        assert ended(process).words == ["defer", "new"]
    assert held
    assert set(held) == {None}


# Crowds.

@pytest.mark.torture
def test_crowd(in_memory, tmp_path):
    """A thousand at once: each is answered, or says that it was not in time."""
    store = in_memory / "store"
    fastgrey.create(store, fastgrey.settings.parse_assignments(["shared=true", "on_error=defer"]))
    total = effort.times(1000)
    with serving(store):
        statuses, lines = herd(store, total, "a%@host%.example", "b@example.net", tmp_path / "log")
    said = verdicts(lines)
    late = said.pop("defer error", 0)
    assert statuses == {111: total}
    assert said == {"defer new": total - late}
    assert sum("Connection timed out; " in line for line in lines) == late
    # What came too late was decided and counted all the same.
    found = counted(store)
    assert found.get("defer error", 0) == late
    assert total - late <= found["defer new"] <= total
    effort.tried("hooks at once at one server", hooks=total, late=late)


@pytest.mark.torture
def test_server_restarted_while_hooks_ask(make_store, path):
    """Each mail gets the verdict of a server or that of on_error, and the next server goes on where the last one ended."""
    make_store("shared=true", "on_error=defer", "delay=0s", "allow_domain_after=0", "allow_client_after=0", "pool_hops=0")
    stop, lines = threading.Event(), []

    def ask(number):
        while not stop.is_set():
            lines.append(ended(start(path)).line)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(effort.times(4)):
            with serving(path) as server:
                seen = len(lines)
                assert wait_until(lambda seen=seen: sum(" accept known-triplet " in line for line in lines[seen:]) > 5)
                if number % 2:
                    os.killpg(server.pid, signal.SIGKILL)
                    server.wait()
            if number % 2:
                (path / SOCKET).unlink(missing_ok=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
    found = verdicts(lines)
    assert set(found) <= {"defer new", "accept retry", "accept known-triplet", "defer error"}
    assert found["defer new"] <= 1
    assert found["accept retry"] <= 3
    for line in lines:
        assert " error " not in line or NOBODY in line
    late = found["defer error"]
    assert counted(path).get("defer error", 0) == late
    effort.tried("server restarted while hooks ask", questions=len(lines), unanswered=late)


# fastgrey check.

def test_check_asks_too(two, run_fastgrey):
    embedded, other = two()

    def both(*arguments):
        done = [run_fastgrey("check", "--store", str(store), *arguments) for store in (embedded, other)]
        assert [one.stderr for one in done] == ["", ""]
        assert done[0].stdout == done[1].stdout
        assert [one.returncode for one in done] == [0, 0]
        return done[1].stdout.replace(":", "").split()[:2]

    with serving(other):
        stranger = ("192.0.2.1", STRANGER, "b@example.net", "--now", "1700000000")
        assert both(*stranger, "--dry-run") == ["defer", "new"]
        assert both(*stranger) == ["defer", "new"]
        assert both("192.0.2.1", STRANGER, "b@example.net", "--now", "1700004000", "--dry-run") == ["accept", "retry"]
        assert both("192.0.2.1", STRANGER, "b@example.net", "--now", "1700004000", "--json") == ["{", '"action"']
        assert both("192.0.2.1", STRANGER, "b@example.net", "--now", "1700004000") == ["accept", "known-domain"]
        assert both("192.0.2.1", SPAMMER, "b@example.net") == ["reject", "denied"]
        assert both("192.0.2.1", SPAMMER, "b@example.net", "--relay") == ["accept", "relay"]
        named = ("198.51.100.1", "x@example.com", "b@example.net", "--name", "mx.pool.example.org", "--now", "1700000000")
        assert both(*named, "--trust-name") == ["defer", "new"]
        assert both("203.0.113.1", *named[1:], "--trust-name") == ["defer", "early"]
        assert both("203.0.113.2", *named[1:], "--distrust-name") == ["defer", "new"]
        assert both("nonsense", STRANGER, "b@example.net") == ["defer", "error"]
    assert counted(embedded) == counted(other)
    nobody = run_fastgrey("check", "--store", str(other), "192.0.2.1", STRANGER, "b@example.net", "--dry-run")
    assert nobody.stdout.startswith("defer error key=")
    assert f": {NOBODY}{other} (serve.sock): No such file or directory; start it" in nobody.stdout
    assert counted(embedded) == counted(other), "a dry run counts nothing"


def test_asking_leaves_nothing_open(shared):
    with fastgrey.open(shared) as store:
        request = {"client": "192.0.2.1", "sender": STRANGER, "recipient": "b@example.net"}
        before = os.listdir("/proc/self/fd")
        for answer in (NEW, b"x", b""):
            with listening(shared, answer):
                store.ask(**request)
        store.ask(**request)
        assert os.listdir("/proc/self/fd") == before


def test_api(shared):
    with fastgrey.open(shared) as store:
        request = {"client": "192.0.2.1", "sender": STRANGER, "recipient": "b@example.net"}
        unheard = store.ask(**request)
        assert unheard[:3] == ("defer", "error", 0)
        assert NOBODY in unheard.cause
        with listening(shared, b"verdict=accept retry 0\nwaited=77\nnote=a\nnote=b\n\n") as questions:
            found = store.ask(**request, client_name=b"mx.example.org", name_trusted=True, now=1700000000, dry_run=True)
        assert found[:4] == ("accept", "retry", 0, None)
        assert (found.waited, found.notes) == (77, ("a", "b"))
        assert attributes(questions[0]) == {
            "request": b"fastgrey", "client_address": b"192.0.2.1", "client_name": b"mx.example.org",
            "sender": STRANGER.encode(), "recipient": b"b@example.net", "name_trusted": b"yes", "now": b"1700000000",
            "dry_run": b"yes"}
        with listening(shared, b"verdict=accept error 0\ncause=why; what to do\n\n"):
            assert store.ask(**request).cause == "why; what to do"
        # The table of the store itself, whatever others share.
        assert store.check(**request)[:2] == ("defer", "new")
