"""Decisions a second of `fastgrey serve`, how long one takes, and what they cost where an engine holds the records.

    bench/serve.py [--profile quick|full] [--only SECTION]

Beside a server in C that decides nothing, which is the limit, and beside the greylisters that are used elsewhere, all
in turn in one run, on the same questions, of known senders, of strangers or of half of each; every answer is checked.
One process asks (load.c), and it needs a processor as the server does.

Decisions on records in Valkey (or Redis) and in PostgreSQL are set against bare reads and writes of the same server
through the same client.

What is not installed is skipped, and that is said; the packages are in peer_decisions.py and in engines.py.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import uvloop

import engines
import fastgrey
import figures
from fastgrey._core import Store
from fastgrey.shared.open import engine_from_url
from figures import Count, Figure, Results, figures_of, turns
from peers import PEERS, is_here, own
from peers.asking import Target, Tools
from peers.questions import KINDS, Questions, known
from servers import Empty, Serve, Server

SECTIONS = RATES, LATENCY, ENGINES = "serve", "serve-latency", "serve-engines"


class Size(NamedTuple):
    """How much a profile measures."""

    entries: int
    # Of decisions a second: rounds, and seconds that each subject should take in one.
    rounds: int
    seconds: float
    # The same of how long one takes; with so many connections, and those of peers, of which some are slow.
    times: int
    each: float
    connections: tuple[int, ...]
    peers: tuple[int, ...]
    # On engines: rounds, seconds, and callers at once.
    turns: int
    on_engine: float
    callers: tuple[int, ...]


SIZES = {
    "smoke": Size(200, 2, 0.01, 1, 0.01, (1, 4), (1,), 2, 0.01, (2,)),
    "quick": Size(1000, 3, 0.05, 1, 0.05, (1, 32, 256), (1,), 3, 0.05, (8, 32)),
    "full": Size(20_000, 7, 0.4, 3, 0.5, (1, 32, 256), (1, 32, 256), 5, 0.3, (1, 8, 32)),
}
# Where decisions a second are measured.
CONNECTIONS = 8
# Of questions that are timed, in all, and over each connection.
FEWEST, MOST, FEW = 16, 150_000, 4
# Of those that tell how many these shall be, and seconds that they must take to tell it.
TRIAL, TOLD = 1000, 0.005
# Of percentiles: a hundredth and a thousandth of fewer questions is none.
ENOUGH = {"p50": 1, "p99": 100, "p999": 1000}
OURS = "serve has a worker for each processor, and the process that asks needs one, too; it flushes for no stranger"


class Subject(NamedTuple):
    """Somebody who is asked."""

    name: str
    # What it is asked over, and where.
    over: str
    target: Target
    # What is not comparable.
    note: str = ""
    # How many answers to the questions of a file may be wrong.
    wrong: Callable[[Path], int] = lambda questions: 0
    # The kinds of questions that make a difference to it.
    kinds: tuple[str, ...] = KINDS

    def called(self, kind: str) -> str:
        """In figures."""
        return ", ".join([self.name, *([kind] if len(self.kinds) > 1 else []), self.over])


class Asker:
    """Asks each subject as many questions as it answers in so many seconds."""

    def __init__(self, tools: Tools, questions: Questions) -> None:
        self._tools = tools
        self._questions = questions

    def paced(self, subject: Subject, kind: str, connections: int, seconds: float) -> Callable[[], dict[str, Any]]:
        """What asks once more for so many seconds, and returns what load found."""
        number, found = FEWEST, self._ask(subject, kind, connections, FEWEST)
        while number < TRIAL and found["seconds"] < TOLD:
            number *= 4
            found = self._ask(subject, kind, connections, number)
        # With fewer, not all connections would be busy for most of the time.
        least = max(FEWEST, FEW * connections)
        return partial(self._ask, subject, kind, connections, max(least, min(MOST, int(seconds / each(found)))))

    def _ask(self, subject: Subject, kind: str, connections: int, number: int) -> dict[str, Any]:
        asked = kind if kind in subject.kinds else subject.kinds[0]
        (file,) = self._questions.files(asked, connections + number, 1)
        found = self._tools.loaded(subject.target, connections, file, subject.wrong(file))
        file.unlink()
        return found


def answers(found: dict[str, Any]) -> int:
    """How many there were."""
    return int(found["accept"] + found["defer"] + found["reject"])


def each(found: dict[str, Any]) -> float:
    """Seconds of one, of all connections together."""
    return float(found["seconds"]) / answers(found)


def rates(subjects: list[Subject], asker: Asker, size: Size) -> Iterator[Figure | Count]:
    """serve by the limit, and the peers by serve over the same kind of socket."""
    for kind in KINDS:
        paced = {one: asker.paced(one, kind, CONNECTIONS, size.seconds) for one in subjects}
        found = turns(paced, size.rounds)
        seconds = {one: [each(row) for row in rows] for one, rows in found.items()}
        ours = {one.over: one for one in subjects if one.name == Serve.name}
        for one in subjects:
            beside = ours[one.over]
            if one is beside:
                continue
            subject, base = (one, beside) if len(one.kinds) > 1 else (beside, one)
            yield from figures_of({base.called(kind): seconds[base], subject.called(kind): seconds[subject]},
                                  base.called(kind), RATES, notes={subject.called(kind): subject.note})
        yield Count(RATES, f"{kind}, {CONNECTIONS} connections", {
            **{f"{one.called(kind)} a second": round(1 / median(taken)) for one, taken in seconds.items()},
            "wrong answers": sum(row["wrong"] for rows in found.values() for row in rows)})


def latencies(subjects: list[Subject], asker: Asker, size: Size) -> Iterator[Count]:
    """Percentiles of a question's time, of each with few connections and with many."""
    ours = {Serve.name, "empty server"}
    for connections in size.connections:
        for kind in KINDS[:2]:
            paced = {one: asker.paced(one, kind, connections, size.each) for one in subjects
                     if connections in (size.connections if one.name in ours else size.peers)
                     and (kind == KINDS[0] or kind in one.kinds)}
            for one, rows in turns(paced, size.times).items():
                numbers: dict[str, int | float] = {"connections": connections,
                                                   "a second": round(1 / median(map(each, rows)))}
                numbers |= {key: median(row[key] for row in rows) for key, least in ENOUGH.items()
                            if min(map(answers, rows)) >= least}
                yield Count(LATENCY, f"{one.called(kind)}, {connections} connections", numbers)


def here(place: Path, entries: int, section: str, results: Results,
         stack: contextlib.ExitStack) -> Iterator[Subject]:
    """Ours, the limit, and the peers that this machine has; they run until the stack ends."""
    store = place / "store"
    own.fill(store, entries, known)
    workers = len(os.sched_getaffinity(0))
    servers: Iterable[tuple[Server, tuple[str, ...], str]] = [
        (Serve(place / "serve", store), KINDS, OURS),
        *((Empty(place / f"empty{processes}", processes), KINDS[:1], "") for processes in sorted({1, workers})),
    ]
    for server, kinds, note in servers:
        stack.enter_context(server.running())
        for over, target in server.targets.items():
            yield Subject(server.name, over, target, note, kinds=kinds)
    for made in PEERS:
        if is_here(made, section, results):
            (place / made.name).mkdir()
            peer = made(place / made.name)
            peer.fill(entries, 0, known)
            stack.enter_context(peer.running())
            yield Subject(peer.name, "unix" if peer.where.startswith("/") else "TCP", Target(peer.way, peer.where),
                          f"{OURS}. {peer.differs}", peer.wrong_in)


def on_engine(kind: engines.Kind, place: Path, tools: Tools, questions: Questions, size: Size) -> Iterator[Figure]:
    """Decisions in this process, and those of serve, by bare reads, and of strangers by a bare read and write each."""
    store = place / kind.name
    fastgrey.create(store, {})
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(kind.server())
        opened = stack.enter_context(Store(str(store)))
        # The event loop that a worker has with an engine.
        run = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop)).run
        engine = engine_from_url(server.url, timeout=engines.TIMEOUT, name=engines.SPACE)
        stack.callback(lambda: run(engine.close()))
        bares = {name: make() for name, make in kind.bares.items()}
        for bare in bares.values():
            run(bare.open(server.url))
            stack.callback(lambda bare=bare: run(bare.close()))
        run(engine.open())
        decisions = engines.Decisions(opened, engine, questions)
        run(decisions.introduce(size.entries))
        serve = Serve(place / f"serve-{kind.name}", store, engine=server.url, name=engines.SPACE)
        stack.enter_context(serve.running())
        asker = Asker(tools, questions)
        over, target = next(iter(serve.targets.items()))
        for callers, asked in product(size.callers, KINDS[:2]):
            def decide(number: int, asked: str = asked, callers: int = callers) -> float:
                return run(decisions.seconds(asked, callers, number)) / number

            def work(bare: Any, number: int, asked: str = asked, callers: int = callers) -> float:
                return run(engines.crowd(bare.get if asked == KINDS[0] else bare.get_and_set, callers, number)) / number

            number = FEWEST * callers
            slowest = max(decide(number), *(work(one, number) for one in bares.values()))
            number = max(number, int(size.on_engine / slowest))
            paced = asker.paced(Subject(serve.name, over, target), asked, callers, size.on_engine)
            did = "read" if asked == KINDS[0] else "read and write"
            bare_names = {f"{did}, {name}, {kind.name}, {callers} at once": one for name, one in bares.items()}
            base = next(iter(bare_names))
            ours, served = (f"{what}, {asked}, {kind.name}, {callers} at once" for what in ("decision", "serve"))
            yield from figures.in_turn({**{name: partial(work, one, number) for name, one in bare_names.items()},
                                        ours: partial(decide, number),
                                        served: lambda paced=paced: each(paced())}, base, size.turns, ENGINES,
                                       notes={ours: kind.note, served: f"{OURS}. {kind.note}"})


def main() -> None:
    """Measure and print."""
    arguments = figures.parser(__doc__).parse_args()
    results = Results(arguments, SECTIONS)
    size = SIZES[arguments.profile]
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name, contextlib.ExitStack() as stack:
        place = Path(name)
        # Where a peer becomes a user of its own, that one must get to its directory.
        place.chmod(0o711)
        questions = Questions(place, size.entries)
        tools = Tools(place)
        asker = Asker(tools, questions)
        subjects: list[Subject] = []
        for section, measured in ((RATES, rates), (LATENCY, latencies)):
            if results.wants(section):
                subjects = subjects or list(here(place, size.entries, section, results, stack))
                for found in measured(subjects, asker, size):
                    results.add(found)
        stack.close()
        if results.wants(ENGINES):
            for kind in engines.KINDS:
                if is_here(kind, ENGINES, results):
                    for figure in on_engine(kind, place, tools, questions, size):
                        results.add(figure)
    results.write()


if __name__ == "__main__":
    main()
