"""A day of a big site, with every verdict compared with the model that the tests have.

    bench/day.py [--messages N] [--seed N]

Sections: day (all of it through the API, each attempt at its own time); hour (the busiest hour through execs of the
hook, on a store that has the hours before it behind it).

Which attempts there are follows from traffic.py and the answers of tests/model.py. For the hour all times are divided by
SPEED, those in the settings as well, so that it can be run as fast as the machine can: the hook reads the real clock.
Then the model is asked about the seconds in which the hooks really ran.
"""

import array
import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import fastgrey
import figures
from execs import HOOK
from fastgrey import settings
from fastgrey._core import Store
from figures import Count, Results
from traffic import HOURS, Attempt, Traffic

SECTIONS = ("day", "hour")
HERE = Path(__file__).parent
# The Unix time at which the day begins that goes through the API.
BEGIN = 1_800_000_000
SPEED = 60
DURATIONS = ("delay", "retry_window", "lifetime", "refresh", "pool_window")
CHUNK = 20_000
CALLERS = 2
BUSIEST = HOURS.index(max(HOURS))

WRITE_DAY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import day
day.write_day(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
"""

Verdict = tuple[str, str, int]


class Step(NamedTuple):
    """An attempt, and what the model answers."""

    attempt: Attempt
    verdict: Verdict


def model_of(speed: int) -> Any:
    """The model of the tests with default settings. What it computes from the same text again and again it remembers."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import model

    for name in ("normalise_client", "normalise_sender", "normalise_recipient"):
        function = getattr(model, name)
        if not hasattr(function, "cache_info"):
            setattr(model, name, lru_cache(maxsize=1 << 18)(function))
    return model.Model(**{name: number for name, number in scaled(speed).items()})


def scaled(speed: int) -> dict[str, int]:
    """The settings that are times, divided by speed."""
    return {name: settings.defaults()[name] // speed for name in DURATIONS}


def ask(model: Any, attempt: Attempt, now: int) -> Verdict:
    """What the model answers."""
    verdict: Verdict = model.check(now=now, client=attempt.client, sender=attempt.sender, recipient=attempt.recipient)
    return verdict


def write_day(file: Path, messages: int, seed: int) -> None:
    """Let the model go through the day; its steps, the introductions first, one a line."""
    model, traffic = model_of(1), Traffic(messages, seed)
    with file.open("wb") as out:
        def deferred(attempt: Attempt) -> bool:
            verdict = ask(model, attempt, BEGIN + attempt.when)
            out.write(line_of(attempt, verdict))
            return verdict[0] == "defer"

        for attempt in traffic.introductions():
            deferred(attempt)
        traffic.run(deferred)


def line_of(attempt: Attempt, verdict: Verdict) -> bytes:
    """A line of the file that write_day makes."""
    return b"\t".join([b"%d" % attempt.when, b"%d" % attempt.family, *attempt[2:], verdict[0].encode(),
                       verdict[1].encode(), b"%d" % verdict[2]]) + b"\n"


def steps(file: Path) -> Iterator[Step]:
    """What write_day wrote."""
    with file.open("rb") as lines:
        for line in lines:
            when, family, client, sender, recipient, action, reason, wait = line.rstrip(b"\n").split(b"\t")
            yield Step(Attempt(int(when), int(family), client, sender, recipient),
                       (action.decode(), reason.decode(), int(wait)))


def introduce(store: Path, made: Iterable[Step], begin: int, speed: int = 1) -> None:
    """What is past when it is measured: decided without a flush."""
    with Store(str(store), throw_away=True) as opened:
        for attempt, verdict in made:
            found = opened.check(client=attempt.client, sender=attempt.sender, recipient=attempt.recipient,
                                 now=begin + attempt.when // speed)
            if speed == 1 and found[:3] != verdict:
                raise SystemExit(f"bench: {attempt} was answered {found[:3]}, by the model {verdict}")


def through_api(file: Path, store: Path, messages: int) -> list[Count]:
    """All of the day; every verdict is compared."""
    fastgrey.create(store)
    introduce(store, itertools.takewhile(lambda step: step.attempt.when < 0, steps(file)), BEGIN)
    day = itertools.dropwhile(lambda step: step.attempt.when < 0, steps(file))
    taken, decided = array.array("q"), Counter[str]()
    before = written_by_this()
    with fastgrey.open(store) as opened:
        check, clock = opened.check, time.perf_counter_ns
        while chunk := list(itertools.islice(day, CHUNK)):
            answers = []
            for (when, _, client, sender, recipient), _ in chunk:
                started = clock()
                verdict = check(client=client, sender=sender, recipient=recipient, now=BEGIN + when)
                taken.append(clock() - started)
                answers.append(verdict)
            for step, answer in zip(chunk, answers, strict=True):
                if answer[:3] != step.verdict:
                    raise SystemExit(f"bench: {step.attempt} was answered {answer[:3]}, by the model {step.verdict}")
                decided[f"{answer.action} {answer.reason}"] += 1
        pending = opened.counters()["events"]
    written = written_by_this() - before
    rate = len(taken) / (sum(taken) / 1e9)
    return [
        Count("day", "decided, each as the model decides", dict(sorted(decided.items()))),
        Count("day", "checks through the API, one process", {
            "messages": messages, "checks": len(taken), "checks a message": len(taken) / messages,
            "a second": rate, "messages a day": rate * 86_400 / (len(taken) / messages)},
            "Messages a day: checks a second, times 86,400 seconds, by checks a message"),
        Count("day", "seconds of a check", percentiles([one / 1e9 for one in taken])),
        Count("day", "disk", {
            "bytes written": written, "bytes written a message": written / messages,
            "bytes of known records": size_of(store, "passed.*"), "bytes of strangers": size_of(store, "pending.*"),
            "parts of strangers given up": pending["partitions given up"],
            "strangers not recorded": pending["not recorded"]}),
    ]


def percentiles(seconds: list[float]) -> dict[str, int | float]:
    """Median, 99 and 99.9 of a hundred, and the most."""
    ordered = sorted(seconds)
    return {"median": median(ordered), "99 %": ordered[math.ceil(0.99 * len(ordered)) - 1],
            "99.9 %": ordered[math.ceil(0.999 * len(ordered)) - 1], "most": ordered[-1]}


def written_by_this() -> int:
    """Bytes that this process caused to be written to a disk (proc(5): write_bytes)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def size_of(store: Path, name: str) -> int:
    """Bytes on disk of the tables with that name."""
    return sum(path.stat().st_blocks * 512 for path in store.glob(f"{name}/data.mdb"))


def through_execs(file: Path, store: Path, place: Path, messages: int) -> list[Count]:
    """The busiest hour, by CALLERS at once, each with senders of its own; every verdict is compared afterwards."""
    fastgrey.create(store, scaled(SPEED))
    start = 3600 * BUSIEST
    begin = int(time.time()) - start // SPEED
    introduce(store, (step for step in steps(file) if step.attempt.when < start), begin, SPEED)
    hour = [step.attempt for step in steps(file) if start <= step.attempt.when < start + 3600]
    replay = place / "replay"
    figures.run(["cc", "-O2", HERE / "replay.c", "-o", replay])
    parts = [[attempt for attempt in hour if attempt.family % CALLERS == number] for number in range(CALLERS)]
    started = time.monotonic()
    callers = [caller(replay, store, place / f"caller-{number}", part) for number, part in enumerate(parts)]
    if any(process.wait() != 0 for process in callers):
        raise SystemExit("bench: a caller failed")
    seconds = time.monotonic() - started

    model = model_of(SPEED)
    for step in steps(file):
        if step.attempt.when < start:
            ask(model, step.attempt, begin + step.attempt.when // SPEED)
    taken, decided, doubtful = [], Counter[str](), 0
    # A hook that ran over the end of a second may have seen either, and what it recorded is one second off for whoever
    # goes by it.
    unsure: set[object] = set()
    for number, part in enumerate(parts):
        ran = (place / f"caller-{number}.ran").read_text().splitlines()
        log = (place / f"caller-{number}.log").read_text().splitlines()
        for attempt, times, line in zip(part, ran, log, strict=True):
            begun, ended, _, micros = times.split()
            taken.append(float(micros) / 1e6)
            words = line.split()
            found = (words[1], words[2], int(words[3].removeprefix("wait=")) if words[1] == "defer" else 0)
            wanted = ask(model, attempt, int(begun))
            touched = {attempt.family, attempt.client.rpartition(b".")[0], attempt.sender.rpartition(b"@")[2]} - {b""}
            if begun != ended:
                unsure |= touched
            if found != wanted and unsure & touched:
                doubtful += 1
            elif found != wanted:
                raise SystemExit(f"bench: {attempt} was answered {found}, by the model {wanted}: {line}")
            decided[f"{found[0]} {found[1]}"] += 1
    rate, each = len(hour) / seconds, sum(1 for step in steps(file) if step.attempt.when >= 0) / messages
    return [
        Count("hour", "decided, each as the model decides", dict(sorted(decided.items()))),
        Count("hour", f"execs of the hook, {CALLERS} callers at once", {
            "execs": len(hour), "seconds": seconds, "a second": rate, "messages a day": rate * 86_400 / each,
            "answered otherwise, after one that ran over the end of a second": doubtful},
            "Messages a day: execs a second, times 86,400 seconds, by checks a message of the whole day"),
        Count("hour", "seconds from spawn to exit", percentiles(taken)),
    ]


def caller(replay: Path, store: Path, name: Path, part: list[Attempt]) -> "subprocess.Popen[bytes]":
    """Begin to run the hook for all of these, one after the other."""
    requests = name.with_suffix(".requests")
    requests.write_bytes(b"".join(b"\t".join(attempt[2:]) + b"\n" for attempt in part))
    environment = {"PATH": os.environ["PATH"], "FASTGREY_STORE": str(store)}
    out, log = name.with_suffix(".ran"), name.with_suffix(".log")
    with requests.open("rb") as given, out.open("wb") as ran, log.open("wb") as said:
        return subprocess.Popen([replay, HOOK], stdin=given, stdout=ran, stderr=said, env=environment)


def main() -> None:
    """Measure."""
    parser = figures.parser(__doc__ or "")
    parser.add_argument("--messages", type=int, help="messages of the day (default: by the profile)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    results = Results(arguments, SECTIONS)
    messages = arguments.messages or {"smoke": 200, "quick": 5000, "full": 1_000_000}[arguments.profile]
    with tempfile.TemporaryDirectory(prefix="fastgrey-bench-") as name:
        place, file = Path(name), Path(name) / "day"
        # In a process of its own: what the model remembers would take memory from what is measured.
        figures.run([sys.executable, "-c", WRITE_DAY, HERE, file, messages, arguments.seed])
        if results.wants("day"):
            results.add(*through_api(file, place / "day-store", messages))
        if results.wants("hour"):
            results.add(*through_execs(file, place / "hour-store", place, messages))
    results.write()


if __name__ == "__main__":
    main()
