"""The facts of stats as text: aligned columns, for a pipe or a file. Also what both views show."""

from typing import Any

from fastgrey import _core, statistics, times
from fastgrey.sizes import bytes_shown

COLUMNS = ("since start", *statistics.PERIODS)
MOST_USED = 10
NOT_COUNTING = "the page of counters is missing or unusable, nothing is counted; run: fastgrey init"


def lines(facts: dict[str, Any]) -> list[str]:
    """All of it, a line each."""
    checks = [("checks", COLUMNS), *((name, tuple(map(str, numbers))) for name, numbers in check_rows(facts))]
    widths = [max(len(cells[column]) for _, cells in checks) for column in range(len(COLUMNS))]
    width = max(len(name) for name, _ in checks)
    shown = [*heading(facts), ""]
    for name, cells in checks:
        shown.append("  ".join([f"{name:<{width}}", *map(str.rjust, cells, widths)]))
    for title, rows in sections(facts).items():
        width = max(map(len, rows), default=0)
        shown += ["", title, *(f"  {name:<{width}}  {value}" for name, value in rows.items())]
        if not rows:
            shown.append("  none")
    return shown


def heading(facts: dict[str, Any]) -> list[str]:
    """Which store this is, and from when to when it was counted."""
    since = facts["counting_since"]
    return [f"{facts['store']}: {facts['generation']}, made {facts['made']}",
            f"counted from {since} to {facts['time']}" if since else NOT_COUNTING]


def check_rows(facts: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Every verdict that there was, with its numbers by COLUMNS; last the sum of all."""
    tables = [facts["verdicts"], *(facts["recent"][name] for name in statistics.PERIODS)]
    names = [f"{action} {reason}" for action, reason in _core.VERDICTS]
    rows = [(name, [table.get(name, 0) for table in tables]) for name in names if name in facts["verdicts"]]
    return [*rows, ("all", [sum(table.values()) for table in tables])]


def sections(facts: dict[str, Any]) -> dict[str, dict[str, object]]:
    """What stands below the checks: rows by title."""
    sizes = {name: bytes_shown(size) for name, size in facts["bytes"].items()}
    return {
        "strangers": _strangers(facts["strangers"]),
        # The other two are what the rows of the strangers say.
        "events": {name: number for name, number in facts["events"].items() if name not in ("strangers", "promoted")},
        "rules": _rules(facts["rules"]),
        "known records": facts["known"],
        "size": sizes | {"pending": f"{sizes['pending']} of at most {bytes_shown(facts['pending_size'])}"},
        "last compaction": _compaction(facts["compaction"]),
        "pending partitions": {p["from"] + (f" part {p['part']}" if p["part"] else ""):
                               f"{p['records']} records until {p['until']}" for p in facts["pending"]},
    }


def _compaction(last: dict[str, Any] | None) -> dict[str, object]:
    if last is None:
        return {}
    rows = {"result": last["result"] + (f": {last['why']}" if last["why"] else ""), "began": last["began"]}
    if last["seconds"] is not None:
        rows["took"] = f"{last['seconds']:.2f} s"
    return rows | {"last success": last["succeeded"] or "-"}


def _rules(rules: list[dict[str, Any]]) -> dict[str, object]:
    """The rules that decided most, and how many never did."""
    if not rules:
        return {}
    used = [rule for rule in rules if rule["hits"]]
    rows: dict[str, object] = {f"{rule['list']}: {rule['entry']} ({rule['place']})": rule["hits"]
                               for rule in used[:MOST_USED]}
    return rows | {"all others": sum(rule["hits"] for rule in used[MOST_USED:]),
                   "never hit": f"{len(rules) - len(used)} of {len(rules)} rules; fastgrey list rules"}


def _strangers(strangers: dict[str, Any] | None) -> dict[str, object]:
    if strangers is None:
        return {}
    share = "" if strangers["share"] is None else f" ({strangers['share']:.1%})"
    wait = strangers["median_wait"]
    return {
        "seen": strangers["seen"],
        "came back": f"{strangers['came_back']}{share}",
        "their median wait": "-" if wait is None else f"about {times.span(round(wait))}",
    }
