"""What rules cost a check: the hook on a store with rules against the same hook on one without, in turn.

    bench/rules.py [--rounds N] [--times N] [--rules N]

Every figure is a ratio: in a round the two take turns, and the median time of the one is divided by that of the other.
Printed are the median and the range of the ratios over the rounds. Of the rules a third each are addresses, domains and
networks; none of them matches, which costs most.
"""

import argparse
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import fastgrey
from fastgrey import policy
from hook import HOOK, build, check_log, copy_of, fill

CHECKS = {
    "known sender": (["a@a.example", "b@example.net"], "accept known-domain"),
    "stranger": (["new@host%.example", "b@example.net"], "defer new"),
}
PATTERNS = {"allow_senders": [rf"/^mail[0-9]+\.pool-{number}\.example\.org$/" for number in range(30)]}


def rules(number: int) -> dict[str, list[str]]:
    """So many entries in all six lists, from a seed; networks of ten lengths."""
    chance = random.Random(1)
    lists: dict[str, list[str]] = {}
    for index in range(number):
        word = f"{chance.getrandbits(40):x}"
        kind = index % 3
        of = ("clients", "senders", "recipients")[kind if kind == 0 else 1 + index % 2]
        if kind == 0:
            entry = f"172.{16 + index % 16}.{index // 16 % 256}.{chance.randrange(256)}/{chance.randrange(23, 33)}"
        else:
            entry = f"{word}@{word}.example.com" if kind == 1 else f"{word}.example.com"
        lists.setdefault(f"{chance.choice(('deny', 'allow'))}_{of}", []).append(entry)
    return lists


def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, list[float]]:
    """Ratios by rounds of each check, with the rules, with expressions, and with the same store as itself."""
    spawn = build(directory)[0]
    none = directory / "none"
    stores = {"the same store": none}
    for name in ("none", f"{arguments.rules} rules", "30 expressions"):
        store = directory / name.replace(" ", "-")
        fastgrey.create(store, {"refresh": 10**7})
        fill(store, 1000)
        stores.setdefault(name, store)
        with fastgrey.open(store) as opened:
            if "rules" in name:
                policy.put(opened, rules(arguments.rules))
            elif "expressions" in name:
                policy.put(opened, PATTERNS)
    del stores["none"]
    results: dict[str, list[float]] = {}
    environment = {"TCPREMOTEIP": "10.0.0.0", "PATH": os.environ["PATH"]}
    for check, (words, expected) in CHECKS.items():
        for name, store in stores.items():
            ratios = results.setdefault(f"{check}, {name}", [])
            for _ in range(arguments.rounds):
                copies = [copy_of(HOOK, directory) for _ in range(2)]
                call = [spawn, "1", str(arguments.times)]
                for copy, place in zip(copies, (none, store), strict=True):
                    call += ["--", f"FASTGREY_STORE={place}", copy, *words]
                log = directory / "log"
                with open(log, "wb") as errors:
                    output = subprocess.run(call, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
                if output.returncode != 0:
                    raise SystemExit(f"bench: {log.read_text()[-300:]}")
                check_log(log.read_text(), expected, 2 * arguments.times)
                base, taken = (float(field) for field in output.stdout.split())
                ratios.append(taken / base)
                for copy in copies:
                    copy.unlink()
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=200, help="processes of each kind in a round")
    parser.add_argument("--rules", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        results = measure(arguments, Path(name))
    print(f"{arguments.rounds} rounds of {arguments.times} processes each, against the hook on a store without rules, "
          f"{time.strftime('%Y-%m-%d')}, {os.uname().release}, {os.cpu_count()} cores")
    for name, ratios in results.items():
        print(f"{name:32}{median(ratios):7.3f}{min(ratios):8.3f}-{max(ratios):.3f}")


if __name__ == "__main__":
    main()
