"""Health: what is wrong with a store, or soon will be, and what to do about it.

A look is a function that takes a Place and yields findings. Nothing is changed but that reader slots of processes that
are no more become free.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path

from .. import _core, directory
from ..errors import StoreError
from . import (
    clock, configuration, isolation, layout, limits, machine, programs, readers, room, rules, serving, sharing, upkeep,
)
from .account import account
from .finding import Finding, Place, Trouble, doubt, wrong

__all__ = ["Finding", "examine", "judge", "status"]

Look = Callable[[Place], Iterable[Finding]]
LookInside = Callable[[Place, _core.Store], Iterable[Finding]]

# In the order in which they are told.
LOOKS: tuple[Look, ...] = (
    programs.library,
    programs.hook,
    machine.proc,
    clock.clock,
    layout.store,
    layout.strangers,
    sharing.mode,
    sharing.access,
    room.file_system,
    upkeep.leftovers,
    upkeep.put_aside,
    upkeep.last_run_failed,
)
# These open the store, each in a process of its own.
LOOKS_INSIDE: tuple[LookInside, ...] = (
    configuration.head,
    configuration.settings_hardly_meant,
    configuration.counters,
    rules.in_force,
    clock.made,
    clock.future_of_passed,
    readers.readers_of_passed,
    upkeep.noting,
    upkeep.last_compaction,
    room.growth,
    limits.address_space,
    serving.server,
)
LOOKS_INTO_PENDING: tuple[LookInside, ...] = (
    configuration.strangers,
    room.outgrown,
    clock.future_of_pending,
    readers.readers_of_pending,
)


def examine(path: str, user: str | None = None, hook: str | None = None) -> list[Finding]:
    """All findings about the store at path and the programs that use it.

    user: the user that the hook runs as, NAME or NAME:GROUP. hook: the path of the hook. Raises SettingsError where
    there is no such user.
    """
    place = Place(Path(path), account(user) if user is not None else None, hook)
    return list(dict.fromkeys(_examine(place)))


def judge(place: Place, looks: Iterable[Look]) -> list[Finding]:
    """What these looks find, in their order, with what kept one from going on as a finding too."""
    return [finding for look in looks for finding in _guarded(place, partial(look, place))]


def status(findings: Iterable[Finding]) -> int:
    """0 where all is good, 1 where something is in doubt, 2 where something is wrong."""
    return max(({"good": 0, "doubt": 1, "wrong": 2}[finding.level] for finding in findings), default=0)


def _examine(place: Place) -> Iterator[Finding]:
    yield from judge(place, LOOKS)
    for part, looks, whole in (("passed", LOOKS_INSIDE, layout.generation),
                               ("pending", LOOKS_INTO_PENDING, layout.pending)):
        try:
            whole(place)
        except (Trouble, StoreError, OSError):
            # The looks at the layout have told it.
            return
        for look_inside in looks:
            work = partial(_open_and_look, place, look_inside)
            if not (yield from _guarded(place, partial(isolation.results, work), part)):
                # What comes next would end in the same way, and blame another part for it.
                return


def _open_and_look(place: Place, look: LookInside) -> Iterator[Finding]:
    with directory.open_store(place.root) as store:
        yield from look(place, store)


def _guarded(place: Place, look: Callable[[], Iterable[Finding]], part: str = "") -> Generator[Finding, None, bool]:
    """What look yields, and as a finding what kept it from going on. Whether it came to its end."""
    remedy = layout.remove(layout.pending_path(place)) if part == "pending" else layout.RESTORE
    try:
        yield from look()
        return True
    except Trouble as trouble:
        yield trouble.finding
    except isolation.Ended as ended:
        yield wrong(f"{part} is damaged: reading it ended by {ended}", remedy)
    except isolation.Late:
        yield wrong(f"no answer from {part} within {isolation.SECONDS} seconds",
                    "look for a stopped process that holds the store, and for a slow disk")
    except StoreError as error:
        what, _, advice = str(error).partition("; ")
        # That one asks for what is running.
        advice = advice.removesuffix("ask: fastgrey doctor").removesuffix("; ")
        yield wrong(what, advice or remedy)
    except PermissionError as error:
        yield doubt(f"could not look at {error.filename or place.root}: {error.strerror}", layout.AS_ROOT)
    except OSError as error:
        yield wrong(f"{error.filename or place.root}: {error.strerror}", remedy)
    return False
