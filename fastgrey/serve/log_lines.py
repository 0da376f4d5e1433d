"""The lines of a server's log, as text or as JSON: a line for each decision, and for what befalls the server itself.

Text lines are those of the hook (fastgrey/core/log.pxi). A JSON line has the same facts under names. Where a line goes
into systemd's journal, it begins with its priority (sd-daemon(3)), which the journal takes off: `journalctl -p warning`
then shows what is wrong and no decisions. Into a pipe or a file nothing is put before a line.
"""

import os
import time

import msgspec

from fastgrey import times
from fastgrey.verdict import Verdict

# What a pipe takes in one piece (PIPE_BUF, pipe(7)), so that lines of several processes never mix; less a priority.
LINE_MAX = 4096 - len("<3>")
# Bytes of an address that are shown, as in the text line; and where the line would be too long.
SHOWN, SHOWN_LEAST = 400, 80
SHOWN_CLIENT = 64
# Priorities of syslog(3) by the names that JSON has.
PRIORITIES = {"error": 3, "warning": 4, "info": 6}


class _Decision(msgspec.Struct, omit_defaults=True):
    time: str
    level: str
    event: str
    action: str
    reason: str
    client: str
    sender: str
    recipient: str
    wait: int | None = None
    key: str | None = None
    rule: str | None = None
    cause: str | None = None
    notes: tuple[str, ...] = ()


class _Event(msgspec.Struct):
    time: str
    level: str
    event: str
    message: str


_encode = msgspec.json.Encoder().encode


def into_journal(descriptor: int = 2) -> bool:
    """Whether what is written there goes into systemd's journal (JOURNAL_STREAM, systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def level_of(verdict: Verdict, notes: tuple[str, ...] = ()) -> str:
    """A decision that could not be made as it should have been is a warning."""
    return "warning" if verdict.cause or notes else "info"


def decision(client: bytes, sender: bytes, recipient: bytes, verdict: Verdict, notes: tuple[str, ...] = (),
             now: float | None = None) -> bytes:
    """The JSON line of a decision, with a line feed. now: Unix seconds, None for the clock."""
    found = _Decision(
        _time(now), level_of(verdict, notes), "decision", verdict.action, verdict.reason,
        _text(client, SHOWN_CLIENT), _text(sender, SHOWN), _text(recipient, SHOWN),
        verdict.wait if verdict.action == "defer" else None, verdict.key, verdict.rule, verdict.cause, notes)
    line = _encode(found)
    if len(line) >= LINE_MAX:
        found.sender, found.recipient = _text(sender, SHOWN_LEAST), _text(recipient, SHOWN_LEAST)
        line = _encode(found)
    return line + b"\n"


def event(level: str, name: str, message: str, as_json: bool, now: float | None = None) -> bytes:
    """The line of what befell the server. level: one of PRIORITIES; name: a word for it, for JSON."""
    if as_json:
        return _encode(_Event(_time(now), level, name, message[:LINE_MAX // 8])) + b"\n"
    return f"fastgrey: {message}\n".encode("utf-8", "backslashreplace")


def prefixed(level: str, line: bytes) -> bytes:
    """A line as the journal wants it."""
    return b"<%d>%b" % (PRIORITIES[level], line)


def _time(now: float | None) -> str:
    """RFC 3339 with milliseconds."""
    when = time.time() if now is None else now
    return f"{times.rfc3339(int(when)).removesuffix('Z')}.{int(when * 1000) % 1000:03d}Z"


def _text(raw: bytes, most: int) -> str:
    return raw[:most].decode("utf-8", "backslashreplace") + ("..." if len(raw) > most else "")
