"""Where the server is that takes writes: named, or asked for from Sentinels or the nodes of a cluster."""

from collections.abc import Sequence
from typing import Any, Protocol

from valkey.asyncio.cluster import ClusterNode, ValkeyCluster
from valkey.asyncio.connection import AbstractConnection
from valkey.asyncio.sentinel import MasterNotFoundError, Sentinel
from valkey.exceptions import ConnectionError as NotConnectedError
from valkey.exceptions import ResponseError, ValkeyClusterException

Host = tuple[str, int]


class Place(Protocol):
    """How the primary is found."""

    # Whether another server may take its part.
    follows: bool

    async def find(self, options: dict[str, Any], timeout: float) -> Host:
        """Its host and port now, options: user, password and TLS of the client. Raises what the client raises."""
        ...

    async def check(self, connection: AbstractConnection) -> None:
        """Whether what is connected to is what was looked for. Raises what the client raises."""
        ...

    def moved(self, host: Host) -> None:
        """A server says that another one has the keys."""
        ...


async def ping(connection: AbstractConnection) -> None:
    """Whether the server answers: a stopped one still lets the kernel accept connections."""
    await connection.send_command("PING")
    await connection.read_response()


class Named:
    """One server, the only one."""

    follows = False

    def __init__(self, host: Host) -> None:
        self.host = host

    async def find(self, options: dict[str, Any], timeout: float) -> Host:
        return self.host

    async def check(self, connection: AbstractConnection) -> None:
        await ping(connection)

    def moved(self, host: Host) -> None:
        pass


class BySentinel:
    """The primary of a service that Sentinels watch."""

    follows = True

    def __init__(self, hosts: Sequence[Host], service: str) -> None:
        self.hosts = hosts
        self.service = service

    async def find(self, options: dict[str, Any], timeout: float) -> Host:
        # Sentinels have no password as a rule, and one without refuses whoever brings one.
        attempts: list[dict[str, Any]] = [{}]
        if options.get("password") is not None:
            attempts.append({name: options[name] for name in ("username", "password")})
        share = timeout / (len(self.hosts) * len(attempts) + 1)
        for number, login in enumerate(attempts, 1):
            sentinel = Sentinel(self.hosts, sentinel_kwargs={  # type: ignore[no-untyped-call]
                "socket_timeout": share, "socket_connect_timeout": share, **login, **options["tls"]})
            try:
                host, port = await sentinel.discover_master(self.service)
                return host, port
            except (MasterNotFoundError, ResponseError):
                if number == len(attempts):
                    raise NotConnectedError(f"no Sentinel answers and knows a primary of {self.service!r}") from None
            finally:
                for client in sentinel.sentinels:
                    await client.aclose()
        raise AssertionError("no attempt")

    async def check(self, connection: AbstractConnection) -> None:
        # A Sentinel that was cut off still names the old one.
        await connection.send_command("ROLE")
        if (await connection.read_response())[0] != b"master":
            raise NotConnectedError(f"the primary of {self.service!r} that the Sentinels name is a replica")

    def moved(self, host: Host) -> None:
        pass


class InCluster:
    """The node of a cluster that has the slot of a key."""

    follows = True

    def __init__(self, hosts: Sequence[Host], key: str) -> None:
        self.hosts = hosts
        self.key = key
        # All nodes when last seen: those that were named may be gone by then.
        self._seen: list[Host] = []
        self._told: Host | None = None

    async def find(self, options: dict[str, Any], timeout: float) -> Host:
        told, self._told = self._told, None
        if told is not None:
            return told
        nodes = list(dict.fromkeys([*self.hosts, *self._seen]))
        share = timeout / (len(nodes) + 1)
        login: dict[str, Any] = {name: options.get(name) for name in ("username", "password")}
        cluster = ValkeyCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in nodes], require_full_coverage=False,
            cluster_error_retry_attempts=0, connection_error_retry_attempts=0, socket_timeout=share,
            socket_connect_timeout=share, **login, **options["tls"])
        try:
            await cluster.initialize()
            self._seen = [(node.host, int(node.port)) for node in cluster.get_nodes()]
            node = cluster.get_node_from_key(self.key)
        except ValkeyClusterException as error:
            # What the last node that was asked said stands at the end.
            raise NotConnectedError(f"no node tells who has the keys: {str(error).rpartition('node: ')[2]}") from error
        finally:
            await cluster.aclose()
        assert node is not None
        return node.host, int(node.port)

    async def check(self, connection: AbstractConnection) -> None:
        await ping(connection)

    def moved(self, host: Host) -> None:
        self._told = host
