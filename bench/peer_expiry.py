"""What getting rid of expired entries costs those who ask meanwhile: fastgrey beside the greylisters used elsewhere.

    bench/peer_expiry.py [--profile quick|full] [--peer NAME] [--patience SECONDS]

Of so many known triplets half are expired. One question after the other is asked of known senders while the peer does
what it does about it; and, in turn, the hook is run for such questions while `fastgrey compact` does its work on as
many. What counts is the longest time that a question took. The ratio of the two is printed, and how long each took at
rest.

The peer's clock is set ahead (peers/clock.c), so that its expiry falls due while it is asked; nothing is changed in it.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import figures
from compaction import fill
from daemons import reached
from execs import HOOK
from figures import Count, Results, figures_of, run
from peers import PEERS, is_here, own
from peers.asking import Target, Tools
from peers.peer import AHEAD, Peer
from peers.questions import Questions, known, line, new

SECTION = "peer-expiry"
SECTIONS = (SECTION,)
FASTGREY = Path(sys.executable).parent / "fastgrey"
# Entries, rounds.
SIZES = {"smoke": ((400, 1),), "quick": ((100_000, 1),), "full": ((100_000, 3), (1_000_000, 2))}
# Seconds after which an expiry is not waited for any more.
PATIENCE = {"smoke": 200, "quick": 2, "full": 40}
# Seconds of asking before an expiry, for comparison.
REST = {"smoke": 0.2, "quick": 0.3, "full": 2.0}
# Known senders that are asked about.
ASKED = 100
HOOKS = "hooks while fastgrey compacts"
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
    """Ask one question after the other, first without the work and then with it, which says whether it was done."""
    with tools.probing(target, questions) as before:
        time.sleep(rest)
    started = time.monotonic()
    with tools.probing(target, questions) as during:
        done = work()
        taken = time.monotonic() - started
    return Waits(during["longest"], before["longest"], taken, during["accept"], done)


def theirs(kind: type[Peer], entries: int, tools: Tools, rest: float, patience: float, directory: Path) -> Waits:
    """A peer filled anew, half of it about to expire."""
    half = entries // 2
    questions = Questions(directory, entries)
    peer = kind(directory)
    peer.fill(entries - half, half, known)

    def expire() -> bool:
        peer.set_ahead(AHEAD)
        return reached(peer.expired, patience)

    with peer.clocked(tools.clock):
        target = Target(peer.way, peer.where)
        # A stranger is among what it has to look after, and whatever comes with the first question is over.
        tools.asked(target, 1, questions.file([line(new(1), "defer")]))
        alive = questions.file(line(known(entries - 1 - number), "accept") for number in range(ASKED))
        found = waits(target, alive, tools, rest, expire)
        left = peer.remaining() if found.done else None
        if not found.done:
            peer.kill()
    if left is not None and not entries - half <= left <= entries - half + 1:
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


def measure(kinds: list[type[Peer]], entries: int, rounds: int, patience: float, place: Path, tools: Tools,
            results: Results) -> None:
    """Rounds in which each of the peers and the hook has its turn, each time with new entries."""
    master = place / "master"
    fill(master, entries)
    own.introduce(master, ASKED, known)
    rest = REST[results.profile]
    found: dict[str, list[Waits]] = {HOOKS: [], **{kind.name: [] for kind in kinds}}
    subjects: dict[str, Callable[[Path], Waits]] = {
        HOOKS: lambda directory: ours(master, entries, directory, tools, rest),
        **{kind.name: partial(theirs, kind, min(entries, kind.most), tools, rest, patience) for kind in kinds},
    }
    for number in range(rounds):
        names = list(subjects)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            with tempfile.TemporaryDirectory(dir=place) as directory:
                found[name].append(subjects[name](Path(directory)))
            # What was not over will not be so next time.
            if not found[name][-1].done:
                del subjects[name]
    shutil.rmtree(master)
    for kind in kinds:
        theirs_found = found[kind.name]
        baseline, subject = f"{kind.name}, {entries} entries", f"beside {kind.name}, {entries} entries"
        seconds = {baseline: [one.longest for one in theirs_found],
                   subject: [one.longest for one in found[HOOKS][:len(theirs_found)]]}
        note = f"{OURS}. {kind.name}: {kind.expires}"
        if entries > kind.most:
            note += f". Measured with {kind.most} entries in it"
        if not theirs_found[-1].done:
            note += f". Not waited for longer than {patience:g} seconds: the ratio is at most this"
        results.add(*figures_of(seconds, baseline, SECTION, notes={subject: note}))
    for name, rows in found.items():
        results.add(Count(SECTION, f"{name}, {entries} entries", {
            "longest wait": max(one.longest for one in rows),
            "median of the longest": median(one.longest for one in rows),
            "longest at rest": median(one.at_rest for one in rows),
            "whole expiry": median(one.work for one in rows),
            "answers meanwhile": median(one.answers for one in rows),
            "came to its end": int(rows[-1].done)}, "in seconds"))


def main() -> None:
    """Measure and print."""
    parser = figures.parser(__doc__)
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="this one alone")
    parser.add_argument("--patience", type=float, metavar="SECONDS", help="how long to wait for an expiry at most")
    arguments = parser.parse_args()
    results = Results(arguments, SECTIONS)
    if not results.wants(SECTION):
        return
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        place = Path(name)
        # Where a peer becomes a user of its own, that one must get to its directory.
        place.chmod(0o711)
        tools = Tools(place)
        names = arguments.peer or [peer.name for peer in PEERS]
        kinds = [kind for kind in PEERS if kind.name in names and is_here(kind, SECTION, results)]
        for entries, rounds in SIZES[arguments.profile] if kinds else ():
            measure(kinds, entries, rounds, arguments.patience or PATIENCE[arguments.profile], place, tools, results)
    results.write()


if __name__ == "__main__":
    main()
