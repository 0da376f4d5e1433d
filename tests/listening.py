"""Who answers at the socket of a store: the real fastgrey serve, or a test that stands in its place."""

import contextlib
import os
import signal
import socket
import subprocess
import threading

import serving as serving_
from conftest import FASTGREY
from tcpserver import wait_until

SOCKET = "serve.sock"
ATTRIBUTES = ("request", "client_address", "client_name", "sender", "recipient", "name_trusted", "now", "dry_run")


@contextlib.contextmanager
def short(store):
    """A path of the store's socket that fits into an address, however long that of the store is."""
    place = os.open(store, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{place}/{SOCKET}"
    finally:
        os.close(place)


def bound(store, backlog=1024):
    """A socket that listens in the store."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short(store) as path:
        listener.bind(path)
    listener.listen(backlog)
    return listener


def asked(connection):
    """What a client asks, up to the empty line; less where it leaves before."""
    question = b""
    while not question.endswith(b"\n\n"):
        part = connection.recv(65536)
        if not part:
            break
        question += part
    return question


def attributes(question):
    """A question taken apart, which has to be one."""
    assert question.endswith(b"\n\n")
    found = dict(line.split(b"=", 1) for line in question[:-2].split(b"\n"))
    assert len(found) == question.count(b"\n") - 1
    assert set(found) <= {name.encode() for name in ATTRIBUTES}
    return {name.decode(): value for name, value in found.items()}


@contextlib.contextmanager
def listening(store, answer, backlog=1024):
    """Answer whoever asks at the store's socket; gives the questions that came. answer: bytes, or called with the
    connection and the question."""
    questions = []
    listener = bound(store, backlog)

    def run():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                questions.append(asked(connection))
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                    # What else is said to it is a mistake, and is seen.
                    connection.shutdown(socket.SHUT_WR)
                    questions[-1] += connection.recv(65536)
                else:
                    answer(connection, questions[-1])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield questions
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)
        listener.close()
        (store / SOCKET).unlink(missing_ok=True)
        assert not thread.is_alive()


def answers(store):
    """Whether somebody listens in the store."""
    with short(store) as path:
        return serving_.answers(path)


@contextlib.contextmanager
def serving(store, *options):
    """The real server of a store with its workers, all in a process group of their own, once it listens; ended at the
    end, where the test did not."""
    config = store.parent / f"{store.name}.toml"
    config.touch()
    log = open(store.parent / f"{store.name}.log", "ab")
    process = subprocess.Popen([FASTGREY, "serve", "--store", store, "--config", config, *options],
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                               env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})
    try:
        assert wait_until(lambda: process.poll() is not None or answers(store)), "it does not listen"
        assert process.poll() is None, log_of(store)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        # What a test stopped, or a master that was killed left.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def log_of(store):
    """What the servers of a store said."""
    return (store.parent / f"{store.name}.log").read_text()
