"""How much there is in a store, and how old it is."""

from dataclasses import dataclass

from . import policy, times, windows
from .records import KINDS, TIME_MASK, Facts, View


@dataclass
class Known:
    """Records of one kind. Times are Unix seconds of when a live one was seen last, None where there is none."""

    alive: int = 0
    expired: int = 0
    oldest: int | None = None
    newest: int | None = None


@dataclass
class Pending:
    """Pending in numbers of live records, of expired ones, and of partitions.

    waiting: triplets that are not known yet. passing: those of them that a retry now lets pass. passed: triplets that
    are known by now. pairs: pairs that gather hops.
    """

    waiting: int = 0
    passing: int = 0
    passed: int = 0
    pairs: int = 0
    expired: int = 0
    partitions: int = 0


@dataclass
class Rules:
    """The rules of one list: how many, how often one of them decided, how many never did."""

    rules: int = 0
    hits: int = 0
    never_hit: int = 0


@dataclass
class Overview:
    """Known records by kind, pending, when each open window closes (Unix seconds), and the rules by list."""

    known: dict[str, Known]
    pending: Pending
    windows: list[int]
    rules: dict[str, Rules]
    lifetime: int

    def facts(self) -> Facts:
        """The same for JSON; times are UTC (RFC 3339)."""
        return {
            "known": {kind: {"alive": known.alive, "expired": known.expired, "oldest": _utc(known.oldest),
                             "newest": _utc(known.newest), "next_expires": _utc(self.next_expires(known))}
                      for kind, known in self.known.items()},
            "pending": vars(self.pending),
            "windows": {"open": len(self.windows), "next_closes": _utc(min(self.windows, default=None))},
            "rules": {name: vars(rules) for name, rules in self.rules.items()},
        }

    def next_expires(self, known: Known) -> int | None:
        """When the first of the live ones expires, if it is not seen again."""
        return None if known.oldest is None else known.oldest + self.lifetime


def overview(view: View) -> Overview:
    """Go through everything once."""
    return Overview({kind: _known(view, kind) for kind in KINDS}, _pending(view),
                    [window["until"] for window in windows.listing(view.store)],
                    rules_by_list(policy.in_force(view.store)), view.settings["lifetime"])


def rules_by_list(in_force: policy.Policy) -> dict[str, Rules]:
    """The lists that have rules, and how much those are used."""
    found: dict[str, Rules] = {}
    for rule, hits in zip(in_force.rules, in_force.hits, strict=True):
        row = found.setdefault(rule.list, Rules())
        row.rules += 1
        row.hits += hits
        row.never_hit += not hits
    return found


def _known(view: View, kind: str) -> Known:
    found = Known()
    living = view.now - view.settings["lifetime"]
    for rows in view.batches(kind):
        seen = [record & TIME_MASK for _, record in rows]
        alive = [time for time in seen if time >= living]
        found.alive += len(alive)
        found.expired += len(seen) - len(alive)
        if alive:
            found.oldest = min(alive) if found.oldest is None else min(found.oldest, *alive)
            found.newest = max(alive) if found.newest is None else max(found.newest, *alive)
    return found


def _pending(view: View) -> Pending:
    found = Pending(partitions=len(view.store.partitions()))
    for record in view.pending():
        if not view.alive(record):
            found.expired += 1
        elif record.kind == "pair":
            found.pairs += 1
        elif record.passed:
            found.passed += 1
        else:
            found.waiting += 1
            found.passing += view.now >= view.passes_from(record)
    return found


def _utc(seconds: int | None) -> str | None:
    return None if seconds is None else times.rfc3339(seconds)
