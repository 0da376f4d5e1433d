"""What rules cost a check: the hook on a store with rules against the same hook on one without, in turn."""

import tempfile
from pathlib import Path

import fastgrey
import figures
import ruleset
import stores
from execs import Spawner, hook
from fastgrey import policy
from figures import Results

SECTIONS = ("rules",)
BASELINE = "hook, no rules"


def measure(results: Results, place: Path, number: int) -> None:
    """Each check with the rules, with expressions, and with the same store as itself."""
    rounds, times = {"smoke": (2, 5), "quick": (5, 20), "full": (30, 200)}[results.profile]
    spawner = Spawner(place)
    none = stores.made(place / "none", 10_000)
    variants = {"none, once more": none}
    for name, lists in ((f"{number} rules", ruleset.rules(number)), ("30 expressions", ruleset.PATTERNS)):
        store = variants[name] = stores.made(place / name.replace(" ", "-"), 10_000)
        with fastgrey.open(store) as opened:
            policy.put(opened, lists)
    for kind, sender, says in (("known sender", "a@h#.example", "accept known-domain"),
                               ("stranger", "x@new%.example", "defer new")):
        base, *subjects = [hook(store, sender, stores.client(0), stores.RECIPIENT, says)
                           for store in (none, *variants.values())]
        for name, subject in zip(variants, subjects, strict=True):
            results.add(spawner.pair("rules", f"{kind}, {name}", subject, BASELINE, base, rounds=rounds, times=times,
                                     note="no rule matches, which costs most"))


def main() -> None:
    """Measure."""
    parser = figures.parser(__doc__)
    parser.add_argument("--rules", type=int, default=10_000)
    arguments = parser.parse_args()
    results = Results(arguments, SECTIONS)
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        if results.wants("rules"):
            measure(results, Path(name), arguments.rules)
    results.write()


if __name__ == "__main__":
    main()
