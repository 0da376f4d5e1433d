"""A server whose records are with an engine: a real one, that comes, goes, and holds what others made."""

import contextlib
import tempfile
from pathlib import Path

import pytest

import fastgrey
from ports import free_port
from serving import hook, policy, until
from shared import redis_server


@contextlib.contextmanager
def _engine(port):
    """A server on that port that keeps nothing."""
    with tempfile.TemporaryDirectory() as folder:
        server = redis_server.Server(Path(folder))
        server.port = port
        server.start()
        try:
            yield
        finally:
            server.end()


@pytest.fixture
def port():
    redis_server.program()
    return free_port()


def test_records_are_the_engines(serve, port, path):
    config = f'engine = "valkey://127.0.0.1:{port}/0"'
    with _engine(port):
        server = serve(config=config)
        client = server.client(server.hook_place)
        assert client.ask(hook(now="1000000000")).startswith("verdict=defer new 300")
        assert client.ask(hook(now="1000000001")).startswith("verdict=defer early 299")
        answer = client.ask(hook(now="1000000400"))
        assert answer.startswith("verdict=accept retry 0") and "waited=400" in answer
        assert client.ask(hook(now="1000000401")).startswith("verdict=accept known-")
        assert server.client("tcp").ask(policy(sender="x@example.com")).startswith("action=DEFER_IF_PERMIT")
        # One behind the other, of which each is asked about when the one before it is answered.
        client.send(hook(sender="y@example.com", now="1000000000") * 3)
        assert [client.reply().split("\n")[0] for _ in range(3)] == [
            "verdict=defer new 300", "verdict=defer early 300", "verdict=defer early 300"]
        assert server.stop() == 0
    assert [line.split()[1:3] for line in server.said("sender=a@example.org")][:3] == [
        ["defer", "new"], ["defer", "early"], ["accept", "retry"]]
    assert server.said("Traceback") == []


def test_a_server_begins_and_ends_without_its_engine(serve, port):
    server = serve("on_error=defer", config=f'engine = "valkey://127.0.0.1:{port}/0"\nfallback = "on_error"')
    assert server.ask(policy()).startswith("action=DEFER_IF_PERMIT 4.3.0")
    with _engine(port):
        until(lambda: "300 seconds" in server.ask(policy(sender="x@example.com")), "it is asked once it is there")
        assert server.stop() == 0
    assert server.said("Traceback") == []


def test_the_log_tells_when_the_engine_goes_and_when_it_is_there_again(serve, port):
    server = serve(config=f'engine = "valkey://127.0.0.1:{port}/0"')
    with _engine(port):
        until(lambda: server.said("answers again"), "a line that it is there")
        away = len(server.said("decisions go on from what this machine knows"))
        assert 1 <= away <= server.workers
        until(lambda: server.said("appendonly"), "what it will not keep is told")
    assert server.ask(policy()).startswith("action=DEFER_IF_PERMIT")
    until(lambda: len(server.said("decisions go on from what this machine knows")) > away, "a line that it is away")
    assert server.stop() == 0


def test_an_engine_of_another_secret_is_refused_in_one_line(serve, port, path, tmp_path, make_store):
    config = f'engine = "valkey://127.0.0.1:{port}/0"'
    with _engine(port):
        server = serve(config=config)
        assert server.ask(policy()).startswith("action=DEFER")
        server.stop()
        path.rename(tmp_path / "other")
        fastgrey.create(path)
        second = serve(config=config, ready=False)
        assert second.process.wait(60) == 1
        assert second.said("holds records under another secret")
        assert second.said("Traceback") == []
