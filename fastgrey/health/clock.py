"""The clock: every decision compares it with times in the store."""

import os
import time
from collections.abc import Iterator

from .. import _core, times
from .finding import Finding, Place, doubt, good, wrong

SYNCHRONISED = "/run/systemd/timesync/synchronized"
# A clock that is set back by so little does no harm.
SLACK = 60
SAMPLE = 10_000
SET = "set the clock, and let a time service keep it"


def clock(place: Place) -> Iterator[Finding]:
    """What it says. Whether somebody keeps it is not always known to the kernel, so that is no more than a hint."""
    kept = _core.clock_synchronised() or os.path.exists(SYNCHRONISED)
    yield good(f"the clock says {times.date(int(time.time()))}, {'' if kept else 'not '}known to be synchronised")


def made(place: Place, store: _core.Store) -> Iterator[Finding]:
    """A store cannot be older than itself."""
    then = store.head()["made"]
    if then > time.time() + SLACK:
        yield wrong(f"the clock stands before the making of the store, {times.date(then)}", SET)


def future_of_passed(place: Place, store: _core.Store) -> Iterator[Finding]:
    """Known records that were last seen later than now, among the first of each table."""
    return _future(store, False, "known records were last seen later than now; they live on until the clock is there "
                                 "and their lifetime over")


def future_of_pending(place: Place, store: _core.Store) -> Iterator[Finding]:
    """Strangers that were first seen later than now."""
    return _future(store, True, "strangers were first seen later than now; they wait until the clock is there and "
                                "their delay over")


def _future(store: _core.Store, pending: bool, what: str) -> Iterator[Finding]:
    looked, ahead = _core.count_after(store, pending, int(time.time()) + SLACK, SAMPLE)
    if ahead:
        yield doubt(f"{ahead} of {looked} {what}", f"if the clock is wrong now, {SET}; if it was, let time pass")
