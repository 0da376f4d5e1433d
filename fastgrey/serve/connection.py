"""One connection: bytes in, replies out."""

import asyncio
import sys
from typing import cast

from fastgrey._core import Store

from . import requests
from .options import Options
from .requests import Asked, Broken


class Connection(asyncio.Protocol):
    """A client that asks as often as it likes, one request after the other."""

    transport: asyncio.Transport

    def __init__(self, store: Store, options: Options):
        self.store = store
        self.options = options
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of no class of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        try:
            while True:
                asked, size = requests.take(data)
                if asked is None:
                    break
                data = data[size:]
                self.transport.write(self.answer(asked))
        except Broken as error:
            print(f"fastgrey: broken request: {error}; the connection is closed", file=sys.stderr, flush=True)
            self.transport.close()
        self.rest = data

    def answer(self, asked: Asked) -> bytes:
        """Decide and say so."""
        found = asked.attributes
        if asked.kind == "postfix" and (found.get(b"protocol_state") != b"RCPT" or found.get(b"sasl_username")):
            return b"action=DUNNO\n\n"
        name = found.get(b"client_name")
        verdict = self.store.check(
            client=found.get(b"client_address", b""), sender=found.get(b"sender", b""),
            recipient=found.get(b"recipient", b""), client_name=None if name == b"unknown" else name,
            name_trusted=True if asked.kind == "postfix" else None)
        return requests.reply(asked.kind, verdict, self.options)
