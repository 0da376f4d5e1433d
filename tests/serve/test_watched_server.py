"""/metrics, /health and /ready of the real server, and what it counts there."""

import contextlib
import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as prometheus

from machine import lower
from ports import free_port
from serving import children, policy, until


class Watched:
    """A server that is asked how it is."""

    def __init__(self, server, port):
        self.server = server
        self.port = port

    def get(self, name):
        """Status and body; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{name}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()
        except OSError:
            return None

    def samples(self):
        """Those of the server itself, by name and labels."""
        status, text = self.get("/metrics")
        assert status == 200
        return {(sample.name.removeprefix("fastgrey_serve_"), *sorted(value for name, value in sample.labels.items()
                                                                     if name != "store")): sample.value
                for family in prometheus(text) for sample in family.samples
                if sample.name.startswith("fastgrey_serve_")}

    def becomes(self, wanted):
        """Wait until these samples have these values; workers tell what they counted twice a second."""
        def same():
            found = self.samples()
            return all(found.get(name) == value for name, value in wanted.items())

        with contextlib.suppress(AssertionError):
            until(same, "samples")
        found = self.samples()
        assert {name: found.get(name) for name in wanted} == wanted

    def watcher(self):
        """The process that answers: it is no worker, and has no scribe."""
        for child in children(self.server.process.pid):
            with contextlib.suppress(OSError):
                names = [os.readlink(f"/proc/{child}/fd/{fd}") for fd in os.listdir(f"/proc/{child}/fd")]
                inode = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
                         if int(line.split()[1].split(":")[1], 16) == self.port and line.split()[3] == "0A"}
                if any(f"socket:[{number}]" in names for number in inode) and len(children(child)) == 0:
                    return child
        return None


@pytest.fixture
def watched(serve):
    def begin(*assignments, config="", **options):
        port = free_port()
        one = Watched(serve(*assignments, config=f'metrics = "127.0.0.1:{port}"\n{config}', **options), port)
        until(lambda: one.get("/ready") == (200, "ready\n"), "ready")
        return one

    return begin


def test_requests_are_counted(watched):
    one = watched()
    client = one.server.client()
    client.ask(policy())
    client.ask(policy(state="DATA"))
    client.ask(policy(client="no address"))
    one.server.client().line("192.0.2.1", "a@example.org", "b@example.net")
    one.server.client().send(b"GARBAGE\n")
    one.becomes({
        ("requests_total", "defer", "postfix"): 1, ("requests_total", "postfix", "skip"): 1,
        ("requests_total", "accept", "postfix"): 1, ("requests_total", "defer", "plain"): 1,
        ("broken_requests_total",): 1, ("connections_total",): 3, ("connections_open",): 2,
        ("decisions_total", "local"): 2, ("decisions_total", "error"): 1, ("decisions_total", "engine"): 0,
        ("decision_seconds_count",): 3, ("decision_seconds_bucket", "+Inf"): 3, ("workers",): 2, ("ready",): 1,
    })
    assert 0 < one.samples()["decision_seconds_sum",] < 60
    client.close()
    one.becomes({("connections_open",): 1, ("connections_total",): 3})


def test_a_worker_that_is_killed(watched):
    """Another one begins, and counts go on."""
    one = watched(workers=1)
    one.server.client().ask(policy())
    one.becomes({("requests_total", "defer", "postfix"): 1})
    watcher = one.watcher()

    def missed():
        # Its successors too: each one comes later after the one before it, until there is time to see it.
        for worker in set(children(one.server.process.pid)) - {watcher}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        return one.get("/health") == (503, "0 of 1 workers run\n")

    until(missed, "the worker is missed")
    until(lambda: one.get("/health") == (200, "alive\n"), "another one runs")
    one.server.client().ask(policy())
    one.becomes({("requests_total", "defer", "postfix"): 2, ("workers",): 1, ("connections_open",): 1})
    assert one.samples()["worker_restarts_total",] >= 1


def test_reload_counts_on(watched):
    """Workers that are replaced leave their counts; another address is answered on from then on."""
    one = watched()
    one.server.ask(policy())
    one.becomes({("requests_total", "defer", "postfix"): 1})
    before = one.port
    one.port = free_port()
    one.server.configure(f'metrics = "127.0.0.1:{one.port}"\n')
    one.server.signal(signal.SIGHUP)
    until(lambda: one.get("/ready") == (200, "ready\n"), "the other address")
    one.server.ask(policy())
    one.becomes({("requests_total", "defer", "postfix"): 2, ("workers",): 2, ("worker_restarts_total",): 0})
    one.port = before
    until(lambda: one.get("/health") is None, "nobody answers there any more")


def test_the_watcher_is_killed(watched):
    """Mail does not notice, and another one begins."""
    one = watched()
    watcher = until(one.watcher, "it answers")
    client = one.server.client()
    client.ask(policy())
    os.kill(watcher, signal.SIGKILL)
    assert "DEFER" in client.ask(policy())
    until(lambda: one.watcher() not in (None, watcher), "another one")
    until(lambda: one.get("/ready") == (200, "ready\n"), "it answers")
    assert one.server.said("what answers /metrics ended; another one begins")


def test_the_watcher_has_nothing_of_mail(watched):
    """No socket of a mail server, no store that is open all the time; it gives way to who answers mail."""
    one = watched()
    watcher = until(one.watcher, "it answers")
    listening = [os.readlink(f"/proc/{watcher}/fd/{fd}") for fd in os.listdir(f"/proc/{watcher}/fd")]
    inodes = {line.split()[6]: line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "serve.sock" in line}
    assert inodes
    assert not [inode for inode in inodes if f"socket:[{inode}]" in listening]
    # The tests may give way to others themselves.
    assert os.getpriority(os.PRIO_PROCESS, watcher) == lower(10)


def test_it_ends_with_the_server(watched):
    one = watched()
    watcher = until(one.watcher, "it answers")
    assert one.server.stop() == 0
    assert not os.path.exists(f"/proc/{watcher}")
    assert one.get("/health") is None


def test_an_address_that_is_taken(serve):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = serve(config=f'metrics = "127.0.0.1:{port}"', ready=False)
        assert server.process.wait(60) == 1
    assert server.log() == (f"fastgrey: cannot answer /metrics on 127.0.0.1:{port}: Address already in use; name another "
                            "address as metrics in [serve], or none\n")


def test_nobody_watches(serve):
    """Without metrics in [serve] there is no such process, and prometheus_client is not loaded."""
    server = serve(workers=1)
    (worker,) = children(server.process.pid)
    for process in (worker, server.process.pid):
        assert "prometheus" not in Path(f"/proc/{process}/maps").read_text()
    assert server.stop() == 0


def test_an_engine_that_is_away_is_told(watched_engine_away):
    one = watched_engine_away("local")
    status, why = until(lambda: (found := one.get("/ready")) and "not looked" not in found[1] and found, "looked at")
    assert (status, why.startswith("ready, on the local table: ")) == (200, True)
    assert "127.0.0.1:1" in why


def test_an_engine_that_is_away_without_fallback(watched_engine_away):
    one = watched_engine_away("on_error")
    status, why = until(lambda: (found := one.get("/ready")) and "not looked" not in found[1] and found, "looked at")
    assert (status, "127.0.0.1:1" in why, why.count("\n")) == (503, True, 1)
    assert one.get("/health")[0] == 200


@pytest.fixture
def watched_engine_away(serve):
    def begin(fallback):
        port = free_port()
        return Watched(serve("shared=true", config=f'metrics = "127.0.0.1:{port}"\nfallback = "{fallback}"\n'
                             'engine = "valkey://127.0.0.1:1/0"\n'), port)

    return begin


def test_who_keeps_an_engine_is_no_worker(serve):
    """Or /health would find one that does nothing, and would miss a worker that is not there."""
    port = free_port()
    one = Watched(serve(config=f'metrics = "127.0.0.1:{port}"\nengine = "valkey://127.0.0.1:1/0"'), port)
    until(lambda: one.get("/health"), "it answers")
    until(lambda: len(children(one.server.process.pid)) == 4, "workers, keeper and watcher run")
    one.becomes({("workers",): 2})
