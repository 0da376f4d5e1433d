"""Two network namespaces and links between them that can be cut: near reaches what runs far, until it does not.

A namespace is that of a thread, and of what it starts; it ends with them, and nothing of the machine is touched.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

CLONE_NEWNET = 0x40000000

# Takes connections from the other namespace to a server that listens on its own loopback address.
FORWARD = """
import asyncio, sys

async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def forward(reader, writer):
    try:
        there, back = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, back), pump(there, writer))

async def main():
    server = await asyncio.start_server(forward, "0.0.0.0", int(sys.argv[2]))
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
PORT = 7000


class Network:
    """So many links between near and far."""

    def __init__(self, links: int):
        self.links = links
        self._near = ThreadPoolExecutor(1, "near")
        self._far = ThreadPoolExecutor(1, "far")

    def near(self, work: Callable[[], Any]) -> Any:
        """What work() gives, called in the near namespace."""
        return self._near.submit(work).result()

    def far(self, work: Callable[[], Any]) -> Any:
        """The same in the far one."""
        return self._far.submit(work).result()

    def build(self) -> None:
        """Make namespaces and links; skips where the kernel refuses."""
        if shutil.which("ip") is None:
            pytest.skip("no ip here; Debian: apt-get install iproute2")
        self.near(_leave)
        far = self.far(_leave)
        self.far(lambda: _ip("link", "set", "lo", "up"))
        self.near(lambda: _ip("link", "set", "lo", "up"))
        for link in range(self.links):
            self.near(lambda link=link: _ip("link", "add", f"near{link}", "type", "veth", "peer", "name", f"far{link}",
                                            "netns", str(far)))
            self.near(lambda link=link: _up(f"near{link}", f"198.18.{link}.1/24"))
            self.far(lambda link=link: _up(f"far{link}", f"198.18.{link}.2/24"))

    def address(self, link: int) -> str:
        """Of far, by this link."""
        return f"198.18.{link}.2"

    def cut(self, link: int) -> None:
        """From now on what is sent by this link is lost without a word."""
        self.far(lambda: _ip("link", "set", f"far{link}", "down"))

    def mend(self, link: int) -> None:
        """What is sent arrives again."""
        self.far(lambda: _ip("link", "set", f"far{link}", "up"))

    @contextlib.contextmanager
    def forwarded(self, port: int) -> Iterator[int]:
        """A port that near reaches by any link and that leads to this one of far's loopback address."""
        process = self.far(lambda: subprocess.Popen([sys.executable, "-c", FORWARD, str(port), str(PORT)],
                                                    stdout=subprocess.PIPE))
        try:
            assert process.stdout.readline() == b"ready\n"
            yield PORT
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def close(self) -> None:
        """Let the namespaces go."""
        self._near.shutdown()
        self._far.shutdown()


def _leave() -> int:
    """Move this thread to a namespace of its own; its number."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        pytest.skip(f"no network namespace to be had: {os.strerror(ctypes.get_errno())}")
    return threading.get_native_id()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _up(device: str, address: str) -> None:
    _ip("address", "add", address, "dev", device)
    _ip("link", "set", device, "up")


@contextlib.contextmanager
def network(links: int) -> Iterator[Network]:
    """A network with so many links."""
    made = Network(links)
    try:
        made.build()
        yield made
    finally:
        made.close()
