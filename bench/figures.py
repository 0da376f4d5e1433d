"""Figures, how they come about, and the file that they are kept in.

A figure is a ratio: in a round a subject and the baseline that it names do the same number of operations, one after
the other, and the seconds of the one are divided by those of the other. What does not shake (system calls, bytes) is a
count.

The file (JSON) holds sections. Each has its own date, commit, machine and command, and a module that is run again
replaces its own sections only.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import surroundings

T = TypeVar("T")

# smoke: does it run at all, figures without worth; quick: all modules together in two minutes; full: for the record.
PROFILES = ("smoke", "quick", "full")


class Figure(NamedTuple):
    """A ratio to a baseline that was measured in turn with it."""

    section: str
    # What was measured and under which circumstances: "known sender, 10^6 known triplets, 2 callers".
    name: str
    baseline: str
    # Seconds of the subject by those of the baseline, one a round: above 1 the subject takes longer.
    ratios: list[float]
    # Medians over the rounds, for `each` operations; they are for orientation only.
    seconds: float
    baseline_seconds: float
    # Operations a round.
    each: int = 1
    # What does not show in the numbers: what is not comparable, what was left out.
    note: str = ""

    @property
    def median(self) -> float:
        """The median ratio."""
        return median(self.ratios)

    @property
    def lowest(self) -> float:
        """The lowest ratio of a round."""
        return min(self.ratios)

    @property
    def highest(self) -> float:
        """The highest ratio of a round."""
        return max(self.ratios)


class Count(NamedTuple):
    """What is counted or summed up, not set against anything: system calls, bytes, percentiles in seconds."""

    section: str
    name: str
    numbers: dict[str, int | float]
    note: str = ""


def figures_of(seconds: Mapping[str, list[float]], baseline: str, section: str, each: int = 1,
               notes: Mapping[str, str] | None = None) -> list[Figure]:
    """Figures of what was timed already: for each subject and for the baseline seconds a round, in the same order."""
    base = seconds[baseline]
    if any(len(taken) != len(base) for taken in seconds.values()) or not base:
        raise ValueError("bench: not as many rounds of each subject")
    return [Figure(section, name, baseline, [one / other for one, other in zip(taken, base, strict=True)],
                   median(taken), median(base), each, (notes or {}).get(name, ""))
            for name, taken in seconds.items() if name != baseline]


def joined(parts: list[Figure]) -> Figure:
    """One figure of rounds that were measured apart: all of the same subject and baseline."""
    return parts[0]._replace(ratios=[ratio for part in parts for ratio in part.ratios],
                             seconds=median(part.seconds for part in parts),
                             baseline_seconds=median(part.baseline_seconds for part in parts))


def in_turn(subjects: Mapping[str, Callable[[], float]], baseline: str, rounds: int, section: str, each: int = 1,
            notes: Mapping[str, str] | None = None) -> list[Figure]:
    """Run every subject once a round, each time another one first; it returns the seconds of its `each` operations."""
    return figures_of(turns(subjects, rounds), baseline, section, each, notes)


def turns(subjects: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What every subject returned in each round, each time another one first."""
    names = list(subjects)
    found: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(subjects[name]())
    return found


def timed(work: Callable[[], object], each: int) -> Callable[[], float]:
    """A subject for in_turn: calls work so many times."""
    def subject() -> float:
        started = time.perf_counter()
        for _ in range(each):
            work()
        return time.perf_counter() - started
    return subject


def beside(benchmark: Any, subject: Callable[[], object], base: Callable[[], object], *, section: str, name: str,
           baseline: str, rounds: int, each: int, note: str = "") -> Figure:
    """A figure by pytest-benchmark, of work in one process: before each of its rounds the baseline has its own.

    subject and base do `each` operations a call. benchmark is the fixture of that name.
    """
    bases: list[float] = []

    def setup() -> None:
        started = time.perf_counter()
        base()
        bases.append(time.perf_counter() - started)

    benchmark.pedantic(subject, setup=setup, rounds=rounds, iterations=1, warmup_rounds=1)
    # The first belongs to the round for warming up.
    seconds = {name: list(benchmark.stats.stats.data), baseline: bases[-rounds:]}
    return figures_of(seconds, baseline, section, each, {name: note})[0]


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every module takes."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--profile", choices=PROFILES, default="quick")
    made.add_argument("--only", action="append", metavar="SECTION", help="this section alone; may be repeated")
    made.add_argument("--json", type=Path, metavar="FILE", help="put the sections measured into FILE, leave its others")
    return made


class Results:
    """What one module measured; printed at once, written at the end."""

    def __init__(self, arguments: argparse.Namespace, sections: Iterable[str]) -> None:
        """arguments: those of parser(); sections: all that the module has."""
        self.sections = tuple(sections)
        self.profile: str = arguments.profile
        # Where the file and the checkout are is of no interest to anybody else.
        self._command = shlex.join([f"bench/{Path(sys.argv[0]).name}", "--profile", self.profile])
        self._file: Path | None = arguments.json
        self._only: list[str] = arguments.only or list(self.sections)
        self._found: dict[str, list[Figure | Count]] = {}
        self._started: dict[str, float] = {}
        if self._file is not None:
            # Before anything is measured: a file that cannot be added to is found out now.
            _kept(self._file)
        unknown = set(self._only) - set(self.sections)
        if unknown:
            raise SystemExit(f"bench: no section {', '.join(unknown)}; there are {', '.join(self.sections)}")

    def wants(self, section: str) -> bool:
        """Whether to measure that section; says on the terminal that it begins."""
        if section not in self.sections:
            raise ValueError(f"bench: section {section!r} is not declared")
        if section not in self._only:
            return False
        self._started.setdefault(section, time.monotonic())
        print(f"\n{section} ({self.profile})", flush=True)
        return True

    def add(self, *found: Figure | Count) -> None:
        """Keep figures and counts, and print them."""
        for one in found:
            if one.section not in self._started:
                raise ValueError(f"bench: section {one.section!r} was not begun")
            self._found.setdefault(one.section, []).append(one)
            print(line_of(one), flush=True)

    def write(self) -> None:
        """Put the sections into the file, each with where it comes from; those of others stay as they are."""
        if self._file is None:
            return
        content = {"sections": _kept(self._file)}
        now = time.monotonic()
        for section, found in self._found.items():
            content["sections"][section] = {
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
                **surroundings.commit(),
                "command": self._command,
                "profile": self.profile,
                "took": round(now - self._started[section], 1),
                "machine": surroundings.machine(),
                "versions": surroundings.versions(),
                "figures": [one._asdict() for one in found if isinstance(one, Figure)],
                "counts": [one._asdict() for one in found if isinstance(one, Count)],
            }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_name(self._file.name + ".new")
        content["sections"] = dict(sorted(content["sections"].items()))
        new.write_text(json.dumps(content, indent=1) + "\n")
        new.replace(self._file)


def _kept(file: Path) -> dict[str, Any]:
    """The sections that a file has so far; none where there is no file."""
    try:
        content = json.loads(file.read_text())
        return dict(content["sections"])
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError):
        raise SystemExit(f"bench: {file} holds no results of benchmarks; remove it, or name another one") from None


def load(file: Path) -> dict[str, dict[str, Any]]:
    """The sections of a file, with Figure and Count objects in `figures` and `counts`."""
    sections: dict[str, dict[str, Any]] = json.loads(file.read_text())["sections"]
    for content in sections.values():
        content["figures"] = [Figure(**one) for one in content["figures"]]
        content["counts"] = [Count(**one) for one in content["counts"]]
    return sections


def line_of(one: Figure | Count) -> str:
    """A line for the terminal."""
    if isinstance(one, Count):
        return f"  {one.name}: " + ", ".join(f"{key} {shown(value)}" for key, value in one.numbers.items())
    return (f"  {one.name:58} {one.median:7.3f} {one.lowest:7.3f}-{one.highest:.3f}   of {one.baseline}; "
            f"{time_shown(one.seconds / one.each)} each")


def shown(number: int | float) -> str:
    """A number of a count: whole as it is, else three digits that count."""
    return str(number) if isinstance(number, int) else f"{number:.3g}"


def time_shown(seconds: float) -> str:
    """Seconds with the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def run(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed; what it said is in the message where it does not."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        said = (done.stderr or done.stdout)[-500:]
        raise SystemExit(f"bench: {shlex.join(map(str, command))}: exit {done.returncode}: {said}")
    return done
