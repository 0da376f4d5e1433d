"""The engine that holds the records, where [serve] names one: opened, and found to hold what this store can read."""

import asyncio
from collections.abc import Callable

from fastgrey._core import Store
from fastgrey.errors import EngineError, SecretError
from fastgrey.shared.engine import SharedEngine, agreed
from fastgrey.shared.greylist import Greylist
from fastgrey.shared.open import engine_from_url
from fastgrey.shared.standby import Standby

from .options import Options

# Seconds between tries to open an engine that is away.
AGAIN = 2.0
# Seconds for a decision: below those after which a worker answers as on_error says (worker.py), whatever the time-out.
BOUND = 6.0


def engine(options: Options) -> SharedEngine:
    """The engine of the options, not yet open. Raises EngineError where they mean none."""
    return engine_from_url(options.engine, name=options.name, timeout=options.timeout,
                           password_file=options.password_file or None)


def greylist(store: Store, engine: SharedEngine, options: Options) -> Greylist:
    """Decisions of one process on the engine's records."""
    return Greylist(store, engine, Standby(store) if options.fallback == "local" else None, BOUND)


async def opened(shared: Greylist, say: Callable[[str], None], tried: asyncio.Event) -> None:
    """Open it, as often as it takes, and see that its keys are made of the store's secret. tried is set after the first
    try, for whoever wants to begin. Raises SecretError where the secret is another one."""
    told = False
    while True:
        try:
            await shared.open()
            await agreed(shared.engine, shared.store)
            tried.set()
            return
        except SecretError:
            raise
        except EngineError as error:
            if not told:
                say(str(error))
                told = True
        tried.set()
        await asyncio.sleep(AGAIN)
