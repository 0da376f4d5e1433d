"""What a check costs as an exec: the hook against an executable that does nothing, and what one would use instead
against the hook.

Sections: hook (kinds of checks, sizes of the table, rules, callers at once, against an empty static executable); others
(Python, shell, perl, against the hook); shared (a hook that asks fastgrey serve, and a client of postgrey); floor (a stranger's LMDB calls alone, floor.c); executable (system calls, page
faults, bytes: counts).
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import calls
import execs
import fastgrey
import figures
import instead
import ruleset
import stores
from execs import Command, Spawner, hook
from fastgrey import policy
from figures import Count, Results
from servers import Serve

SECTIONS = ("hook", "floor", "others", "shared", "executable")
NEW = "x@new%.example"
EARLY = "again@host.example"
DENIED = "a@denied.example"
RULES = 10_000


class Extent:
    """How much is measured."""

    def __init__(self, profile: str) -> None:
        self.sizes = {"smoke": [100], "quick": [10**4, 10**6, 10**7], "full": [10**4, 10**6, 10**7]}[profile]
        self.callers = {"smoke": [1, 2], "quick": [1, 2, 8], "full": [1, 2, 8]}[profile]
        # The size at which several callers are measured, 0 for all of them.
        self.crowded = {"smoke": 100, "quick": 10**6, "full": 0}[profile]
        self.rounds = {"smoke": 2, "quick": 3, "full": 25}[profile]
        self.times = {"smoke": 5, "quick": 20, "full": 100}[profile]
        # What takes a hundred times as long is run less often.
        self.slow_times = {"smoke": 1, "quick": 4, "full": 50}[profile]


def checks(store: Path, denies: bool) -> Iterator[tuple[str, Command]]:
    """Kinds of checks by name; the word for what they must be answered included."""
    client = stores.client(0)
    yield "known sender", hook(store, "a@h#.example", client, stores.RECIPIENT, "accept known-domain")
    yield "known client", hook(store, NEW, stores.KNOWN_CLIENT, stores.RECIPIENT, "accept known-client")
    yield "stranger", hook(store, NEW, client, stores.RECIPIENT, "defer new")
    if denies:
        yield "denied", hook(store, DENIED, client, stores.RECIPIENT, "reject denied")


def against_nothing(extent: Extent, results: Results, spawner: Spawner, place: Path) -> None:
    """Every kind of check at every size, with and without rules, by one caller and by several."""
    empty = spawner.empty()
    results.add(spawner.pair("hook", "empty, once more", empty, "empty", empty, rounds=extent.rounds,
                             times=extent.times, note="an executable against its own copy: what the method shakes by"))
    for size in extent.sizes:
        store = stores.made(place / f"known-{size}", size)
        for rules in (0, 1, RULES):
            if rules:
                with fastgrey.open(store) as opened:
                    policy.put(opened, ruleset.with_denied(DENIED, rules))
            for callers in extent.callers if extent.crowded in (0, size) else [1]:
                for kind, command in checks(store, bool(rules)):
                    # One rule is there for what is denied; it says nothing of the others.
                    if rules == 1 and kind != "denied":
                        continue
                    name = f"{kind}, {power(size)} known, {rules} rule{'s' * (rules != 1)}, {callers} at once"
                    results.add(spawner.pair("hook", name, command, "empty", empty, rounds=extent.rounds,
                                             times=extent.times, callers=callers))


def floor(extent: Extent, results: Results, spawner: Spawner, place: Path) -> None:
    """A stranger, a stranger that comes back too early, and the LMDB calls of a stranger alone, against nothing."""
    store = stores.made(place / "floor", extent.sizes[0])
    # The first stranger makes what the floor expects to be there.
    with fastgrey.open(store) as opened:
        opened.check(client=stores.client(0), sender=EARLY, recipient=stores.RECIPIENT)
        newest = opened.partitions()[-1]
    partition = f"2.{newest['start']:013d}.{newest['length']}"
    (pending,) = store.glob("pending.*")
    flags = figures.run(["pkg-config", "--cflags", "--libs", "lmdb"]).stdout.split()
    alone = spawner.compiled(execs.HERE / "floor.c", [store / "passed.000001", pending, partition, "%"], *flags,
                             "-lpthread")
    empty = spawner.empty()
    commands = {
        "stranger": hook(store, NEW, stores.client(0), stores.RECIPIENT, "defer new"),
        "stranger, back too early": hook(store, EARLY, stores.client(0), stores.RECIPIENT, "defer early"),
        "LMDB calls of a stranger alone": alone,
    }
    for name, command in commands.items():
        results.add(spawner.pair("floor", f"{name}, {power(extent.sizes[0])} known", command, "empty", empty,
                                 rounds=extent.rounds, times=extent.times))


def others(extent: Extent, results: Results, spawner: Spawner, place: Path) -> None:
    """What one would use instead, against the hook with the same question."""
    store = stores.made(place / "others", extent.sizes[0])
    kinds = dict(checks(store, False))
    for checker in instead.checkers(spawner, place):
        for kind, command in checker.commands.items():
            results.add(spawner.pair("others", f"{checker.name}, {kind}", command, f"hook, {kind}", kinds[kind],
                                     rounds=extent.rounds, times=extent.slow_times, note=checker.note))


def shared(extent: Extent, results: Results, spawner: Spawner, place: Path) -> None:
    """The hook on a shared store, which asks a server that has the table, against nothing and against the hook that
    looks into a table like it itself; and a client of postgrey against it."""
    size = extent.sizes[0]
    store, alone = stores.made(place / "shared", size, {"shared": 1}), stores.made(place / "alone", size)
    itself, empty = dict(checks(alone, False)), spawner.empty()
    with Serve(place / "serve", store, workers=1).running():
        asking = dict(checks(store, False))
        for kind, command in asking.items():
            name = f"hook that asks, {kind}, {power(size)} known"
            for baseline, base in (("empty", empty), ("hook that decides itself", itself[kind])):
                results.add(spawner.pair("shared", f"{name}, by {baseline}", command, baseline, base,
                                         rounds=extent.rounds, times=extent.times,
                                         note="fastgrey serve with one worker and an embedded store"))
        beside = place / "beside"
        beside.mkdir()
        # postgrey becomes a user of its own.
        beside.chmod(0o711)
        for checker in instead.postgrey(spawner, beside):
            for kind, command in checker.commands.items():
                results.add(spawner.pair("shared", f"{checker.name}, {kind}", command, f"hook that asks, {kind}",
                                         asking[kind], rounds=extent.rounds, times=extent.slow_times,
                                         note=checker.note))


def executable(results: Results, spawner: Spawner, place: Path) -> None:
    """What does not shake."""
    if shutil.which("strace") is None:
        print("  strace is not there: left out")
        return
    store = stores.made(place / "counted", 10_000)
    with fastgrey.open(store) as opened:
        policy.put(opened, ruleset.with_denied(DENIED, 1))
    for kind, command in [("empty static executable", spawner.empty()), *checks(store, True)]:
        # The first stranger makes pending, the second one is as all that follow.
        calls.counted(command)
        counted = calls.counted(command)
        results.add(Count("executable", kind, {"system calls": sum(counted.calls.values()),
                                               "page faults": counted.faults}))
    results.add(Count("executable", "bytes", {"executable": execs.HOOK.stat().st_size}))


def power(number: int) -> str:
    """A power of ten as such."""
    exponent = len(str(number)) - 1
    return f"10^{exponent}" if number == 10**exponent else str(number)


def main() -> None:
    """Measure."""
    arguments = figures.parser(__doc__).parse_args()
    results = Results(arguments, SECTIONS)
    extent = Extent(results.profile)
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        place = Path(name)
        spawner = Spawner(place)
        if results.wants("hook"):
            against_nothing(extent, results, spawner, place)
        if results.wants("floor"):
            floor(extent, results, spawner, place)
        if results.wants("others"):
            others(extent, results, spawner, place)
        if results.wants("shared"):
            shared(extent, results, spawner, place)
        if results.wants("executable"):
            executable(results, spawner, place)
    results.write()


if __name__ == "__main__":
    main()
