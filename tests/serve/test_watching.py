"""What a server counts, and what it answers over HTTP to whoever watches it: by real processes on a real store."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from conftest import write_lock_held
from fastgrey import directory
from fastgrey.serve import board as cells, web
from fastgrey.serve.board import Board
from serving import until

WATCHED = Path(__file__).with_name("watched.py")
SECONDS = 60


@pytest.fixture
def watched(path):
    """start(SECONDS, DEADLINE) runs watched.py on the store of the test: tell(line), get(path), and its processes."""
    running = []

    def start(*words):
        process = subprocess.Popen([sys.executable, WATCHED, str(path), *words], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        running.append(process)
        port, worker, watcher = map(int, process.stdout.readline().split())

        def tell(line):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        def get(name, method="GET", **headers):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{name}", headers=headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as answer:
                return answer.code, answer.read().decode()

        def samples():
            status, text = get("/metrics")
            assert status == 200
            return {(sample.name, *sorted(f"{name}={value}" for name, value in sample.labels.items()
                                          if name != "store")): sample.value
                    for family in prometheus(text) for sample in family.samples}

        until(lambda: get("/ready")[1] != "the store was not looked at yet\n", "the store was looked at")
        return SimpleNamespace(port=port, worker=worker, watcher=watcher, process=process, tell=tell, get=get,
                               samples=samples)

    yield start
    for process in running:
        process.communicate(timeout=SECONDS)


def test_counts_of_a_worker(watched, make_store):
    """A bucket holds what is not above its bound, the last one everything; what is open is not summed up over time."""
    make_store()
    server = watched()
    before = server.samples()
    assert before["fastgrey_serve_requests_total", "kind=postfix", "result=defer"] == 0
    server.tell("count")
    server.tell("count")
    after = server.samples()
    assert {name: value for name, value in after.items()
            if name[0].startswith("fastgrey_serve_") and value != before.get(name) and "age" not in name[0]} == {
        ("fastgrey_serve_connections_open",): 1,
        ("fastgrey_serve_connections_total",): 4,
        ("fastgrey_serve_requests_total", "kind=plain", "result=reject"): 2,
        ("fastgrey_serve_broken_requests_total",): 2,
        ("fastgrey_serve_decisions_total", "records=local"): 2,
        ("fastgrey_serve_decisions_total", "records=engine"): 2,
        ("fastgrey_serve_decisions_total", "records=error"): 2,
        **{("fastgrey_serve_decision_seconds_bucket", f"le={bound}"): 2 for bound in cells.BOUNDS if bound >= 0.00025},
        ("fastgrey_serve_decision_seconds_bucket", "le=+Inf"): 6,
        ("fastgrey_serve_decision_seconds_count",): 6,
        ("fastgrey_serve_decision_seconds_sum",): pytest.approx(240.0004),
    }


def test_a_worker_that_takes_the_place_of_another_counts_on(watched, make_store):
    """A total that began anew would look like a server that did; what is open went with the process."""
    make_store()
    server = watched()
    server.tell("count")
    server.tell("kill")
    samples = server.samples()
    assert samples["fastgrey_serve_connections_open",] == 0
    assert samples["fastgrey_serve_connections_total",] == 2
    assert samples["fastgrey_serve_workers",] == 0
    assert samples["fastgrey_serve_worker_restarts_total",] == 1
    server.tell("begin")
    server.tell("count")
    assert server.samples()["fastgrey_serve_connections_total",] == 4
    assert server.samples()["fastgrey_serve_workers",] == 1


def test_health(watched, make_store):
    make_store()
    server = watched()
    assert server.get("/health") == (200, "alive\n")
    server.tell("kill")
    assert server.get("/health") == (503, "0 of 1 workers run\n")
    server.tell("begin")
    assert server.get("/health") == (200, "alive\n")


def test_health_of_a_worker_that_hangs(watched, make_store):
    make_store()
    server = watched("0.5")
    server.tell("stop")
    until(lambda: server.get("/health")[0] == 503, "the worker is missed")
    assert re.fullmatch(r"worker \d+ did nothing for \d+ seconds\n", server.get("/health")[1])


def test_ready_while_the_store_opens(watched, make_store, path):
    make_store()
    server = watched()
    assert server.get("/ready") == (200, "ready\n")
    assert server.samples()["fastgrey_serve_ready",] == 1
    os.rename(path, f"{path}.away")
    until(lambda: server.get("/ready")[0] == 503, "the store is missed")
    status, why = server.get("/ready")
    assert f"cannot open the store {path}: No such file or directory" in why
    assert why.count("\n") == 1
    assert server.samples()["fastgrey_serve_ready",] == 0
    # Being alive is another question.
    assert server.get("/health")[0] == 200
    os.rename(f"{path}.away", path)
    until(lambda: server.get("/ready")[0] == 200, "the store is back")


def test_facts_of_the_store(watched, make_store, path):
    """The same families as of `fastgrey stats --prometheus`, with the store as their label."""
    with directory.open_store(make_store()) as store:
        store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
    server = watched()
    until(lambda: "fastgrey_checks_total" in server.get("/metrics")[1], "the store was looked at for metrics")
    status, text = server.get("/metrics")
    own = {family.name: family for family in prometheus(text) if not family.name.startswith("fastgrey_serve_")}
    told = subprocess.run([Path(sys.executable).with_name("fastgrey"), "stats", "--store", str(path), "--prometheus"],
                          capture_output=True, text=True, check=True).stdout
    assert {name: (family.type, family.documentation, family.samples) for name, family in own.items()} == {
        family.name: (family.type, family.documentation, family.samples) for family in prometheus(told)}
    (new,) = [sample for sample in own["fastgrey_checks"].samples if sample.labels["reason"] == "new"]
    assert (new.value, new.labels["store"]) == (1, str(path))


def test_a_store_that_nobody_can_write_to(watched, make_store, path):
    """Whoever holds the write lock does not hold up whoever watches."""
    make_store()
    server = watched()
    with write_lock_held(path / "current"):
        assert server.get("/ready")[0] == 200
        assert server.get("/metrics")[0] == 200


def test_openmetrics(watched, make_store):
    """The form that Prometheus asks for; its parser is the stricter one."""
    make_store()
    server = watched()
    until(lambda: "fastgrey_checks_total" in server.get("/metrics")[1], "the store was looked at for metrics")
    status, text = server.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert {family.name for family in openmetrics(text)} >= {"fastgrey_serve_decision_seconds", "fastgrey_checks"}


@pytest.mark.parametrize(("method", "name", "status", "said"), [
    ("GET", "/", 404, "there are /metrics, /health and /ready\n"),
    ("GET", "/metrics/x", 404, "there are /metrics, /health and /ready\n"),
    ("POST", "/metrics", 405, "GET is for reading; nothing else is here\n"),
    ("HEAD", "/health", 200, ""),
])
def test_what_else_is_asked(watched, make_store, method, name, status, said):
    make_store()
    assert watched().get(name, method) == (status, said)


def descriptors(process):
    return len(os.listdir(f"/proc/{process}/fd"))


def test_hostile_clients(watched, make_store):
    """Who connects and says nothing, drips, sends megabytes or reads nothing gets no more than its share: all who are
    served at once are hung up on in time, and others then get their answer."""
    make_store()
    server = watched()
    assert server.get("/health")[0] == 200
    before = until(lambda: descriptors(server.watcher), "its descriptors")
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) for _ in range(4 * web.CLIENTS)]
    for number, connection in enumerate(held):
        with contextlib.suppress(OSError):
            if number % 4 == 1:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
            elif number % 4 == 2:
                connection.settimeout(1)
                connection.sendall(b"A" * (1 << 20))
            elif number % 4 == 3:
                connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert descriptors(server.watcher) <= before + 2 * web.CLIENTS
    assert len(os.listdir(f"/proc/{server.watcher}/task")) <= 3 * web.CLIENTS

    def answered():
        with contextlib.suppress(OSError):
            return server.get("/health") == (200, "alive\n")

    until(answered, "an answer while they are still connected")
    for connection in held:
        connection.close()


def test_a_client_that_drips(watched, make_store):
    """A byte now and then is no reason to go on for ever."""
    make_store()
    server = watched("30", "1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Header: ")

        def hung_up():
            try:
                connection.sendall(b"x")
                connection.setblocking(False)
                return connection.recv(1000) == b""
            except BlockingIOError:
                time.sleep(0.2)
                return False
            except OSError:
                return True
            finally:
                connection.setblocking(True)

        until(hung_up, "the connection is closed")
    assert server.get("/health")[0] == 200


def test_it_ends_with_its_master(watched, make_store):
    make_store()
    server = watched()
    server.process.kill()
    server.process.wait(SECONDS)

    def gone():
        # Nobody waits for it in a container whose first process does not; then it is left as a zombie.
        try:
            return Path(f"/proc/{server.watcher}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    until(gone, "the process that answers over HTTP ended")
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.worker, signal.SIGKILL)


def test_rows_do_not_touch():
    """Every cell of every row is its own."""
    board = Board()
    rows = [board.master, *board.workers]
    for place, row in enumerate(rows):
        for cell in range(cells.USED + 1):
            row.set(cell, (place << 32) + cell)
    assert [row.cells.tolist()[:cells.USED + 1] for row in rows] == [
        [(place << 32) + cell for cell in range(cells.USED + 1)] for place in range(len(rows))]
    assert len({*cells.REQUESTS.values(), *cells.DECISIONS.values()}) == len(cells.REQUESTS) + len(cells.DECISIONS)
    assert min(cells.REQUESTS.values()) > cells.TOOK
    assert max(cells.DECISIONS.values()) < cells.BUCKETS


def test_who_runs():
    board = Board()
    board.master.begin()
    board.master.set(cells.WANTED, 2)
    assert board.silent(30) == "0 of 2 workers run"
    one, two = board.claim(), board.claim()
    assert one is not two
    assert board.silent(30) is None
    one.end()
    assert board.silent(30) == "1 of 2 workers run"
    assert board.claim() is one
    two.set(cells.BEAT, two.cells[cells.BEAT] - 31 * 10**9)
    assert board.silent(30) == f"worker {os.getpid()} did nothing for 31 seconds"
    two.beat()
    board.master.set(cells.BEAT, board.master.cells[cells.BEAT] - 40 * 10**9)
    assert board.silent(30) == "the master did nothing for 40 seconds"
