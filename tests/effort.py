"""How much a test tries, and what it tried: a little in `make test`, EFFORT times as much in `make torture`.

A test with the mark `torture` takes its numbers (kills, cases, seconds of a fuzzer) from `times`, what it draws from
`chance`, and says with `tried` what it did. Those lines are the table of docs/reliability.md.
"""

import contextlib
import json
import os
import random
import time
from collections.abc import Iterator

EFFORT = int(os.environ.get("FASTGREY_EFFORT") or 1)
# The same in every `make test`, another one in every `make torture`; FASTGREY_SEED repeats one.
SEED = int(os.environ.get("FASTGREY_SEED") or (1 if EFFORT == 1 else random.SystemRandom().randrange(1, 1 << 32)))


def times(quick: int) -> int:
    """As many as are quick in `make test`, EFFORT times as many in `make torture`."""
    return quick * EFFORT


@contextlib.contextmanager
def chance(what: str) -> Iterator[random.Random]:
    """What draws the numbers of a test; a failure within says how to draw the same again."""
    try:
        yield random.Random(f"{SEED} {what}")
    except BaseException as error:
        error.add_note(f"drawn with FASTGREY_SEED={SEED} FASTGREY_EFFORT={EFFORT}")
        raise


def tried(what: str, **numbers: int | float | str) -> None:
    """Add a line to the file FASTGREY_TRIED, where there is one: what was tried, and counts of it, as {"kills": 1000}."""
    if file := os.environ.get("FASTGREY_TRIED"):
        with open(file, "a") as lines:
            lines.write(json.dumps({"what": what, "effort": EFFORT, "ended": int(time.time()), **numbers}) + "\n")
