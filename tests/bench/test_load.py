"""What asks many questions at once checks every answer, and what it is set against answers. No time is asserted."""

import contextlib
import fcntl
import shutil
import socket
import sys
import termios
import threading
from pathlib import Path

import pytest

import serve
from daemons import reached
from figures import Count
from goals import GOALS
from peers import own
from peers.asking import Target, Tools
from peers.questions import Questions, known, line, new
from servers import Empty, Serve

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    return Tools(tmp_path_factory.mktemp("tools"))


@contextlib.contextmanager
def answering(where, answer):
    """A server that calls answer(question, connection) for each question, until what asks is gone."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen()
        listener.settimeout(60)
        threads, over = [], []

        def serve_one(connection):
            with connection, contextlib.suppress(OSError):
                asked = b""
                while got := connection.recv(4096):
                    asked += got
                    if asked.endswith(b"\n\n"):
                        answer(asked, connection)
                        asked = b""

        def accept():
            while True:
                connection, _ = listener.accept()
                if over:
                    return connection.close()
                threads.append(threading.Thread(target=serve_one, args=[connection]))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield Target("policy", str(where))
        finally:
            over.append(True)
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(where))
            for thread in (acceptor, *threads):
                thread.join(60)


def unread(connection):
    """Bytes that were sent and not read."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_asks_each_question_once(tmp_path, tools):
    """Over so many connections, one question at a time on each; the first ones are not among those timed."""
    asked, connections, busy = [], set(), set()

    def answer(question, connection):
        assert connection not in busy
        busy.add(connection)
        connections.add(connection)
        asked.append(dict(one.split("=", 1) for one in question.decode().split("\n") if one))
        # In pieces, each of which is read before the next one comes.
        for piece in (b"action=", b"DUNNO\n" if "known" in asked[-1]["sender"] else b"defer_if_permit x\n"):
            connection.sendall(piece)
            assert reached(lambda: unread(connection) == 0, 60)
        busy.remove(connection)
        connection.sendall(b"\n")

    file = Questions(tmp_path, 40).files("mixed", 50, 1)[0]
    with answering(tmp_path / "socket", answer) as target:
        found = tools.loaded(target, 3, file)
    assert (found["accept"] + found["defer"], found["wrong"]) == (47, 0)
    assert 0 < found["p50"] <= found["p99"] <= found["p999"] <= found["longest"] <= found["seconds"]
    assert len(connections) == 3
    questions = sorted(one.split()[1:] for one in file.read_text().splitlines())
    assert sorted([one["client_address"], one["sender"], one["recipient"]] for one in asked) == questions
    # Each of a message of its own, as a header may be due once a message.
    assert len({one["instance"] for one in asked}) == 50
    assert {(one["request"], one["protocol_state"]) for one in asked} == {("smtpd_access_policy", "RCPT")}


@pytest.mark.parametrize("last, said", [
    (b"action=defer_if_permit later\n\n", "not the answer due: "), (b"nonsense\n\n", "not the answer due: "),
    (b"action=DUNNO\n\naction=DUNNO\n\n", "Protocol error"), (b"action=DUNNO\n\nx", "Protocol error"),
    (b"", "Connection reset by peer")])
def test_a_wrong_answer_ends_the_run(last, said, tmp_path, tools):
    """The last one, too; and what is no answer at all."""
    number = 0

    def answer(question, connection):
        nonlocal number
        number += 1
        connection.sendall(b"action=DUNNO\n\n" if number < 9 else last)
        if not last and number == 9:
            connection.shutdown(socket.SHUT_RDWR)

    questions = Questions(tmp_path, 9)
    with answering(tmp_path / "socket", answer) as target, pytest.raises(SystemExit, match=said):
        tools.loaded(target, 1, questions.files("known", 9, 1)[0])


def test_an_untimed_question_is_checked(tmp_path, tools):
    """And so many wrong answers as are allowed are no error."""
    def answer(question, connection):
        connection.sendall(b"action=defer x\n\n" if b"known0." in question else b"action=DUNNO\n\n")

    file = Questions(tmp_path, 1).file(line(known(number), "accept") for number in (0, 1, 2))
    with answering(tmp_path / "socket", answer) as target:
        with pytest.raises(SystemExit, match="not the answer due: "):
            tools.loaded(target, 1, file)
        assert tools.loaded(target, 1, file, allowed=1)["wrong"] == 1


def test_a_connection_for_each_question(tmp_path, tools):
    """As greylistd has it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.settimeout(60)

        def answer():
            for _ in range(20):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"white" if b"known" in connection.recv(4096) else b"grey")

        server = threading.Thread(target=answer)
        server.start()
        found = tools.loaded(Target("greylistd", str(tmp_path / "socket")), 4,
                             Questions(tmp_path, 9).files("mixed", 20, 1)[0])
        server.join(60)
    assert (found["accept"] + found["defer"], found["none"], found["wrong"]) == (16, 0, 0)


def test_empty_server(tmp_path, tools):
    """It answers at the empty line, over both kinds of sockets, and its processes share the connections."""
    server = Empty(tmp_path / "empty", 2)
    with server.running(), contextlib.ExitStack() as stack:
        (children,) = Path(f"/proc/{server._process.pid}/task").glob("*/children")
        assert reached(lambda: len(children.read_text().split()) == 2, 60)

        def sockets():
            return sorted(sum(link.is_socket() for link in Path(f"/proc/{process}/fd").iterdir())
                          for process in children.read_text().split())

        for target in server.targets.values():
            found = tools.loaded(target, 5, Questions(tmp_path, 40).files("known", 30, 1)[0])
            assert (found["accept"], found["wrong"]) == (25, 0)
        with pytest.raises(SystemExit, match="not the answer due: "):
            tools.loaded(target, 1, Questions(tmp_path, 40).file(line(new(number), "defer") for number in range(2)))
        # Of these, and of whatever saw that it listens, nothing is left.
        assert reached(lambda: sockets() == [2, 2], 60)
        for number in range(20):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(60)
            connection.connect(server.where)
            for piece in (b"request=smtpd_access_policy\n", b"sender=x\n", b"\n", b"a=b\n\n"):
                connection.sendall(piece)
                if piece.endswith(b"\n\n") or piece == b"\n":
                    assert connection.recv(4096) == b"action=DUNNO\n\n"
            assert sockets() == [2 + (number + 1) // 2, 2 + (number + 2) // 2]


def test_figures_and_goals(tmp_path, tools):
    """Decisions of serve by the limit over each kind of socket; how long one takes, where enough were asked."""
    store = tmp_path / "store"
    own.fill(store, 40, known)
    size = serve.SIZES["smoke"]
    servers = [Serve(tmp_path / "serve", store), Empty(tmp_path / "empty", 1)]
    with contextlib.ExitStack() as stack:
        subjects = []
        for server, kinds in zip(servers, (("known", "new", "mixed"), ("known",)), strict=True):
            stack.enter_context(server.running())
            subjects += [serve.Subject(server.name, over, target, kinds=kinds)
                         for over, target in server.targets.items()]
        asker = serve.Asker(tools, Questions(tmp_path, 40))
        rates = list(serve.rates(subjects, asker, size))
        latencies = list(serve.latencies(subjects, asker, size))
    figures = [one for one in rates if not isinstance(one, Count)]
    assert {(one.name, one.baseline) for one in figures} == {
        (f"serve, {kind}, {over}", f"empty server, {over}")
        for kind in ("known", "new", "mixed") for over in ("unix", "TCP")}
    assert all(len(one.ratios) == size.rounds for one in figures)
    found = {"serve": {"figures": figures, "counts": []}}
    for goal in GOALS:
        if goal.section == "serve" and goal.text.startswith("known"):
            assert goal.value(found) is not None
    assert [one.numbers["wrong answers"] for one in rates if isinstance(one, Count)] == [0, 0, 0]
    assert {one.name for one in latencies} == {
        f"{subject}, {over}, {connections} connections" for subject in ("serve, known", "serve, new", "empty server")
        for over in ("unix", "TCP") for connections in size.connections}
    for one in latencies:
        assert one.numbers["p50"] > 0
