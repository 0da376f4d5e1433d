"""The table of docs/reliability.md, made from the lines that `make torture` left.

    python tests/tried.py                        put the table of docs/reliability.jsonl into docs/reliability.md
    python tests/tried.py build/tried.jsonl      first put the lines of this run in place of earlier ones of the same tests
"""

import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, LINES = DOCS / "reliability.md", DOCS / "reliability.jsonl"
BEGIN, END = "<!-- tried: begin -->\n", "<!-- tried: end -->\n"
# Of the run, not of what was counted.
ABOUT = ("what", "effort", "ended", "seed", "machine")


def machine():
    """This machine in a few words."""
    return f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} processors"


def read(file):
    """The lines of a file, as dictionaries."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def summed(lines):
    """A line for each name: of a test that ran with several parameters the numbers are added up."""
    found = {}
    for line in lines:
        total = found.setdefault(line["what"], {})
        for name, value in line.items():
            if name in ABOUT or name not in total:
                total[name] = value
            elif isinstance(value, str):
                total[name] += f", {value}"
            else:
                total[name] += value
    return [*found.values()]


def merged(before, new):
    """All lines, those of a test that ran again in place of its earlier ones, by the name of what was tried."""
    new = summed(new)
    names = {line["what"] for line in new}
    kept = [line for line in before if line["what"] not in names]
    return sorted(kept + new, key=lambda line: [int(part) if part.isdigit() else part
                                                for part in re.split(r"(\d+)", line["what"])])


def table(lines):
    """What was tried, a row a line of the file; numbers that are zero tell as much as others."""
    rows = ["| what | tried | when, how |", "| --- | --- | --- |"]
    for line in lines:
        counts = ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in line.items()
                           if name not in ABOUT)
        when = datetime.fromtimestamp(line["ended"], UTC).date()
        seed = f", seed {line['seed']}" if "seed" in line else ""
        rows.append(f"| {line['what']} | {counts} | {when}, `make torture EFFORT={line['effort']}`{seed}; "
                    f"{line['machine']} |")
    return "\n".join(rows) + "\n"


def shown(value):
    return f"{value:,}" if isinstance(value, int) else str(value)


def page(text, lines):
    """The page with the table of these lines between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + table(lines) + "\n" + END + after


def main(*files):
    lines = read(LINES) if LINES.exists() else []
    for file in files:
        lines = merged(lines, [line | {"machine": machine()} for line in read(Path(file))])
    LINES.write_text("".join(json.dumps(line) + "\n" for line in lines))
    PAGE.write_text(page(PAGE.read_text(), lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
