"""A process that promotes one triplet after the other, and says each number when it is done."""

import contextlib
import subprocess
import sys

SCRIPT = """
import fastgrey, itertools, sys
store = fastgrey.open(sys.argv[1])
for number in itertools.count(1):
    for _ in range(2):
        store.check(client=f"10.{number >> 8 & 255}.{number & 255}.1", sender=f"a@{number}.example", recipient="b@c.d")
    print(number, flush=True)
"""


@contextlib.contextmanager
def promoting(path):
    """Such a process on a store whose delay is 0, killed at the end; with a function that waits for its next number."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE) as process:
        try:
            yield lambda: int(process.stdout.readline())
        finally:
            process.kill()


def known(store, number):
    """Whether the triplet with this number is."""
    return store.check(client=f"10.{number >> 8 & 255}.{number & 255}.1", sender=f"a@{number}.example",
                       recipient="b@c.d", dry_run=True).reason == "known-triplet"
