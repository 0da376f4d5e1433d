"""How much a test tries, and what it tried: a little in `make test`, EFFORT times as much in `make torture`.

A test with the mark `torture` takes its numbers (kills, cases, seconds of a fuzzer) from `times`, and says with `tried` what
it did. Those lines are the table of docs/reliability.md.
"""

import json
import os
import time

EFFORT = int(os.environ.get("FASTGREY_EFFORT") or 1)


def times(quick: int) -> int:
    """As many as are quick in `make test`, EFFORT times as many in `make torture`."""
    return quick * EFFORT


def tried(what: str, **numbers: int | float | str) -> None:
    """Add a line to the file FASTGREY_TRIED, where there is one: what was tried, and counts of it, as {"kills": 1000}."""
    if file := os.environ.get("FASTGREY_TRIED"):
        with open(file, "a") as lines:
            lines.write(json.dumps({"what": what, "effort": EFFORT, "ended": int(time.time()), **numbers}) + "\n")
