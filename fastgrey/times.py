"""Times for people and for machines. All take Unix seconds."""

import calendar
import time

UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def date(seconds: int) -> str:
    """Local time with its zone (ISO 8601): 2026-11-22 16:29:44+0000."""
    return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(seconds))


def rfc3339(seconds: int) -> str:
    """UTC (RFC 3339), as JSON has it: 2026-11-22T16:29:44Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds(text: str) -> int:
    """The Unix seconds of what rfc3339 gave."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def span(seconds: int) -> str:
    """A span by its largest unit and the one below, the rest left off: 2d 3h, 4m 10s, 0s. Below zero counts as zero."""
    seconds = max(0, seconds)
    for (unit, size), (below, smaller) in zip(UNITS, UNITS[1:], strict=False):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size}{unit} {rest}{below}" if rest else f"{seconds // size}{unit}"
    return f"{seconds}s"


def distance(seconds: int, now: int) -> str:
    """How far a time is from now: 4m 10s ago, in 2d 3h."""
    return f"in {span(seconds - now)}" if seconds > now else f"{span(now - seconds)} ago"


def date_and_distance(seconds: int, now: int) -> str:
    """Both: 2026-11-22 16:29:44+0000 (4m 10s ago)."""
    return f"{date(seconds)} ({distance(seconds, now)})"
