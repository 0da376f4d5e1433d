"""Reader slots: how many, stale ones, and readers that keep old pages from being used again."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from .. import _core
from .finding import Finding, Place, doubt, good, run
from .upkeep import running

# A check reads for microseconds. Who reads the same after so many transactions and seconds is no check.
FAR_BEHIND = 100
STILL_SECONDS = 1
SHOWN = 5


def readers_of_passed(place: Place, store: _core.Store) -> Iterator[Finding]:
    """The table of readers of the generation in force."""
    return _readers(place, "passed", store)


def readers_of_pending(place: Place, store: _core.Store) -> Iterator[Finding]:
    """The same of pending, where there is one."""
    return _readers(place, "pending", store)


def _readers(place: Place, part: str, store: _core.Store) -> Iterator[Finding]:
    table = _core.reader_table(store, part == "pending")
    if table is None:
        return
    # This process reads as well, which is not worth telling.
    readers = [reader for reader in table["readers"] if reader[0] != os.getpid()]
    what = (f"{part}: {len(readers)} of {table['slots']} reader slots in use, {table['highest']} at once at most, "
            f"{table['freed']} stale ones freed just now")
    if table["highest"] > table["slots"] * 3 // 4:
        yield doubt(what, "look for processes that open the store and do not close it: fuser -v "
                          f"{_place_of(store, part)}/lock.mdb")
    else:
        yield good(what)
    behind = {reader: table["last"] - reader[1] for reader in readers
              if reader[1] is not None and table["last"] - reader[1] >= FAR_BEHIND and reader[0] != running(place)}
    if not behind:
        return
    time.sleep(STILL_SECONDS)
    later = _core.reader_table(store, part == "pending")
    still = behind.keys() & set(later["readers"] if later else ())
    for distance, pid in sorted(((behind[reader], reader[0]) for reader in still), reverse=True)[:SHOWN]:
        yield doubt(f"{part}: process {pid} ({_command(pid)}) reads what was {distance} transactions ago, and no "
                    "page freed since can be used again", run("kill", str(pid)))


def _place_of(store: _core.Store, part: str) -> str:
    """The directory of a part as a pattern of the shell."""
    return f"{store.path}/{'current' if part == 'passed' else 'pending.*'}"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "which cannot be looked at"
    return " ".join(" ".join(os.fsdecode(word) for word in words).split())[:120]
