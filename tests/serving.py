"""A fastgrey serve on a store of the test, and clients of it that speak what Postfix, Exim and a hook speak."""

import contextlib
import os
import select
import signal
import socket
import subprocess
from pathlib import Path

from conftest import FASTGREY
from ports import free_port
from tcpserver import wait_until

# Seconds for whatever must happen sooner or later on a busy machine.
PATIENCE = 90


def until(condition, what):
    """Wait for what must come to be, and fail where it does not."""
    found = wait_until(condition, PATIENCE)
    assert found, what
    return found


def policy(client="192.0.2.1", sender="a@example.org", recipient="b@example.net", instance="1.1", state="RCPT", **more):
    """A request as Postfix sends it, of the attributes that its versions have all in common and of more."""
    attributes = {
        "request": "smtpd_access_policy", "protocol_state": state, "protocol_name": "ESMTP", "client_address": client,
        "client_name": "unknown", "reverse_client_name": "unknown", "helo_name": "mail.example.org", "sender": sender,
        "recipient": recipient, "recipient_count": "0", "queue_id": "", "instance": instance, "size": "0",
        "sasl_method": "", "sasl_username": "", "sasl_sender": "",
    } | more
    return "".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n"


def hook(client="192.0.2.1", sender="a@example.org", recipient="b@example.net", **more):
    """What a hook of a store asks whose records are shared."""
    attributes = {"request": "fastgrey", "client_address": client, "sender": sender, "recipient": recipient} | more
    return "".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n"


def answers(place):
    """Whether somebody listens at a unix socket; one that is bound may not do so yet."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(place) == 0


class Client:
    """One connection."""

    def __init__(self, place):
        self.socket = socket.socket(socket.AF_INET if isinstance(place, tuple) else socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(place)

    def send(self, request):
        """Send all of it."""
        self.socket.sendall(request)

    def reply(self, end=b"\n\n"):
        """One reply up to its end, without that; None where the connection was closed before."""
        got = b""
        while not got.endswith(end):
            # Byte by byte: of what comes behind it nothing may be taken.
            try:
                byte = self.socket.recv(1)
            except ConnectionResetError:
                byte = b""
            if not byte:
                assert got == b"", got
                return None
            got += byte
        return got.removesuffix(end).decode()

    def ask(self, request, end=b"\n\n"):
        """One exchange."""
        self.send(request)
        return self.reply(end)

    def line(self, *fields):
        """The exchange of a plain line."""
        return self.ask("\t".join(("check", *fields)).encode() + b"\n", b"\n")

    def has_more(self):
        """Whether there is something to be read, without waiting."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def closed(self):
        """Whether the other end is closed, without waiting and without taking anything."""
        if not self.has_more():
            return False
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.socket.close()


class Server:
    """The real command on a store, with a unix socket and a port of its own. config: its [serve], beside these.
    wrapper: a command that runs it."""

    def __init__(self, store, folder, config="", workers=2, environment=None, wrapper=(), **options):
        self.store = Path(store)
        # An address of a unix socket has room for 107 bytes, and the directory of a test is long.
        self.place = os.path.relpath(folder / "policy.sock")
        self.hook_place = os.path.relpath(self.store / "serve.sock")
        self.config = folder / "serve.toml"
        self.log_file = folder / f"serve.log.{len(list(folder.glob('serve.log.*')))}"
        self.workers = workers
        self.clients = []
        self.port = free_port()
        self.configure(config)
        self.environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | (environment or {})
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(
                [*wrapper, FASTGREY, "serve", "--store", self.store, "--config", self.config],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=options.pop("stderr", log), **options)

    def configure(self, config):
        """Write the table [serve] anew; where config has text before it, that comes first."""
        self.config.write_text(f'[serve]\nlisten = ["unix:{self.place}", "tcp:127.0.0.1:{self.port}"]\n'
                               f"workers = {self.workers}\n{config}\n")

    def begun(self):
        """Wait until it serves; gives itself."""
        until(lambda: self.process.poll() is not None or self.said("serving"), "the server begins")
        assert self.process.poll() is None, self.log()
        return self

    def log(self):
        """What it wrote to standard error."""
        return self.log_file.read_text()

    def said(self, text):
        """Lines of the log with that text."""
        return [line for line in self.log().splitlines() if text in line]

    def client(self, place=None):
        """A connection, closed at the end of the test. place: of a unix socket, "tcp", or None for the unix socket of
        mail servers."""
        self.clients.append(Client(("127.0.0.1", self.port) if place == "tcp" else place or self.place))
        return self.clients[-1]

    def ask(self, request, **options):
        """One exchange over a connection of its own."""
        with contextlib.closing(Client(self.place)) as client:
            return client.ask(request, **options)

    def processes(self):
        """Workers by process id, and of each its scribe."""
        return {worker: children(worker) for worker in children(self.process.pid)}

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """End it as a service manager does; its exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def end(self):
        """End it whatever happened."""
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            # What a test that failed has stopped would outlive it.
            for pid in {pid for worker, scribes in self.processes().items() for pid in (worker, *scribes)}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def children(pid):
    """Processes that this one started and that run."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
