"""System calls and page faults of one process, counted: the same in every run, on a busy machine as on an idle one.

Both are told apart from what the C library does in every process: an empty static executable is counted too, and what
it does is taken off.
"""

import ctypes
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from execs import Command

# Where the stack and the maps begin decides whether a page more is touched; without chance the count is the same. It is
# the least where chance cannot be turned off (a container may forbid it).
RUNS = 20


class Counted(NamedTuple):
    """What one process did."""

    # System calls by name.
    calls: Counter[str]
    faults: int

    def beyond(self, other: "Counted") -> "Counted":
        """What it did more than the other."""
        return Counted(self.calls - other.calls, self.faults - other.faults)


def counted(command: Command) -> Counted:
    """Count a command by running it a few times; '%' and '#' in its words become numbers as for the spawner.

    It must say what the command says it does: one that failed would be counted as a good one.
    """
    with tempfile.NamedTemporaryFile("r") as trace:
        # Without -f: what is counted has neither threads nor children.
        done = subprocess.run(["strace", "-o", trace.name, *_words(command)], env=command.environment,
                              stderr=subprocess.PIPE, text=True)
        calls = Counter(re.findall(r"^(\w+)\(", trace.read(), re.M))
    if not done.stderr.startswith(command.says) or not calls:
        raise SystemExit(f"bench: expected {command.says!r}: {done.stderr[-300:]}")
    with _without_chance():
        return Counted(calls, min(_faults(command) for _ in range(RUNS)))


def _words(command: Command) -> list[str]:
    number = str(int.from_bytes(os.urandom(6), "little"))
    return [str(word).replace("%", number).replace("#", "7") for word in command.words]


@contextmanager
def _without_chance() -> Iterator[None]:
    """Processes begun meanwhile have their stack and their maps at the same addresses (personality(2))."""
    personality = ctypes.CDLL(None).personality
    before = personality(0xFFFFFFFF)
    personality(before | 0x0040000)
    try:
        yield
    finally:
        personality(before)


def _faults(command: Command) -> int:
    """Page faults of one process, by wait4; begun by vfork, so that none is of copying this one."""
    words = _words(command)
    pid = os.posix_spawn(words[0], words, command.environment,
                         file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
    _, _, used = os.wait4(pid, 0)
    return used.ru_minflt + used.ru_majflt
