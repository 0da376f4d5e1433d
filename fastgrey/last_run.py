"""The last compaction of a store: what it says of itself in the status file, and whether one is running.

docs/format.md has the format. The file is a report, nothing depends on it: where it cannot be written, compaction goes
on.
"""

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from . import directory, inside

NAME = "compaction.status"
LOCK = "compaction.lock"
# No status is as long as this.
SIZE_MAX = 65536


@dataclass(frozen=True)
class LastRun:
    """Times are Unix seconds. result: 'running', 'done', 'declined' or 'failed', and 'killed' where it never ended.

    generation: number of the one in force at the end. seconds: how long it took. why: the reason of 'declined' and
    'failed', one line. succeeded: when the last one ended that was done or declined.
    """

    result: str
    began: int
    ended: int | None = None
    generation: int | None = None
    seconds: float | None = None
    why: str | None = None
    succeeded: int | None = None

    def facts(self) -> dict[str, object]:
        """The same as a dictionary, for JSON."""
        return asdict(self)


def read(root: Path) -> LastRun | None:
    """What the last compaction says; None where there was none, or its file cannot be read or understood."""
    try:
        last = LastRun(**json.loads(inside.read(root / NAME, SIZE_MAX)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    if not all(isinstance(time, int) for time in (last.began, last.ended or 0, last.succeeded or 0)):
        return None
    return replace(last, result="killed") if last.result == "running" and holder(root) is None else last


def write(root: Path, last: LastRun) -> None:
    """Put it into the store, in place of what was there. What keeps it from being written is passed over in silence."""
    with contextlib.suppress(OSError):
        directory.replace_text(root / NAME, json.dumps(last.facts()) + "\n")


def holder(root: Path) -> int | None:
    """The process that holds the lock of compaction, 0 for one that this container cannot see, None for nobody.

    Trying the lock could turn away one that begins.
    """
    try:
        number = (root / LOCK).lstat().st_ino
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    return next((int(fields[4]) for fields in held
                 if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(number)), None)
