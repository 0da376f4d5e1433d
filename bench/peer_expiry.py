"""What getting rid of expired entries costs those who ask meanwhile: fastgrey beside the greylisters used elsewhere.

    bench/peer_expiry.py [--profile quick|full] [--only SECTION] [--peer NAME]

Of so many known triplets half are expired. One question after the other is asked of a known sender while the peer does what
it does about it, and, in turn, the hook is run for the same question while `fastgrey compact` does its work on as many. What
counts is the longest time that a question took. Printed are the ratio of the two, and both beside the longest of a second
without expiry.

The peer's clock is set ahead (peers/clock.c) so that its expiry falls due while it is asked; in the peer nothing is changed.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import figures
from compaction import fill
from execs import HOOK
from figures import Count, Results, figures_of, run
from peers import PEERS, Peer, own, wanted
from peers.asking import Target, Tools
from peers.peer import AHEAD, reached
from peers.questions import Questions, known, line, new

SECTION = "peers, expiry"
FASTGREY = Path(sys.executable).parent / "fastgrey"
# Entries, rounds.
SIZES = {"smoke": ((2000, 1),), "quick": ((100_000, 1),), "full": ((100_000, 3), (1_000_000, 3))}
# Seconds after which an expiry is not waited for any more.
PATIENCE = {"smoke": 60, "quick": 4, "full": 60}
# Seconds of asking before an expiry, for comparison.
REST = {"smoke": 0.2, "quick": 0.5, "full": 2.0}
# Known senders that are asked about.
ASKED = 100
OURS = "the hook is a process for each question, and compact a process beside it"


class Waits(NamedTuple):
    """Seconds of one round, of a question where not said otherwise."""

    longest: float
    at_rest: float
    # Of the whole expiry, from when it was due.
    work: float
    # Questions answered meanwhile.
    answers: int
    # Whether it came to an end; else all times of it are at least what they say.
    done: bool


def waits(target: Target, questions: Path, tools: Tools, rest: float, work: Callable[[], bool]) -> Waits:
    """Ask one question after the other, first without and then with the work going on, which says whether it was done."""
    with tools.probing(target, questions) as before:
        time.sleep(rest)
    started = time.monotonic()
    with tools.probing(target, questions) as during:
        done = work()
        taken = time.monotonic() - started
    return Waits(during["longest"], before["longest"], taken, during["accept"], done)


def theirs(kind: type[Peer], entries: int, directory: Path, tools: Tools, rest: float, patience: float) -> Waits:
    """A peer filled anew, half of it about to expire."""
    half = entries // 2
    questions = Questions(directory, entries)
    peer = kind(directory)
    peer.fill(entries - half, half, known)

    def expire() -> bool:
        peer.set_ahead(AHEAD)
        return reached(peer.expired, patience)

    with peer.running(tools.clock):
        target = Target(peer.way, peer.where)
        # A stranger is among what it has to look after, and whatever comes with the first question is over.
        tools.asked(target, 1, questions.file([line(new(1), "defer")]))
        found = waits(target, questions.file(line(known(entries - 1 - number), "accept") for number in range(ASKED)), tools,
                      rest, expire)
        left = peer.remaining()
    if found.done and left is not None and not entries - half <= left <= entries - half + 1:
        raise SystemExit(f"bench: {peer.name} kept {left} of {entries} entries, half of which had expired")
    return found


def ours(master: Path, entries: int, directory: Path, tools: Tools, rest: float) -> Waits:
    """A copy of that store, half of it expired."""
    store = directory / "store"
    shutil.copytree(master, store, symlinks=True)
    questions = Questions(directory, ASKED).file(line(known(number), "accept") for number in range(ASKED))

    def expire() -> bool:
        done = json.loads(run([FASTGREY, "compact", "--json", "--store", store]).stdout.splitlines()[-1])
        if done["expired"] != entries - entries // 2:
            raise SystemExit(f"bench: compact: {done}")
        return True

    return waits(Target("hook", str(HOOK), store), questions, tools, rest, expire)


def measure(kind: type[Peer], entries: int, rounds: int, patience: float, place: Path, tools: Tools,
            results: Results) -> None:
    """Rounds of both, each with new entries."""
    master = place / "master"
    fill(master, entries)
    own.introduce(master, ASKED, known)
    rest = REST[results.profile]
    held = min(entries, kind.most)
    subjects: dict[str, Callable[[Path], Waits]] = {
        kind.name: lambda directory: theirs(kind, held, directory, tools, rest, patience),
        "hook": lambda directory: ours(master, entries, directory, tools, rest),
    }
    found: dict[str, list[Waits]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name in list(subjects)[::1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory(dir=place) as directory:
                found[name].append(subjects[name](Path(directory)))
        # What was not over will not be so next time.
        if not found[kind.name][-1].done:
            break
    shutil.rmtree(master)
    case = f"longest wait during the expiry, {entries} entries"
    by_peer = f"{kind.name}, {case}"
    seconds = {by_peer: [one.longest for one in found[kind.name]], f"hook, {case}": [one.longest for one in found["hook"]]}
    note = f"{OURS}. {kind.name}: {kind.expires}"
    if held < entries:
        note += f". Measured with {held} entries in it"
    if not found[kind.name][-1].done:
        note += f". Not waited for longer than {patience:g} seconds: it took at least so long, and the ratio is at most this"
    results.add(*figures_of(seconds, by_peer, SECTION, notes={f"hook, {case}": note}))
    for name, rows in found.items():
        results.add(Count(SECTION, f"{name}, {entries} entries" if name != "hook" else f"hook beside {by_peer}", {
            "longest": max(one.longest for one in rows), "longest, median": median(one.longest for one in rows),
            "at rest": median(one.at_rest for one in rows), "all of it": median(one.work for one in rows),
            "answers meanwhile": median(one.answers for one in rows), "came to its end": int(rows[-1].done)}, "seconds of one question; of the whole expiry"))


def main() -> None:
    """Measure and print."""
    parser = figures.parser(__doc__)
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="this one alone")
    parser.add_argument("--patience", type=float, metavar="SECONDS", help="how long to wait for an expiry at most")
    arguments = parser.parse_args()
    results = Results(arguments, [SECTION])
    if not results.wants(SECTION):
        return
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        place = Path(name)
        # Where a peer becomes a user of its own, that one must get to its directory.
        place.chmod(0o711)
        tools = Tools(place)
        for kind in wanted(arguments.peer, SECTION, results):
            for entries, rounds in SIZES[arguments.profile]:
                measure(kind, entries, rounds, arguments.patience or PATIENCE[arguments.profile], place, tools, results)
    results.write()


if __name__ == "__main__":
    main()
