"""The verdict of a check."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """What to do with one recipient of one message.

    action: 'accept', 'defer' or 'reject'.
    reason: the step of the decision that ended it, such as 'known-domain', 'new' or 'error'.
    wait: seconds until the triplet may pass, 0 unless deferred.
    cause: for reason 'error', one line saying what is wrong and what to do; else None.
    key: short hex key of the triplet as in the log line; None where no key could be made.
    rule: FILE:LINE of the rule that decided, None where none did.
    waited: for reason 'retry' or 'pool', the seconds since the first attempt; else 0.
    notes: what went wrong beside a verdict that stands all the same, a line each.
    """

    action: str
    reason: str
    wait: int
    cause: str | None = None
    key: str | None = None
    rule: str | None = None
    waited: int = 0
    notes: tuple[str, ...] = ()
