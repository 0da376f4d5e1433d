"""HTTP for whoever watches a server: /metrics, /health, /ready. By a process of its own, so that nobody who asks
slowly, or all the time, or without reading the answer, has a part in how mail is answered.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from .board import Board
from .metrics import registry
from .watch import Watch

# Clients at once; more are hung up on. Seconds for one of their reads or writes, and for all of them together.
CLIENTS = 16
PATIENCE = 5.0
DEADLINE = 10.0
# Seconds for which the master or a worker may do nothing.
SILENCE = 30.0
# Mail comes first.
NICENESS = 10
TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
PATHS = "there are /metrics, /health and /ready"


class Application:
    """What is answered (WSGI, PEP 3333)."""

    def __init__(self, board: Board, watch: Watch):
        self.board = board
        self.watch = watch
        self._metrics = make_wsgi_app(registry(board, watch))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self._say(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "GET is for reading; nothing else is here")
        if path == "/metrics":
            body: Iterable[bytes] = self._metrics(environ, start_response)
        elif path == "/health":
            wrong = self.board.silent(SILENCE)
            body = self._say(start_response, _status(wrong is None), wrong or "alive")
        elif path == "/ready":
            ready, why = self.watch.ready()
            body = self._say(start_response, _status(ready), why)
        else:
            body = self._say(start_response, HTTPStatus.NOT_FOUND, PATHS)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    @staticmethod
    def _say(start_response: Callable[..., Any], status: HTTPStatus, line: str) -> Iterable[bytes]:
        body = f"{line}\n".encode("utf-8", "backslashreplace")
        start_response(f"{status.value} {status.phrase}", [*TEXT, ("Content-Length", str(len(body)))])
        return [body]


def _status(good: bool) -> HTTPStatus:
    return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        # Whoever asks every few seconds has no place in the log of a mail server.
        pass


class Server(ThreadingMixIn, WSGIServer):
    """Answers on a listening socket that somebody else made."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, application: Application, master: int):
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        # What WSGI wants to know; WSGIServer would ask the name service for it.
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(application)
        self.master = master
        self._free = threading.BoundedSemaphore(CLIENTS)

    def service_actions(self) -> None:
        """Every half second: without a master this has nothing to tell any more."""
        if os.getppid() != self.master:
            os._exit(0)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # A time-out of the socket is for one read; a client that sends a byte now and then would have all day.
        deadline = threading.Timer(DEADLINE, _hang_up, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that went away are no fault of ours; what else there is comes as an answer of WSGI's.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _hang_up(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def listen(address: str, port: int) -> socket.socket:
    """The socket to answer on; OSError where that cannot be. Made by the master, so that it is told at once."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=CLIENTS)


def run(listener: socket.socket, board: Board, watch: Watch, master: int) -> None:
    """Answer until the master (a process number) ends or ends this."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # A person who interrupts the server interrupts all of its processes; the master ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    watch.start()
    Server(listener, Application(board, watch), master).serve_forever()
