"""Cases of in_process.py: the steps of a decision, each against an mdb_get of a ready key in the same store."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import core
import population
from figures import Results, beside
from in_process import power

# So few at a time that a round seldom meets another process.
EACH = 2000
GET = "mdb_get of a ready key"
ROUNDS = {"smoke": 3, "quick": 50, "full": 500}


@pytest.fixture(scope="module")
def stores() -> Iterator[Callable[[int], Any]]:
    """Loops over the store with so many known triplets, made when first wanted."""
    made: dict[int, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        def loops_of(known: int) -> Any:
            if known not in made:
                made[known] = core.load().Loops(str(population.make(Path(name) / str(known), known)))
                made[known].known = known
            return made[known]

        yield loops_of
        for loops in made.values():
            loops.close()


@pytest.fixture(params=[10**4, 10**6], ids=power)
def store(request: pytest.FixtureRequest, stores: Callable[[int], Any], profile: str) -> Any:
    """Loops over a store of one of the sizes."""
    return stores(request.param if profile != "smoke" else 1000)


@pytest.mark.parametrize(("step", "name"), [
    ("normalise", "normalising"), ("hash", "hashing"), ("look", "look-up"), ("decide", "decision, known triplet")])
def case_step(benchmark: Any, results: Results, profile: str, store: Any, step: str, name: str) -> None:
    """One step; and all of them, where triplets are all that is looked up."""
    measure(benchmark, results, profile, store, step, name, None, True, "known-triplet")


@pytest.mark.parametrize("kind", ["known-triplet", "known-domain", "known-client"])
def case_default(benchmark: Any, results: Results, profile: str, store: Any, kind: str) -> None:
    """Decisions by default settings: a client, a domain and a triplet are looked up until one is known."""
    name = {"known-triplet": "decision, client and domain looked up in vain", "known-domain": "decision, known domain",
            "known-client": "decision, known client"}[kind]
    measure(benchmark, results, profile, store, "decide", name, kind, False, kind)


def measure(benchmark: Any, results: Results, profile: str, loops: Any, step: str, name: str, kind: str | None,
            only_triplets: bool, reason: str) -> None:
    loops.take(core.load().Workload(population.some(EACH, loops.known, kind), int(time.time())))
    loops.only_triplets(only_triplets)
    results.add(beside(benchmark, getattr(loops, step), loops.get, section="steps",
                       name=f"{name}, {power(loops.known)} known", baseline=GET, rounds=ROUNDS[profile], each=EACH))
    if step == "decide" and loops.reasons != {reason: EACH}:
        raise ValueError(f"bench: decided as {loops.reasons}")
