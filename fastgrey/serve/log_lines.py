"""Lines of what befalls the server itself, as text or as JSON; those of decisions are the core's (core/log_json.pxi).

Where a line goes into systemd's journal, it begins with its priority (sd-daemon(3)), which the journal takes off:
`journalctl -p warning` then shows what is wrong and no decisions. Into a pipe or a file nothing is put before a line.
"""

import os
import time

import msgspec

from fastgrey import times

# As the core has them.
LOG_JSON, LOG_PRIORITY = 1, 2
# What a pipe takes in one piece (PIPE_BUF, pipe(7)), so that lines of several processes never mix.
LINE_MAX = 4096
# Priorities of syslog(3) by the names that JSON has.
PRIORITIES = {"error": 3, "warning": 4, "info": 6}


class _Event(msgspec.Struct):
    time: str
    level: str
    event: str
    message: str


def into_journal(descriptor: int = 2) -> bool:
    """Whether what is written there goes into systemd's journal (JOURNAL_STREAM, systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def form(log: str) -> int:
    """How lines are written: the option log, and whether the journal reads them."""
    return (LOG_JSON if log == "json" else 0) | (LOG_PRIORITY if into_journal() else 0)


def event(level: str, text: str, lines: int) -> bytes:
    """The line of what befell the server. level: one of PRIORITIES; lines: a form."""
    if lines & LOG_JSON:
        now = time.time()
        when = f"{times.rfc3339(int(now)).removesuffix('Z')}.{int(now * 1000) % 1000:03d}Z"
        # Of one character JSON may make twelve bytes.
        line = msgspec.json.encode(_Event(when, level, "server", text[:LINE_MAX // 16]))
    else:
        line = f"fastgrey: {text}".encode("utf-8", "backslashreplace")[:LINE_MAX - 16]
    prefix = b"<%d>" % PRIORITIES[level] if lines & LOG_PRIORITY else b""
    return prefix + line
