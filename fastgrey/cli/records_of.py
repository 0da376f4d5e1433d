"""Where the records are that a command is about: with an engine, or in the table of this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastgrey import records
from fastgrey._core import Store
from fastgrey.cli.common import say

if TYPE_CHECKING:
    from fastgrey.shared.engine import Engine
    from fastgrey.shared.held import Held


@contextmanager
def records_of(store: Store, config: str | None, local: bool) -> "Iterator[Held | None]":
    """The records that an engine holds; None where the store has its own, or local says so. EngineError."""
    engine = None if local else _engine(store, config)
    if engine is None:
        yield None
        return
    from fastgrey.shared.held import opened

    with opened(store, engine) as held:
        yield held


def view_of(store: Store, held: "Held | None") -> records.View:
    """The records at this moment."""
    if held is None:
        return records.View(store)
    from fastgrey.shared.held import HeldView

    return HeldView(held)


def say_of_what(store: Store, config: str | None) -> None:
    """A line on standard error where the records are with an engine: what follows does not tell of them."""
    engine = _engine(store, config)
    if engine is not None:
        say(f"fastgrey: the records are with {engine.name}; this is the table of this machine, by which it goes while "
            "that is away, and its own counters, rules and windows", err=True)


def _engine(store: Store, config: str | None) -> "Engine | None":
    """The engine of a store whose records are shared; None for any other."""
    if not records.View(store).settings["shared"]:
        return None
    from fastgrey import configuration
    from fastgrey.serve import sharing

    # Where nobody named a file, none need be there, as for fastgrey serve.
    if not (config or os.environ.get("FASTGREY_CONFIG") or os.path.exists(configuration.default_path())):
        return None
    options = configuration.load_serve(config)
    return sharing.engine(options) if options.engine else None
