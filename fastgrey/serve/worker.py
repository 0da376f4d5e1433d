"""A worker: takes connections from the listeners and answers them."""

import asyncio
import signal
import socket

from fastgrey import directory

from .connection import Connection
from .options import Options


async def serve(path: str, options: Options, listeners: list[socket.socket]) -> None:
    """Answer until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    with directory.open_store(path) as store:
        servers = [await loop.create_server(lambda: Connection(store, options), sock=listener)
                   for listener in listeners if listener.type == socket.SOCK_STREAM]
        await ended.wait()
        for server in servers:
            server.close()


def run(path: str, options: Options, listeners: list[socket.socket]) -> None:
    """The same in an event loop of its own; uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(path, options, listeners))
    else:
        uvloop.run(serve(path, options, listeners))
