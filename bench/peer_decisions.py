"""Decisions a second beside the greylisters that are used elsewhere, on the same questions, in turn in one run.

    bench/peer_decisions.py [--profile quick|full] [--only SECTION]

In a round the hook, the API and the peer are asked the same questions, of known senders, of strangers or of half of
each, by as many callers at once; every answer is checked. Where the peer speaks Postfix's protocol, a client is there,
too, that is run for each question and asks the peer: that is what a qmail needs which leaves its decisions to a daemon.

A peer that is not installed is skipped, and that is said. Debian has them: apt-get install postgrey gross sqlgrey
libdbd-sqlite3-perl greylistd.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import figures
from execs import HOOK
from figures import Count, Figure, Results, figures_of
from peers import PEERS, is_here, own
from peers.asking import Target, Tools
from peers.peer import Peer
from peers.questions import KINDS, Questions, known

# One a peer, by its name.
SECTIONS = tuple(f"peer-{kind.name}" for kind in PEERS)


class Size(NamedTuple):
    """How much a profile measures."""

    rounds: int
    entries: int
    callers: tuple[int, ...]
    # Seconds that a round of the slower of hook and peer should take.
    round: float
    # Questions in a round for the API, at least: the others are done with too few of them to time it.
    api: int


SIZES = {
    "smoke": Size(2, 200, (2,), 0.01, 100),
    "quick": Size(3, 2000, (1, 8), 0.02, 1000),
    "full": Size(7, 20_000, (1, 2, 8), 0.15, 5000),
}
# Of questions in a round.
FEWEST, MOST = 8, 20_000
OURS = ("the hook is a process for each question, the API a call in processes that stay, asked more of the same kind; "
        "neither writes for a known sender, and neither flushes for a stranger")
CLIENT = "both are a process for each question; the client decides nothing and needs the daemon"


class Subject(NamedTuple):
    """Somebody who is asked, and what became of it in each round."""

    ask: Callable[[Path], dict[str, float]]
    # Of questions in a round: how many times as many as the others have.
    times: int
    rounds: list[dict[str, float]]

    def seconds(self) -> list[float]:
        """Of each round, for as many questions as the others have."""
        return [one["seconds"] / self.times for one in self.rounds]


def measure(peer: Peer, store: Path, questions: Questions, tools: Tools, size: Size, results: Results) -> None:
    """All kinds of questions, with each number of callers."""
    theirs, ours = Target(peer.way, peer.where), Target("hook", str(HOOK), store)
    client = Target("hook", f"{tools.client} {peer.where}")
    section = f"peer-{peer.name}"
    # Whatever is done at the first question of all belongs to the start.
    for target in (theirs, ours):
        tools.asked(target, 1, questions.files("known", FEWEST, 1)[0])
    for kind in KINDS:
        for callers in size.callers:
            def by(target: Target, callers: int = callers) -> Subject:
                return Subject(lambda file: tools.asked(target, callers, file, peer.wrong_in(file)), 1, [])

            case = f"{kind}, {callers} at once"
            subjects = {peer.name: by(theirs), "hook": by(ours)}
            if peer.way == "policy":
                subjects["client"] = by(client)
            # The better of two: one can be held up by chance.
            pace = max(min(subject.ask(file)["seconds"] / FEWEST for file in questions.files(kind, FEWEST, 2))
                       for subject in subjects.values())
            each = max(FEWEST, 2 * callers, min(MOST, int(size.round / pace)))
            subjects["API"] = Subject(partial(own.asked, store, callers), -(-size.api // each), [])
            for number in range(size.rounds):
                files = {times: questions.files(kind, times * each, 1)[0]
                         for times in {subject.times for subject in subjects.values()}}
                names = list(subjects)
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    subjects[name].rounds.append(subjects[name].ask(files[subjects[name].times]))
                for file in files.values():
                    file.unlink()
            results.add(*found(peer, section, case, subjects, each))


def found(peer: Peer, section: str, case: str, subjects: dict[str, Subject], each: int) -> Iterator[Figure | Count]:
    """Ratios to the peer, and of the hook to the peer's client; then speeds and how long one question may take."""
    seconds = {name: subject.seconds() for name, subject in subjects.items()}
    by_peer, by_client = f"{peer.name}, {case}", f"a client of {peer.name} for each question, {case}"
    hook, api = f"hook, {case}", f"API, {case}"
    note = f"{OURS}. {peer.differs}"
    yield from figures_of({by_peer: seconds[peer.name], hook: seconds["hook"], api: seconds["API"]}, by_peer, section,
                          each, {hook: note, api: note})
    if "client" in seconds:
        hook = f"hook beside a client, {case}"
        yield from figures_of({by_client: seconds["client"], hook: seconds["hook"]}, by_client, section, each,
                              {hook: CLIENT + peer.client_differs})
    numbers: dict[str, int | float] = {}
    for name, subject in subjects.items():
        numbers[f"{name} a second"] = round(each / median(seconds[name]))
        if subject.rounds[0].keys() >= {"p50", "p99"}:
            numbers[f"{name} p50"], numbers[f"{name} p99"] = (median(one[key] for one in subject.rounds)
                                                              for key in ("p50", "p99"))
        numbers["wrong answers"] = numbers.get("wrong answers", 0) + sum(int(one["wrong"]) for one in subject.rounds)
    yield Count(section, case, numbers)


def main() -> None:
    """Measure and print."""
    arguments = figures.parser(__doc__).parse_args()
    results = Results(arguments, SECTIONS)
    size = SIZES[arguments.profile]
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        directory = Path(name)
        store = directory / "store"
        own.fill(store, size.entries, known)
        tools, questions = Tools(directory), Questions(directory, size.entries)
        for kind, section in zip(PEERS, SECTIONS, strict=True):
            if not results.wants(section) or not is_here(kind, section, results):
                continue
            place = directory / kind.name
            place.mkdir()
            peer = kind(place)
            peer.fill(size.entries, 0, known)
            with peer.running():
                measure(peer, store, questions, tools, size, results)
    results.write()


if __name__ == "__main__":
    main()
