"""Master, workers and scribes: started, killed, replaced, told to end; and no request lost on the way."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import fastgrey
from aging import age
from fastgrey.serve import addresses, scribe
from ports import free_port
from serving import Client, Server, answers, children, hook, policy, until


class Asking(threading.Thread):
    """Asks all the time over one connection, and as Postfix does over another one when it is closed: a request is lost
    where two connections in a row do not answer it."""

    def __init__(self, place, number):
        super().__init__(daemon=True)
        self.place, self.number = place, number
        self.stopped = threading.Event()
        self.answered = 0
        self.lost = []
        self.connections = 0

    def run(self):
        if (client := self._ask_on()) is not None:
            client.close()

    def _ask_on(self):
        """Gives the connection that is open in the end."""
        client = None
        while not self.stopped.is_set():
            request = policy(sender=f"a@s{self.number}x{self.answered % 50}.example", instance=f"{self.number}.1")
            for attempt in range(3):
                reply = None
                with contextlib.suppress(OSError):
                    if client is None:
                        client = Client(self.place)
                        self.connections += 1
                    reply = client.ask(request)
                if reply is not None:
                    break
                if client is not None:
                    client.close()
                    client = None
            if reply is None or not reply.startswith("action="):
                self.lost.append((self.answered, reply))
                break
            self.answered += 1
        return client


@contextlib.contextmanager
def asking(*places):
    """Clients that ask all the time; at the end nothing may be lost."""
    threads = [Asking(place, number) for number, place in enumerate(places)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(thread.answered > 10 for thread in threads), "clients are answered")
        yield threads
        before = [thread.answered for thread in threads]
        until(lambda: all(thread.answered > count + 10 or thread.lost
                          for thread, count in zip(threads, before, strict=True)), "clients are answered again")
    finally:
        for thread in threads:
            thread.stopped.set()
        for thread in threads:
            thread.join(60)
    assert [thread.lost for thread in threads] == [[] for _ in threads]


def test_it_ends_when_it_is_told_to_and_leaves_no_socket(serve, path):
    server = serve()
    assert len(server.processes()) == 2
    workers = server.processes()
    assert server.stop() == 0
    assert not os.path.exists(server.place) and not (path / "serve.sock").exists()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in [*workers, *sum(workers.values(), [])]),
          "nothing is left")


def test_idle_connections_are_closed_when_it_ends(serve):
    server = serve()
    clients = [server.client(place) for place in (None, "tcp", server.hook_place) for _ in range(5)]
    assert all(client.ask(policy(state="VRFY")) == "action=DUNNO" for client in clients)
    assert server.stop() == 0
    assert all(client.reply() is None for client in clients)


def test_what_was_read_before_the_end_is_answered(serve, make_store, path, pending_path):
    """Promotions that wait for a scribe which is stopped, and so certainly wait, when the server is told to end."""
    with fastgrey.open(make_store()) as store:
        for i in range(10):
            store.check(client="192.0.2.1", sender=f"a{i}", recipient=f"b{i}@example.net")
    age(path, pending_path, 400)
    server = serve(workers=1)
    (worker, (scribe,)), = server.processes().items()
    os.kill(scribe, signal.SIGSTOP)
    names = "abcdefghij"
    clients = [server.client() for _ in names]
    try:
        for client in clients:
            client.send(policy(sender="a0", recipient="b0@example.net"))
        # Answered after what was sent before, by the same worker.
        assert server.ask(policy(state="VRFY")) == "action=DUNNO"
        server.signal(signal.SIGTERM)
        until(lambda: not os.path.exists(f"/proc/{worker}/fd") or _listening(worker) == 0, "it takes no more")
    finally:
        os.kill(scribe, signal.SIGCONT)
    replies = [client.reply() for client in clients]
    assert server.stop() == 0
    assert None not in replies and all(reply.startswith("action=") for reply in replies)
    assert len(server.said("accept retry")) == 1 and len(server.said("accept known-triplet")) == 9


def _listening(pid):
    """Sockets of a process that listen."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    with open("/proc/net/unix") as lines:
        return sum(f"socket:[{line.split()[6]}]" in inodes and line.split()[3] == "00010000" for line in lines
                   if len(line.split()) > 6)


def test_a_reload_loses_nothing_while_everybody_asks(serve):
    server = serve()
    first = set(server.processes())
    tcp = ("127.0.0.1", server.port)
    with asking(server.place, tcp, server.place, tcp):
        for number in range(1, 4):
            before = set(server.processes())
            server.configure(f'defer_text = "text {number}"')
            server.signal(signal.SIGHUP)
            until(lambda: f"text {number}" in server.ask(policy(sender="n@example.com")), "the new text is said")
            until(lambda: not before & set(children(server.process.pid)), "the old workers end")
            assert len(server.processes()) == 2
    assert not first & set(server.processes())
    assert server.stop() == 0
    assert server.said("Traceback") == [] and server.said("killed") == []


@pytest.fixture
def ripe(make_store, path, pending_path):
    """A store in which the request of policy() is about to be promoted."""
    with fastgrey.open(make_store("on_error=defer")) as store:
        store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
    age(path, pending_path, 400)


def test_what_waits_for_the_scribe_is_answered_across_a_reload(serve, ripe):
    server = serve(workers=1)
    (worker, (scribe,)), = server.processes().items()
    os.kill(scribe, signal.SIGSTOP)
    try:
        client = server.client()
        client.send(policy())
        until(lambda: server.ask(policy(state="VRFY")) == "action=DUNNO", "the worker read it")
        server.signal(signal.SIGHUP)
        until(lambda: set(server.processes()) != {worker}, "another worker comes")
    finally:
        os.kill(scribe, signal.SIGCONT)
    assert client.reply().startswith("action=PREPEND")
    assert client.reply() is None
    until(lambda: worker not in server.processes(), "the old worker ends")


def test_a_reload_listens_elsewhere_and_no_more_where_it_did(serve, tmp_path):
    server = serve()
    other = os.path.relpath(tmp_path / "other.sock")
    old = server.place
    server.place = other
    server.configure("")
    server.signal(signal.SIGHUP)
    until(lambda: not os.path.exists(old), "the old socket goes")
    assert server.ask(policy()).startswith("action=DEFER_IF_PERMIT")


def test_a_configuration_that_is_wrong_changes_nothing(serve):
    server = serve()
    before = set(server.processes())
    server.configure("idle = true")
    server.signal(signal.SIGHUP)
    until(lambda: server.said("not reloaded"), "it says so")
    line, = server.said("not reloaded")
    assert f"{server.config}:4: idle: expected a duration" in line
    assert server.ask(policy()).startswith("action=") and set(server.processes()) == before


def test_new_workers_that_cannot_run_change_nothing(serve, path):
    server = serve()
    before = set(server.processes())
    # The old ones have it open.
    (path / "current").rename(path / "elsewhere")
    server.signal(signal.SIGHUP)
    until(lambda: server.said("the old ones go on"), "it says so")
    (path / "elsewhere").rename(path / "current")
    assert server.ask(policy()).startswith("action=")
    until(lambda: set(server.processes()) == before, "only the old ones are left")
    server.signal(signal.SIGHUP)
    until(lambda: not before & set(children(server.process.pid)), "a good reload comes through")


def test_a_worker_that_dies_is_replaced(serve):
    server = serve()
    victim = min(server.processes())
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(server.processes()) == 2 and victim not in server.processes(), "another one begins")
    assert server.said(f"worker {victim} ended by signal 9; another one begins")
    with contextlib.closing(server.client()) as client:
        assert client.ask(policy()).startswith("action=")


def test_a_scribe_that_dies_is_replaced_and_asked_again(serve, ripe, path):
    server = serve(workers=1)
    (worker, (scribe,)), = server.processes().items()
    os.kill(scribe, signal.SIGSTOP)
    client = server.client()
    client.send(policy())
    # A stranger is recorded and answered meanwhile, and this is not.
    assert server.ask(policy(sender="x@example.com")).startswith("action=DEFER")
    assert not client.has_more()
    os.kill(scribe, signal.SIGKILL)
    assert client.reply().startswith("action=PREPEND")
    assert server.said(f"the scribe {scribe} is gone; what waits for it is asked again")
    assert set(server.processes()) == {worker}
    server.stop()
    assert len(server.said("accept retry")) == 1
    with fastgrey.open(path) as store:
        assert store.counters()["events"]["promoted"] == 1
        assert store.counters()["verdicts"] == {"defer new": 2, "accept retry": 1}


def test_who_is_known_does_not_wait_for_the_last_seen_time(serve, make_store, path):
    """Due at every check, and written by a scribe that is stopped."""
    with fastgrey.open(make_store("refresh=0")) as store:
        store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net", now=1_000_000_000)
        store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net", now=1_000_000_400)
        refreshed = store.counters()["events"]["refreshed"]
    server = serve(workers=1)
    (_, (scribe,)), = server.processes().items()
    os.kill(scribe, signal.SIGSTOP)
    client = server.client(server.hook_place)
    try:
        assert client.ask(hook(now="1000000500")).startswith("verdict=accept known-domain")
    finally:
        os.kill(scribe, signal.SIGCONT)
    with fastgrey.open(path) as store:
        until(lambda: store.counters()["events"]["refreshed"] == refreshed + 1, "the scribe writes it")
        assert store.counters()["verdicts"] == {"defer new": 1, "accept retry": 1, "accept known-domain": 1}


def test_a_request_on_which_scribes_die_is_an_error_in_the_end(serve, ripe, path):
    server = serve(workers=1)
    (worker, _), = server.processes().items()
    client = server.client()
    seen = set()
    # Every scribe is killed that has got the request and cannot do it.
    with _write_locked(path):
        client.send(policy())
        for _ in range(2):
            scribe = until(lambda: next((pid for pid in children(worker) if pid not in seen and _waits(pid)), None),
                           "a scribe waits for the lock")
            seen.add(scribe)
            os.kill(scribe, signal.SIGKILL)
        assert client.reply().startswith("action=DEFER_IF_PERMIT 4.3.0")
    assert server.ask(policy()).startswith("action=")


@contextlib.contextmanager
def _write_locked(path):
    """Hold the write lock of the table of what was earned, in a process of its own."""
    code = ("import lmdb, sys\n"
            f"e = lmdb.open({str(path / os.readlink(path / 'current'))!r}, max_dbs=8)\n"
            "t = e.begin(write=True)\nprint('held', flush=True)\nsys.stdin.read()\nt.abort()\n")
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.communicate()


def _waits(pid):
    """Does the process wait for a lock between processes?"""
    try:
        with open(f"/proc/{pid}/wchan") as file:
            return "futex" in file.read()
    except OSError:
        return False


def test_workers_end_with_a_master_that_was_killed(serve):
    server = serve()
    everybody = [*server.processes(), *sum(server.processes().values(), [])]
    assert len(everybody) == 4
    server.process.kill()
    server.process.wait()
    until(lambda: not any(_alive(pid) for pid in everybody), "they end")


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_path_of_a_store_may_be_longer_than_an_address(tmp_path):
    long = tmp_path / ("long" * 30)
    long.mkdir()
    fastgrey.create(long / "store")
    server = Server(long / "store", tmp_path)
    try:
        server.begun()
        assert (long / "store" / "serve.sock").is_socket()
        with addresses.within(str(long / "store" / "serve.sock")) as place:
            assert server.client(place).ask(hook()).startswith("verdict=")
    finally:
        server.end()
    assert not (long / "store" / "serve.sock").exists()


def test_two_servers_of_a_store_are_one_too_many(serve, run_fastgrey):
    server = serve()
    done = run_fastgrey("serve", "--config", str(server.config))
    assert done.returncode == 1
    assert done.stderr.startswith("fastgrey: cannot listen on unix:") and "Address already in use" in done.stderr
    assert server.ask(policy()).startswith("action=")


def test_what_a_killed_server_left_is_no_obstacle(serve):
    server = serve()
    server.process.kill()
    server.process.wait()
    until(lambda: os.path.exists(server.place), "the socket is still there")
    # Its workers listen until they have seen that the master is gone.
    until(lambda: not answers(server.place), "nobody listens")
    second = serve()
    assert second.ask(policy()).startswith("action=")


@pytest.mark.parametrize("wrong", ["no store", "a file in the way", "nowhere to listen", "a name", "a place"])
def test_it_says_in_one_line_why_it_cannot_begin(serve, make_store, path, tmp_path, wrong):
    make_store()
    if wrong == "no store":
        (path / "current").unlink()
        server = serve(ready=False)
        expected = "there is no store"
    elif wrong == "a file in the way":
        (tmp_path / "policy.sock").write_text("mine")
        server = serve(ready=False)
        expected = "there is a file that is no socket"
    elif wrong == "a name":
        server = serve(ready=False, config='metrics = "ä..b:1"')
        expected = "no name of a host"
    elif wrong == "a place":
        place = "tcp:" + "a" * 64 + ":1"
        config = tmp_path / "conf.d"
        config.mkdir()
        (config / "more.toml").write_text(f'[serve]\nlisten = ["{place}"]\n')
        server = serve(ready=False)
        expected = "no name of a host"
    else:
        server = serve(ready=False, config='metrics = ""\n[serve.x]')
        expected = "serve.x: no such option"
    assert server.process.wait(60) != 0
    assert expected in server.log() and "Traceback" not in server.log()
    if wrong == "a file in the way":
        assert (tmp_path / "policy.sock").read_text() == "mine"


# The command, with less patience than it has.
IMPATIENT = """
import sys
from fastgrey.serve import master
from fastgrey.cli.main import main
master.GRACE = -4
sys.argv = sys.argv[1:]
main()
"""


def test_a_worker_that_is_stuck_does_not_hold_up_the_end(serve):
    server = serve(workers=1, wrapper=[sys.executable, "-c", IMPATIENT])
    (worker, _), = server.processes().items()
    os.kill(worker, signal.SIGSTOP)
    begun = time.monotonic()
    server.signal(signal.SIGTERM)
    server.process.wait(60)
    assert server.said(f"worker {worker} does not end and is killed"), time.monotonic() - begun


def test_hooks_may_ask_only_from_the_group_of_the_store(serve, path):
    server = serve()
    assert (path / "serve.sock").stat().st_mode & 0o777 == 0o660
    assert os.stat(server.place).st_mode & 0o777 == 0o666
    assert server.client(server.hook_place).ask(hook()).startswith("verdict=")


def test_a_store_that_takes_the_place_of_the_old_one_is_used_from_then_on(serve, path, tmp_path):
    server = serve(workers=1)
    assert server.ask(policy()).startswith("action=DEFER_IF_PERMIT")
    path.rename(tmp_path / "old")
    # While none stands there the workers go on with what they have open.
    assert server.ask(policy()).startswith("action=DEFER_IF_PERMIT")
    fastgrey.create(path, fastgrey.settings.parse_assignments(["mode=learn"]))
    until(lambda: server.ask(policy()) == "action=DUNNO", "another worker decides by the new store")
    until(lambda: os.path.exists(server.hook_place), "hooks find the server")
    assert server.client(server.hook_place).ask(hook(sender="x@example.com")).startswith("verdict=accept learn")
    assert len(server.said("another store stands")) == 1
    server.stop()
    assert server.said("Traceback") == [] and not os.path.exists(server.hook_place)


def test_a_late_answer_of_the_scribe_is_not_the_next_requests(serve, make_store):
    """A request is given up that the scribe has, and the next one over the same connection is given to it too."""
    with fastgrey.open(make_store("on_error=defer")) as store:
        for sender in ("a@example.org", "c@example.com"):
            store.check(client="192.0.2.1", sender=sender, recipient="b@example.net", now=1_000_000_000)
    server = serve(workers=1)
    (_, (scribe,)), = server.processes().items()
    client = server.client(server.hook_place)
    os.kill(scribe, signal.SIGSTOP)
    try:
        assert "cause=" in client.ask(hook(now="1000000400"))
        client.send(hook(sender="c@example.com", now="1000000500"))
        # Answered after what was sent before, by the same worker.
        assert server.ask(policy(state="VRFY")) == "action=DUNNO"
    finally:
        os.kill(scribe, signal.SIGCONT)
    assert "waited=500" in client.reply().splitlines()


def test_what_waits_to_be_taken_in_is_answered_before_the_end(serve):
    server = serve(workers=1)
    (worker, _), = server.processes().items()
    os.kill(worker, signal.SIGSTOP)
    try:
        clients = [server.client(place) for place in (None, "tcp") for _ in range(50)]
        for client in clients:
            client.send(policy(state="VRFY"))
        server.signal(signal.SIGTERM)
        until(lambda: not os.path.exists(server.place), "the server ends")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert [client.reply() for client in clients] == ["action=DUNNO"] * 100
    assert server.stop() == 0


def test_an_old_worker_that_dies_while_others_take_over_has_its_successor(serve):
    server = serve()
    before = set(server.processes())
    server.signal(signal.SIGHUP)
    new = until(lambda: set(children(server.process.pid)) - before, "new ones begin")
    for pid in new:
        os.kill(pid, signal.SIGSTOP)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in children(server.process.pid), "the master saw it")
    for pid in new:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not before & set(children(server.process.pid)), "the old ones end")
    until(lambda: len(server.processes()) == 2 and all(server.processes().values()), "the new ones run")
    # Longer than it takes until a worker that died is begun again.
    time.sleep(1)
    assert len(children(server.process.pid)) == 2


def test_a_worker_that_waits_to_begin_again_does_after_a_reload_that_failed(serve, path):
    server = serve()
    (path / "current").rename(path / "elsewhere")
    os.kill(min(server.processes()), signal.SIGKILL)
    until(lambda: server.said("ended with status 1"), "another one cannot begin")
    server.signal(signal.SIGHUP)
    until(lambda: server.said("the old ones go on"), "the reload fails")
    (path / "elsewhere").rename(path / "current")
    until(lambda: len([scribes for scribes in server.processes().values() if scribes]) == 2, "both run again")


def test_a_reload_that_fails_leaves_the_metrics_where_they_were(serve, tmp_path):
    old, new = free_port(), free_port()
    server = serve(config=f'metrics = "127.0.0.1:{old}"')
    (tmp_path / "file").write_text("")
    good = server.place
    server.place = os.path.relpath(tmp_path / "file")
    server.configure(f'metrics = "127.0.0.1:{new}"')
    server.signal(signal.SIGHUP)
    until(lambda: server.said("there is a file that is no socket"), "it is not reloaded")
    server.place = good
    server.configure(f'metrics = "127.0.0.1:{old}"\ndefer_text = "reloaded"')
    server.signal(signal.SIGHUP)
    until(lambda: "reloaded" in server.ask(policy(sender="n@example.com")), "a good reload comes through")
    assert len(server.said("not reloaded")) == 1


def test_only_workers_have_the_sockets_of_mail_servers(serve):
    """Whoever else had them kept mail servers waiting when the master is killed."""
    port = free_port()
    server = serve(config=f'metrics = "127.0.0.1:{port}"\nengine = "valkey://127.0.0.1:1/0"')
    until(lambda: len(children(server.process.pid)) == 4, "all run")
    until(lambda: sorted(_listening(pid) for pid in children(server.process.pid)) == [0, 0, 2, 2],
          "the keeper and the watcher let go")
    server.process.kill()
    server.process.wait()
    with socket.socket() as probe:
        until(lambda: not _bound(probe, port), "the address of the metrics is free")


def _bound(probe, port):
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return True
    return False


@pytest.mark.parametrize("number", [64, 256])
def test_connections_are_shared_out_among_workers(serve, number):
    server = serve()
    workers = list(server.processes())
    before = [len(os.listdir(f"/proc/{pid}/fd")) for pid in workers]
    clients = [server.client() for _ in range(number)]
    assert [client.ask(policy(state="VRFY")) for client in clients] == ["action=DUNNO"] * number
    taken = [len(os.listdir(f"/proc/{pid}/fd")) - count for pid, count in zip(workers, before, strict=True)]
    assert sum(taken) == number and min(taken) >= number // 8, taken


def test_a_scribe_imports_nothing_from_where_the_server_was_started(make_store, path, tmp_path, monkeypatch):
    make_store()
    (tmp_path / "fastgrey").mkdir()
    (tmp_path / "fastgrey" / "__init__.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    end, process = scribe.begin(str(path))
    end.close()
    assert process.wait(60) == 0
