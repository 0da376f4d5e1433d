"""All benchmarks, one module after the other, each in a process of its own.

    bench/suite.py [--profile quick|full] [--json FILE] [MODULE ...]

A module that fails does not stop the rest; the suite then ends with status 1.
"""

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

import figures

HERE = Path(__file__).parent
# In this order, a file of this directory each.
MODULES = (
    "hook",
    "rules",
    "flood",
    "compaction",
    "in_process",
    "growth",
    "day",
    "peer_decisions",
    "peer_expiry",
    "serve",
)
# Seconds that all modules together should take; more is said, not cut.
BUDGET = {"smoke": 60, "quick": 120, "full": 3600}


def sections(module: str) -> tuple[str, ...]:
    """The sections that a module has."""
    declared: tuple[str, ...] = importlib.import_module(module).SECTIONS
    return declared


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=figures.PROFILES, default="quick")
    parser.add_argument("--json", type=Path, default=HERE.parent / "build" / "bench.json", metavar="FILE")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; default: all")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - set(MODULES)
    if unknown:
        parser.error(f"no module {', '.join(sorted(unknown))}")
    failed, taken = [], {}
    for module in arguments.modules or MODULES:
        started = time.monotonic()
        done = subprocess.run([sys.executable, HERE / f"{module}.py", "--profile", arguments.profile,
                               "--json", arguments.json])
        taken[module] = time.monotonic() - started
        if done.returncode != 0:
            failed.append(module)
    total = sum(taken.values())
    print(f"\n{total:.0f} seconds: " + ", ".join(f"{module} {seconds:.0f}" for module, seconds in taken.items()))
    if total > BUDGET[arguments.profile]:
        print(f"bench: that is more than the {BUDGET[arguments.profile]} seconds that {arguments.profile} should take")
    print(f"results: {arguments.json}")
    if failed:
        raise SystemExit(f"bench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
