"""Lists of what a store holds."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from . import times
from .records import Facts, Record, View, short

T = TypeVar("T")


class Query(NamedTuple):
    """What to list. limit: rows at most, 0 for all. sort: one of SORTS, None for the usual. long: whole keys."""

    limit: int = 50
    sort: str | None = None
    long: bool = False


@dataclass
class Listing(Generic[T]):
    """A list. columns: titles, and what makes the text of a row; facts: what makes of a row what JSON has.

    Rows are made while they are read. Only then closing is known: what is not among them, by name, such as how many
    the limit left out.
    """

    columns: tuple[tuple[str, Callable[[T], str]], ...]
    facts: Callable[[T], Facts]
    rows: Iterable[T]
    closing: Counter[str] = field(default_factory=Counter)


SORTS: dict[str, Callable[[View, Record], Any]] = {
    "expires": lambda view, record: view.expires(record),
    "seen": lambda view, record: -record.time,
    "count": lambda view, record: -record.counted,
    "key": lambda view, record: record.key,
}


def known(kind: str) -> Callable[[View, Query], Listing[Record]]:
    """What lists the live known records of a kind."""
    return lambda view, query: _listing(view, query, view.known(kind), (
        ("promotions", lambda record: str(record.counted)),
        *_time("last seen", view, attrgetter("time")),
        *_time("expires", view, view.expires),
    ))


def pending(view: View, query: Query) -> Listing[Record]:
    """What lists the triplets that wait, and the pairs that gather hops."""
    return _listing(view, query, view.pending(), (
        ("kind", attrgetter("kind")),
        ("hops", lambda record: str(record.counted) if record.kind == "pair" else "-"),
        *_time("first seen", view, attrgetter("time")),
        *_time("passes from", view, view.passes_from),
        *_time("counts until", view, view.expires),
    ))


# What `fastgrey list` can list, by the word for it.
LISTS: dict[str, Callable[[View, Query], Listing[Any]]] = {
    "clients": known("client"),
    "domains": known("domain"),
    "triplets": known("triplet"),
    "pairs": known("pair"),
    "pending": pending,
}


def _time(title: str, view: View, of: Callable[[Record], int]) -> tuple[tuple[str, Callable[[Record], str]], ...]:
    return ((title, lambda record: times.date(of(record))), ("", lambda record: times.distance(of(record), view.now)))


def _listing(view: View, query: Query, records: Iterator[Record],
             columns: tuple[tuple[str, Callable[[Record], str]], ...]) -> Listing[Record]:
    closing = Counter(left_out=0, expired=0)
    return Listing((("key", lambda record: record.key.hex() if query.long else short(record.key)), *columns,
                       ("state", lambda record: view.state(record)[1])), view.facts,
                   _chosen(view, query, records, closing), closing)


def _chosen(view: View, query: Query, records: Iterator[Record], closing: Counter[str]) -> Iterator[Record]:
    """The records that count, in order and as many as asked for, with memory for so many only."""

    def order(record: Record) -> Any:
        return SORTS[query.sort or "expires"](view, record)

    live = _live(view, records, closing)
    if query.limit:
        yield from heapq.nsmallest(query.limit, live, key=order)
        closing["left_out"] = max(0, closing["left_out"] - query.limit)
    else:
        yield from sorted(live, key=order) if query.sort else live
        closing["left_out"] = 0


def _live(view: View, records: Iterator[Record], closing: Counter[str]) -> Iterator[Record]:
    """Those that count and have not passed; until some are shown, all of them are left out."""
    for record in records:
        if not view.alive(record):
            closing["expired"] += 1
        elif record.passed:
            closing["passed"] += 1
        else:
            closing["left_out"] += 1
            yield record

