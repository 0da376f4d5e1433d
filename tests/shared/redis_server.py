"""Real Redis or Valkey servers in directories of their own: one, a primary with replica and Sentinels, a cluster."""

import contextlib
import functools
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkey

from ports import free_port
from serving import until

PROGRAMS = ("valkey-server", "redis-server")
SERVICE = "greylist"
SLOTS = 16384
# Seconds for whatever must happen sooner or later on a busy machine.
PATIENCE = 90


@functools.cache
def program() -> str:
    """The server of this machine; skips where there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("no redis-server here; Debian: apt-get install redis-server redis-sentinel "
                    "(make test-packages does, as root)")
    return found


def wait_until(condition, what):
    """Wait until condition() is true; an error of the client counts as not yet."""
    def met():
        with contextlib.suppress(valkey.ValkeyError, OSError):
            return condition()

    until(met, what)


class Server:
    """One server on the loopback address. settings: as on its command line, without their two hyphens."""

    def __init__(self, place: Path, *, password: str | None = None, sentinel: bool = False, tls: bool = False,
                 **settings: object) -> None:
        self.place = place
        self.port = 0
        self.bus = 0
        self.password = password
        self.settings = {name.replace("_", "-"): value for name, value in settings.items()}
        if password is not None:
            self.settings["requirepass"] = password
        self.sentinel = sentinel
        self.tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        """Start it on the port it has, or on a free one, and wait until it answers."""
        for _ in range(10):
            self.launch()
            if self._answers():
                return self
            self.end()
            self.port = self.bus = 0
        raise AssertionError(f"{program()} did not start: {(self.place / 'log').read_text()[-2000:]}")

    def launch(self) -> None:
        """Start it and do not wait."""
        self.port = self.port or free_port()
        if "cluster-enabled" in self.settings:
            self.bus = self.bus or free_port()
        with open(self.place / "log", "ab") as log:
            self._process = subprocess.Popen(self._command(), cwd=self.place, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, start_new_session=True)

    def _command(self) -> list[str]:
        if self.sentinel:
            file = self.place / "sentinel.conf"
            if not file.exists():
                file.write_text("".join(f"{name} {value}\n" for name, value in self.settings.items()))
            return [program(), str(file), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.place, "save": "", "appendonly": "no",
                    "repl-diskless-sync-delay": 0, **self.settings}
        if self.tls:
            settings |= {"port": 0, "tls-port": self.port}
        if self.bus:
            settings["cluster-port"] = self.bus
        return [program(), *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]

    def _answers(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with self.client() as client:
                    client.ping()
                return self._process.poll() is None
            except valkey.ValkeyError as error:
                # It is there, and wants a password or certificates that this client has not.
                if isinstance(error, valkey.AuthenticationError):
                    return True
            time.sleep(0.02)
        return False

    def client(self, **options: object) -> valkey.Valkey:
        """A plain client, to look at it and to change it."""
        tls = {"ssl": True, "ssl_ca_certs": str(self.place / "ca.crt")} if self.tls else {}
        return valkey.Valkey(**{"port": self.port, "password": self.password, "socket_timeout": 30, **tls, **options})

    def ask(self, *words: object) -> object:
        """The answer to one command."""
        with self.client() as client:
            return client.execute_command(*words)

    def set(self, **settings: object) -> None:
        """Change settings while it runs."""
        for name, value in settings.items():
            self.ask("CONFIG", "SET", name.replace("_", "-"), value)

    @property
    def url(self) -> str:
        """As the engine takes it."""
        login = f":{self.password}@" if self.password else ""
        return f"valkey{'s' if self.tls else ''}://{login}127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it without a chance to say goodbye. It can be started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=PATIENCE)
            self._process = None

    def pause(self) -> None:
        """Stop it (SIGSTOP): it is there and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End it for good, whatever state it is in."""
        self.kill()


@contextlib.contextmanager
def servers(*each: dict[str, object]) -> Iterator[list[Server]]:
    """Servers with these settings, made but not started, each with a directory of its own; ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="fg-redis-", dir="/tmp") as parent:
        made = []
        try:
            for number, settings in enumerate(each):
                place = Path(parent, str(number))
                place.mkdir()
                made.append(Server(place, **settings))
            yield made
        finally:
            for one in made:
                one.end()


@contextlib.contextmanager
def server(**settings: object) -> Iterator[Server]:
    """A server that runs and is empty."""
    with servers(settings) as (one,):
        yield one.start()


class Cluster:
    """Nodes that share all slots."""

    def __init__(self, nodes: list[Server]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "valkey+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def owner(self, key: str) -> Server:
        """The node that has the slot of a key."""
        slot = self.nodes[0].ask("CLUSTER", "KEYSLOT", key)
        for node in self.nodes:
            for first, last, (_, port, *_), *_ in node.client().execute_command("CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")


@contextlib.contextmanager
def cluster(count: int = 3) -> Iterator[Cluster]:
    """A cluster of so many primaries that works."""
    settings = {"cluster_enabled": "yes", "cluster_node_timeout": 5000}
    with servers(*[settings] * count) as nodes:
        for number, node in enumerate(nodes):
            node.start()
            first, after = SLOTS * number // count, SLOTS * (number + 1) // count
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
            # As operators do: without it, what the first ones know of each other collides.
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus)
        for node in nodes:
            wait_until(lambda node=node: b"cluster_state:ok" in _raw(node, "CLUSTER", "INFO")
                       and b"cluster_known_nodes:%d" % count in _raw(node, "CLUSTER", "INFO")
                       and b"cluster_slots_ok:%d" % SLOTS in _raw(node, "CLUSTER", "INFO"), "the cluster")
        yield Cluster(nodes)


def _raw(node: Server, *words: object) -> bytes:
    """An answer as it came; the client would make a dictionary of it."""
    with node.client() as client:
        connection = client.connection_pool.get_connection("")
        try:
            connection.send_command(*words)
            return bytes(connection.read_response())
        finally:
            client.connection_pool.release(connection)


class Watched:
    """A primary, its replica, and Sentinels that put the one in the other's place."""

    def __init__(self, primary: Server, replica: Server, sentinels: list[Server]) -> None:
        self.primary = primary
        self.replica = replica
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        login = f":{self.primary.password}@" if self.primary.password else ""
        return f"valkey+sentinel://{login}{hosts}/{SERVICE}"

    def named(self) -> int:
        """The port of the primary that the Sentinels name now."""
        with self.sentinels[0].client(password=None) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def named_server(self) -> Server:
        """That primary."""
        return self.primary if self.primary.port == self.named() else self.replica

    def switch(self) -> None:
        """Let the Sentinels put the replica in the primary's place, and wait until they have and the other one follows.
        Until then it takes writes that are lost."""
        old = self.named_server()
        new = self.replica if old is self.primary else self.primary
        self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)
        wait_until(lambda: self.named() == new.port and new.ask("ROLE")[0] == b"master", "the failover")
        # What the Sentinel does within ten seconds or so.
        old.ask("REPLICAOF", "127.0.0.1", new.port)
        old.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: old.ask("ROLE")[0] == b"slave" and
                   b"master_link_status:up" in _raw(old, "INFO"), "the one that was the primary")


@contextlib.contextmanager
def watched(down_after: int = 2000, **settings: object) -> Iterator[Watched]:
    """A primary with a replica that has all of it, and one Sentinel. down_after: milliseconds of silence after which
    the Sentinel holds a primary for dead."""
    with servers(settings, settings, {"sentinel": True}) as (primary, replica, sentinel):
        primary.start()
        if primary.password is not None:
            for one in (primary, replica):
                one.settings["masterauth"] = primary.password
            primary.set(masterauth=primary.password)
        replica.settings |= {"replicaof": f"127.0.0.1 {primary.port}"}
        replica.start()
        wait_until(lambda: b"master_link_status:up" in _raw(replica, "INFO"), "the replica")
        sentinel.settings |= {
            "sentinel monitor": f"{SERVICE} 127.0.0.1 {primary.port} 1",
            "sentinel down-after-milliseconds": f"{SERVICE} {down_after}",
            "sentinel failover-timeout": f"{SERVICE} 5000",
        }
        if primary.password is not None:
            sentinel.settings["sentinel auth-pass"] = f"{SERVICE} {primary.password}"
        sentinel.start()
        wait_until(lambda: len(sentinel.client(password=None).sentinel_slaves(SERVICE)) == 1
                   and sentinel.client(password=None).sentinel_slaves(SERVICE)[0]["flags"] == "slave", "the Sentinel")
        yield Watched(primary, replica, [sentinel])
