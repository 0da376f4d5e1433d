"""fastgrey serve."""

import os
from dataclasses import replace

import click

from fastgrey.cli.common import config_option, store_option, store_path


@click.command()
@store_option
@config_option
@click.option("--listen", metavar="ADDRESS", multiple=True, help="unix:PATH, tcp:HOST:PORT or udp:HOST:PORT; in the "
              "place of what the configuration says. Repeatable.")
@click.option("--workers", metavar="N", type=click.IntRange(0, 256), help="Processes that answer; 0: one a processor.")
def serve(store: str | None, config: str | None, listen: tuple[str, ...], workers: int | None) -> int:
    """Answer mail servers that ask over a socket: Postfix, Exim, and hooks of a store whose records are shared.

    Hooks find it at STORE/serve.sock, where it always listens; other addresses and all else are in [serve] of the
    configuration. SIGHUP reads that again, SIGTERM ends it once all that came is answered. Decisions are logged on
    standard error.

    \b
    Example: fastgrey serve --listen unix:/var/spool/postfix/fastgrey/policy
    """
    from fastgrey import configuration
    from fastgrey.serve.master import Master
    from fastgrey.serve.options import Options

    # Where nobody named a file, none need be there; but one that was read does not vanish with all that it says.
    named = False

    def load() -> Options:
        nonlocal named
        named = bool(named or config or os.environ.get("FASTGREY_CONFIG")
                     or os.path.exists(configuration.default_path()))
        options = configuration.load_serve(config) if named else Options()
        return replace(options, listen=listen or options.listen,
                       workers=options.workers if workers is None else workers)

    return Master(store_path(store), load).run()
