"""Standard error as a place for log lines that nobody waits for."""

import os
import stat
import sys

from . import log_lines


def descriptor() -> tuple[int, bool]:
    """Where log lines go, and whether writing there may block.

    Not blocking is a property of what was opened, which others share: a shell would get it too. So a pipe or terminal
    is opened anew; what cannot be is asked before each write.
    """
    mode = os.fstat(2).st_mode
    # A file takes what comes; opened anew, it would be written from its beginning.
    if stat.S_ISREG(mode):
        return 2, False
    try:
        return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), False
    except OSError:
        return 2, True


def say(text: str, level: str = "warning", form: str = "text") -> None:
    """A line of the server's own, from a process that may wait. form: the option log."""
    sys.stderr.buffer.write(log_lines.event(level, text, log_lines.form(form)) + b"\n")
    sys.stderr.flush()
