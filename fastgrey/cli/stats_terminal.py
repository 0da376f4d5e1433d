"""The facts of stats on a terminal: in colour, with a bar for the share of each verdict."""

from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastgrey.cli.common import one_line
from fastgrey.cli.stats_plain import COLUMNS, check_rows, heading, sections

COLOURS = {"accept": "green", "defer": "yellow", "reject": "red"}
# Eighths of a character, in Unicode's block elements.
EIGHTHS = " ▏▎▍▌▋▊▉█"
LONGEST_BAR = 16


def view(facts: dict[str, Any], console: Console) -> RenderableType:
    """All of it, as wide as the console."""
    below = [_section(title, rows) for title, rows in sections(facts).items()]
    # The last one is too wide to stand beside others.
    return Group(*(Text(one_line(line)) for line in heading(facts)), Text(), _checks(facts, console), Text(),
                 Columns(below[:-1], padding=(0, 4, 1, 0)), below[-1])


def _checks(facts: dict[str, Any], console: Console) -> Table:
    rows = check_rows(facts)
    all_ = rows[-1][1]
    # No number of a column is longer than that of all.
    widths = [max(len(title), len(str(number))) for title, number in zip(COLUMNS, all_, strict=True)]
    # A blank before each number, another before each bar.
    room = console.width - max(len(name) for name, _ in rows) - sum(widths) - 3 * len(widths)
    length = max(1, min(room // len(widths), LONGEST_BAR))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("checks", no_wrap=True)
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
        table.add_column(width=length, no_wrap=True)
    for name, numbers in rows:
        colour = "bold" if name == "all" else "bold red" if name.endswith("error") else COLOURS[name.split()[0]]
        cells: list[RenderableType] = []
        for number, whole in zip(numbers, all_, strict=True):
            share = number / whole if whole and name != "all" else 0
            cells += [Text(str(number), "" if number else "dim"),
                      Text(bar(share, length, console.options.ascii_only), colour)]
        table.add_row(Text(name, colour), *cells)
    return table


def bar(share: float, length: int, ascii_only: bool) -> str:
    """A bar for a share of 1, up to so many characters long. What is not nothing can be seen."""
    if ascii_only:
        return "#" * max(round(share * length), share > 0)
    eighths = max(round(share * length * 8), share > 0)
    return (EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def _section(title: str, rows: dict[str, object]) -> Group:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (rows or {"none": ""}).items():
        table.add_row(Text(one_line(name)), Text(one_line(str(value))))
    return Group(Text(title, "bold"), table)
