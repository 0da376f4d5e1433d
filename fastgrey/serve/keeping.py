"""The keeper of a machine: writes to the engine what was earned while that was away, and does its upkeep."""

import asyncio
import contextlib
import os
import signal

from fastgrey import directory
from fastgrey.shared.keeper import Keeper

from . import log, sharing
from .options import Options


def keep(path: str, options: Options, heart: int) -> None:
    """Work until SIGTERM, or until the master is gone. heart: a pipe to it, which gets a byte a second."""
    with directory.open_store(path) as store:
        keeper = Keeper(store, sharing.engine(options), say=lambda text: log.say(text, form=options.log))
        asyncio.run(_keep(keeper, heart))


async def _keep(keeper: Keeper, heart: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        loop.add_signal_handler(number, stop.set)

    async def beat() -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                os.write(heart, b".")
            await asyncio.sleep(1)

    beating = loop.create_task(beat())
    # A pipe without a reader: the master is gone.
    beating.add_done_callback(lambda _: stop.set())
    try:
        await keeper.run(stop)
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await beating
