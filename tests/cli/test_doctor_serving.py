"""fastgrey doctor on a store whose records are shared: does anybody answer the hooks, and can he decide?"""

import json
import os
import signal

import pytest

import fastgrey
from listening import SOCKET, listening, serving

REMEDY = "; or set shared = false and run: fastgrey apply"


@pytest.fixture
def found(run_fastgrey):
    """What doctor finds about the server: level, what, remedy; all that name its socket."""

    def run():
        done = run_fastgrey("doctor", "--json")
        assert done.stderr == ""
        return [(one["level"], one["what"], one["remedy"]) for one in json.loads(done.stdout)["findings"]
                if SOCKET in one["what"]]

    return run


def counted(store):
    with fastgrey.open(store) as opened:
        return opened.counters()["verdicts"], opened.partitions()


def test_real_server(make_store, found):
    store = make_store("shared=true")
    with serving(store) as server:
        assert found() == [("good", f"fastgrey serve answers hooks at {store / SOCKET}", "")]
        assert counted(store) == ({}, []), "looking leaves nothing"
        os.killpg(server.pid, signal.SIGSTOP)
        try:
            ((level, what, remedy),) = found()
        finally:
            os.killpg(server.pid, signal.SIGCONT)
    assert (level, remedy.endswith(REMEDY)) == ("wrong", True)
    assert f"nobody answers hooks at {store / SOCKET}: no answer in time" in what


@pytest.mark.parametrize(("make", "why"), [
    (lambda place: None, "No such file or directory"),
    (lambda place: place.write_bytes(b""), "Connection refused"),
    (lambda place: place.symlink_to("nowhere"), "Connection refused"),
], ids=["nothing", "file", "link"])
def test_nobody_answers(make_store, found, make, why):
    store = make_store("shared=true")
    make(store / SOCKET)
    ((level, what, remedy),) = found()
    assert level == "wrong"
    assert what == f"records are shared, but nobody answers hooks at {store / SOCKET}: {why}; they do what on_error says"
    assert remedy == f"run: fastgrey serve --store {store}{REMEDY}"


def test_something_else_answers(make_store, found):
    store = make_store("shared=true")
    for answer in (b"action=DUNNO\n\n", b"", b"x" * 10_000):
        with listening(store, answer):
            ((level, what, remedy),) = found()
        assert level == "wrong"
        assert what == f"what answers at {store / SOCKET} is not fastgrey serve"
        assert remedy == f"see who made it, remove it, and run: fastgrey serve --store {store}"


def test_server_that_cannot_decide(make_store, found):
    store = make_store("shared=true")
    with listening(store, b"verdict=accept error 0\ncause=the engine is away; see the log\n\n"):
        assert found() == [("wrong", f"fastgrey serve answers at {store / SOCKET} and cannot decide: the engine is away",
                            "see the log")]


def test_server_of_a_store_that_is_not_shared(make_store, found):
    store = make_store()
    assert found() == []
    with listening(store, b""):
        assert found() == [("good", f"fastgrey serve listens at {store / SOCKET}; hooks decide without it (shared = false)",
                            "")]
