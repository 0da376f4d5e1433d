"""Lists of what a store holds."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from . import policy, times
from . import windows as windows_
from .errors import RequestError
from .records import Facts, Record, View, short
from .rules import Rule
from .windows import Window

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


def windows(view: View, query: Query) -> Listing[Window]:
    """What lists the expectation windows that are open."""
    orders: dict[str, Callable[[Window], Any]] = {
        "expires": itemgetter("until"), "seen": lambda window: -window["opened"], "key": itemgetter("key")}
    return _bounded(query, "windows", windows_.listing(view.store), orders, (
        ("key", lambda window: window["key"] if query.long else short(window["key"])),
        ("for", lambda window: "one sender domain" if window["narrow"] else "any sender"),
        *_time("opened", view, itemgetter("opened")),
        *_time("closes", view, itemgetter("until")),
    ), windows_.facts)


def rules(view: View, query: Query) -> Listing[tuple[Rule, int]]:
    """What lists the rules in force and how often each decided, in the order of their lists if nothing else is said."""
    orders: dict[str, Callable[[tuple[Rule, int]], Any]] = {
        "count": lambda item: -item[1], "key": lambda item: item[0].entry.lower()}
    in_force = policy.in_force(view.store)
    return _bounded(query, "rules", list(zip(in_force.rules, in_force.hits, strict=True)), orders, (
        ("list", lambda item: item[0].list), ("rule", lambda item: item[0].entry), ("hits", lambda item: str(item[1])),
        ("place", lambda item: item[0].place),
    ), lambda item: item[0].facts() | {"hits": item[1]})


def _bounded(query: Query, what: str, rows: list[T], orders: dict[str, Callable[[T], Any]],
             columns: tuple[tuple[str, Callable[[T], str]], ...], facts: Callable[[T], Facts]) -> Listing[T]:
    """A list of what is all in memory."""
    if query.sort and query.sort not in orders:
        raise RequestError(f"--sort {query.sort}: {what} have none; there are {', '.join(orders)}")
    if query.sort:
        rows = sorted(rows, key=orders[query.sort])
    shown = rows[:query.limit] if query.limit else rows
    return Listing(columns, facts, shown, Counter(left_out=len(rows) - len(shown)))


# What `fastgrey list` can list, by the word for it.
LISTS: dict[str, Callable[[View, Query], Listing[Any]]] = {
    "clients": known("client"),
    "domains": known("domain"),
    "triplets": known("triplet"),
    "pairs": known("pair"),
    "pending": pending,
    "windows": windows,
    "rules": rules,
}


def _time(title: str, view: View, of: Callable[[T], int]) -> tuple[tuple[str, Callable[[T], str]], ...]:
    return ((title, lambda row: times.date(of(row))), ("", lambda row: times.distance(of(row), view.now)))


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

