"""fastgrey serve."""

import contextlib
import os

import click

from fastgrey.cli.common import say, store_option, store_path


@click.command()
@store_option
@click.option("--listen", metavar="ADDRESS", multiple=True, help="unix:PATH, tcp:HOST:PORT or udp:HOST:PORT. "
              "Repeatable.")
def serve(store: str | None, listen: tuple[str, ...]) -> None:
    """Answer mail servers that ask over a socket: Postfix, Exim, and hooks of a store whose records are shared.

    Hooks find it at STORE/serve.sock, where it always listens.

    \b
    Example: fastgrey serve --listen unix:/var/spool/postfix/fastgrey/policy --listen tcp:127.0.0.1:10045
    """
    from fastgrey.serve import addresses, worker
    from fastgrey.serve.options import SOCKET, Options

    path = store_path(store)
    own = os.path.join(path, SOCKET)
    listeners = [addresses.bind(addresses.Address("unix", own), 0o660)]
    try:
        listeners += [addresses.bind(addresses.parse(text)) for text in listen]
        say(f"fastgrey: serving {path}", err=True)
        worker.run(path, Options(listen=listen), listeners)
    finally:
        for place in [own, *(text.removeprefix("unix:") for text in listen if text.startswith("unix:"))]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place)
