"""What two records of one thing make together, where two places went on without knowing of each other."""

from typing import NamedTuple

from fastgrey import settings
from fastgrey._core import Store
from fastgrey.records import KINDS, TIME_MASK

# Beside these, triplets that wait and the hops of pairs.
KNOWN = KINDS
TIME_BITS = 40
COUNT_MAX = (1 << 24) - 1
# Seconds that an engine keeps a record beyond its time, for machines whose clocks differ, as in a decision.
SLACK = 60


def time_of(record: int) -> int:
    """Unix seconds: when last seen, or first."""
    return record & TIME_MASK


def count_of(record: int) -> int:
    """Promotions, or hops."""
    return record >> TIME_BITS


def packed(time: int, count: int) -> int:
    """A record (docs/format.md)."""
    return min(count, COUNT_MAX) << TIME_BITS | time


class Spans(NamedTuple):
    """For how many seconds records count, by the settings of a store."""

    lifetime: int
    retry_window: int
    pool_window: int

    @classmethod
    def of(cls, store: Store) -> "Spans":
        """Those in force now. StoreError."""
        values = settings.by_name(store.head()["settings"])
        return cls(*(values[name] for name in cls._fields))

    def span(self, kind: str) -> int:
        """Seconds for which a record of this kind counts."""
        if kind == "waiting":
            return self.retry_window
        return self.pool_window if kind == "hops" else self.lifetime

    def alive(self, kind: str, record: int, now: int) -> bool:
        """Whether a decision at the Unix time now would go by this record."""
        return record != 0 and now - time_of(record) <= self.span(kind)

    def keep(self, kind: str, record: int, now: int) -> int:
        """Seconds for which a record is of any use from now on."""
        return max(time_of(record) + self.span(kind) - now, 0) + SLACK

    def joined(self, kind: str, one: int, other: int) -> int:
        """One record that says what both say; 0 is none. Whatever is joined again changes nothing.

        Known: the later time, the larger count. A count of 0 says that the record was forgotten at its time: what is
        older counts no more. Waiting: the earlier first attempt, so that nobody is asked twice. Hops: the earlier first
        one, the larger number.
        """
        if not one or not other:
            return one or other
        early, late = sorted((one, other), key=lambda record: (time_of(record), count_of(record)))
        if time_of(late) - time_of(early) > self.span(kind):
            return late
        if kind in KNOWN:
            return packed(time_of(late), max(count_of(early), count_of(late)) if count_of(late) else 0)
        return packed(time_of(early), max(count_of(early), count_of(late)))

    def added(self, kind: str, there: int, record: int, gains: int) -> int:
        """What becomes of the record there when one is written back to it that was earned elsewhere: as joined, but
        counts grow by the gains at least, for others were earned here meanwhile."""
        new = self.joined(kind, there, record)
        if not there or abs(time_of(there) - time_of(record)) > self.span(kind):
            return new
        if not count_of(there) and kind in KNOWN:
            # Forgotten: before all of it was earned, or after. That a mail was let pass meanwhile earns nothing.
            return packed(time_of(record), gains) if gains and time_of(record) > time_of(there) else there
        if not gains:
            return new
        return packed(time_of(new), max(count_of(there) + gains, count_of(new)))
