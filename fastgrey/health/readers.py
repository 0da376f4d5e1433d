"""Reader slots: how many, stale ones, and readers that keep old pages from being used again."""

import os
from collections.abc import Iterator
from pathlib import Path

from .. import _core
from .finding import Finding, Place, doubt, good, run

# A check lives for milliseconds. Who still reads after so many transactions is no check.
FAR_BEHIND = 1000
SHOWN = 5


def readers_of_passed(place: Place, store: _core.Store) -> Iterator[Finding]:
    """The table of readers of the generation in force."""
    return _readers("passed", store)


def readers_of_pending(place: Place, store: _core.Store) -> Iterator[Finding]:
    """The same of pending, where there is one."""
    return _readers("pending", store)


def _readers(part: str, store: _core.Store) -> Iterator[Finding]:
    table = _core.reader_table(store, part == "pending")
    if table is None:
        return
    # This process reads as well, which is not worth telling.
    readers = [(pid, transaction) for pid, transaction in table["readers"] if pid != os.getpid()]
    what = (f"{part}: {len(readers)} of {table['slots']} reader slots in use, {table['highest']} at once at most, "
            f"{table['freed']} stale ones freed just now")
    if table["highest"] > table["slots"] * 3 // 4:
        yield doubt(what, "look for processes that open the store and do not close it: fuser -v "
                          f"{_place_of(store, part)}/lock.mdb")
    else:
        yield good(what)
    behind = [(table["last"] - transaction, pid) for pid, transaction in readers if transaction is not None]
    for distance, pid in sorted(behind, reverse=True)[:SHOWN]:
        if distance >= FAR_BEHIND:
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
    return " ".join(os.fsdecode(word) for word in words if word)[:120]
