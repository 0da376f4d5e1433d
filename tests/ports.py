"""Ports of the loopback address for servers that have to be told one."""

import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Below it are ports that services are known by.
FIRST = 10_000


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody had a moment ago. Outside of what the kernel gives those who name none: a client's
    connection, of which tests make thousands, would take it before the server does."""
    last = int(RANGE.read_text().split()[0]) - 1 if RANGE.exists() else FIRST
    wanted = [random.randint(FIRST, last) for _ in range(100)] if last > FIRST + 1000 else []
    for port in [*wanted, 0]:
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("no port is free")
