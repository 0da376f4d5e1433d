"""docs/benchmarks.md and its plots, of docs/benchmarks.json and of nothing else.

    bench/report.py [--json FILE] [--page FILE]

The page is never written by hand: what it says is here, and what it shows is in the results.
"""

import argparse
from pathlib import Path
from typing import Any

import figures
from drawing import svg
from figures import Count, Figure
from goals import GOALS, Goal

DOCS = Path(__file__).resolve().parents[1] / "docs"

INTRODUCTION = """\
# Benchmarks

Made by `make bench-report` from [benchmarks.json](benchmarks.json); `make bench` measures the same on your machine,
`make bench PROFILE=full` with as many rounds as here.

## What these figures cannot say

- They are of one machine, named at the end, and most of what an exec costs is its kernel's and its processor's
  doing. In a virtual machine, starting an empty process is dearer than on bare metal, so that a ratio to it is smaller
  than there.
- Everything is in memory: the executables, the tables, the page of counters. A check that has to read from a disk waits
  for the disk; of that nothing is said here.
- A ratio says how two things compare that took turns in one run. Times are for orientation: those of two sections were
  not measured at the same time and must not be set against one another.
- The range is that of the rounds, not an interval of confidence. Where an executable set against its own copy has a
  range of 0.05 around 1, a difference of 0.05 is none.
- The clients are made up, and so are the addresses. How many mails wait, and how long, is a matter of the senders and
  not of speed.
- What one would use instead was set up by people who know it less well than this project. A daemon that is asked over
  a socket keeps its tables open, an exec opens them each time; the two are not the same service, and the tables say
  where it matters.
"""

# Of every peer.
ASKED = ("The same questions of known senders, of strangers, and of half of each, by one caller or several at "
         "once, each with one question at a time; every answer is checked. p50 and p99 are percentiles of the seconds "
         "that one question takes, medians over the rounds. The hook is not faster than whoever is asked over a "
         "connection that stays: a ratio above 1 says by how much, and `fastgrey serve` is what to set beside it. ")

# Heading and what is measured, by section, in the order of the page; a section without a word here comes last.
CHAPTERS: dict[str, tuple[str, str]] = {
    "hook": ("The hook", "The whole life of a process, from spawn to exit, by the same of an empty static executable "
             "that takes turns with it. Every known sender asked for is another one of 200. With several callers at "
             "once each runs one process after the other; the figure is then the time of all by their number."),
    "floor": ("The floor of a stranger", "A C program that makes the LMDB calls of a stranger's check and nothing else "
              "(`bench/floor.c`), against the same empty executable."),
    "others": ("What one would use instead", "Each against the hook with the same question: how many times as long it "
               "takes."),
    "shared": ("Where records are shared", "The hook asks `fastgrey serve` on the same machine, one question and one "
               "answer over a socket of its own. The client of postgrey does the same (`bench/baselines/ask_postgrey.c`), "
               "and is set against it."),
    "executable": ("What a check asks of the kernel", "Counted, not timed; `tests/native/test_counts.py` keeps it so."),
    "rules": ("Rules", "The hook on a store with rules by the hook on one without."),
    "flood": ("A flood of strangers", "A known sender's check while a process floods its store, by that on a store "
              "like it at rest; and the same while that process floods another one, which shows what is the load of "
              "the machine."),
    "expiry": ("Strangers expire", "A partition of strangers is dropped whole, in one transaction."),
    "compaction": ("Compaction", "By `cat`, which reads the same file and writes as much as the result, flushed."),
    "blocked": ("Writers during a compaction", "Promotions, each with its two flushes, alone and while compactions "
                "follow one another."),
    "steps": (
        "A decision in a process",
        "Each step alone and all together, in loops of C around the core, by an mdb_get of a ready key in the "
        "same table in one transaction. A known triplet is one where triplets are all that is looked up "
        "(allow_client_after and allow_domain_after are 0); by default settings a client and a domain are "
        "looked up first, each in a table of its own. "
        "A look-up is dearer than an mdb_get by the beginning and the end of a transaction, and because LMDB "
        "looks for a table by its name once in each; that, the hash and the normal form are the floor."),
    "python": (
        "Through the API",
        "`Store.check`, against the same decisions in a loop of C."),
    "readers": (
        "Readers at once",
        "What one process takes for a decision, by what several take together: how far the throughput follows "
        "the cores. The system calls were counted by strace while they decided."),
    "writer": (
        "Readers beside a writer",
        "While a process promotes without pause; the baseline is the same with a writer of another store."),
    "writes": (
        "Writing",
        "By LMDB transactions of as many records with nothing around them, flushed or not as said."),
    "growth": (
        "As the table grows: looking up",
        "Known triplets at random, so many that they have left the caches when they come again, by the same "
        "in the smallest table."),
    "sizes": (
        "As the table grows: bytes and time",
        "A slope is that of the straight line through the points where both axes are logarithmic: 0 does not "
        "grow, 1 grows as the table does. Half of what is compacted has expired."),
    "day": (
        "A day of a big site",
        "Modelled in `bench/traffic.py`, from a seed. Every verdict was compared with that of the model that "
        "the tests have; one that differs ends the run."),
    "hour": (
        "The busiest hour of that day, as execs",
        "As fast as the hooks end, all times divided by 60, those in the settings too, because a hook reads "
        "the real clock. Every verdict was compared with the model's for the second in which the hook ran."),
    "peer-postgrey": ("Beside postgrey", ASKED + "postgrey is Perl with Berkeley DB, asked over its socket in "
                      "Postfix's protocol. With it is a C client that is run for each question and asks it "
                      "(`bench/baselines/ask_postgrey.c`), as a qmail has it that leaves its decisions to a daemon."),
    "peer-sqlgrey": ("Beside SQLgrey", ASKED + "SQLgrey is Perl, here with SQLite, asked over its socket in Postfix's "
                     "protocol, and with the same client."),
    "peer-gross": ("Beside gross", ASKED + "gross is C, here without its DNS checks, asked over a port of loopback in "
                   "Postfix's protocol, and with the same client."),
    "peer-greylistd": ("Beside greylistd", ASKED + "greylistd is Python, asked over its socket in its own protocol."),
    "peer-expiry": ("While peers expire", "Of so many entries half are expired. One question after the other is asked "
                    "about known senders: the longest that the hook took while `fastgrey compact` ran, by the longest "
                    "that the peer took while it did what it does about them."),
    "serve": ("A policy server: decisions a second", "`fastgrey serve`, asked over eight connections by one process "
              "that puts the next question on each as soon as it has the answer to the one before; every answer is "
              "checked. First by a server in C that reads a question to its end and writes the same answer to all "
              "(`bench/baselines/empty_server.c`), which is the limit of whatever is asked this way; then each "
              "greylister that is used elsewhere by `fastgrey serve`, on the same questions."),
    "serve-latency": ("A policy server: how long a question takes", "Percentiles of the time from a question to its "
                      "answer, medians over the rounds, while so many connections are kept busy in the same way: with "
                      "256 of them that is mostly the waiting for one's turn. A percentile that too few questions were "
                      "put for is left out."),
    "serve-engines": ("Decisions on shared records", "By the least that the same server can be asked through the same "
                      "client in one process: to read one record, and for a stranger, who is written down, to write "
                      "one after it. A decision is one in that process as well; `fastgrey serve` is asked over its "
                      "socket, with as many questions at once."),
}
# Sections whose counts are percentiles.
PERCENTILES = {"p50": "median", "p99": "99th", "p999": "99.9th"}
LATENCIES = ("serve-latency",)


def page(sections: dict[str, dict[str, Any]]) -> str:
    """The text of the page."""
    parts = [INTRODUCTION, _goals(sections)]
    machines: list[str] = []
    for name in ordered(sections):
        content = sections[name]
        heading, words = CHAPTERS.get(name, (name.capitalize(), ""))
        parts.append(f"## {heading}\n")
        if words:
            parts.append(_filled(words))
        if content["figures"]:
            parts.append(f"![{heading}: ratios to the baseline, median and range](benchmarks/{name}.svg)\n")
            parts.append(_figures(content["figures"]))
        if name == "sizes":
            parts.append("![How it grows with the number of known triplets](benchmarks/sizes.svg)\n")
        if name in LATENCIES:
            parts.append(f"![{heading}: median, 99th and 99.9th percentile](benchmarks/{name}.svg)\n")
            parts.append(_latencies(content["counts"]))
        elif content["counts"]:
            parts.append(_counts(content["counts"]))
        parts.append(_source(content, machines))
    parts.append("## Machines and versions\n")
    parts += [_filled(f"{number}. {machine}").replace("\n", "\n   ").rstrip(" ")
              for number, machine in enumerate(machines, 1)]
    return "\n".join(parts)


def ordered(sections: dict[str, Any]) -> list[str]:
    """Names of sections in the order of the page."""
    known = [name for name in CHAPTERS if name in sections]
    return known + sorted(set(sections) - set(known))


def plots(sections: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    """An SVG by its name for each section with figures, sizes and latencies; the same bytes for the same results."""
    drawn = {f"{name}.svg": _plot(name, content["figures"]) for name, content in sections.items() if content["figures"]}
    drawn |= {f"{name}.svg": _spans(name, sections[name]["counts"]) for name in LATENCIES if name in sections}
    if "sizes" in sections:
        drawn["sizes.svg"] = _growth("sizes", sections["sizes"]["counts"])
    return drawn


def _goals(sections: dict[str, dict[str, Any]]) -> str:
    rows = ["## Goals\n", "| goal | measured | |", "| --- | --- | --- |"]
    for goal in GOALS:
        if (value := goal.value(sections)) is not None:
            rows.append(f"| {goal.text} | {_value(goal, value)} | {'met' if goal.met(value) else 'missed'} |")
    return "\n".join(rows) + "\n"


def _value(goal: Goal, value: float) -> str:
    return figures.time_shown(value) if goal.seconds else f"{value:.3g}"


def _figures(found: list[Figure]) -> str:
    rows = ["| what | ratio | range | baseline | time of one |", "| --- | --- | --- | --- | --- |"]
    notes: list[str] = []
    for one in found:
        mark = ""
        if one.note:
            if one.note not in notes:
                notes.append(one.note)
            mark = f" ({notes.index(one.note) + 1})"
        rows.append(f"| {one.name}{mark} | {_digits(one.median)} | {_digits(one.lowest)} to {_digits(one.highest)} "
                    f"| {one.baseline} | {figures.time_shown(one.seconds / one.each)} |")
    rounds = sorted({len(one.ratios) for one in found})
    rows.append("")
    rows += [_filled(f"({number}) {note}.").rstrip("\n") + "\n" for number, note in enumerate(notes, 1)]
    rows.append(f"Rounds: {' or '.join(map(str, rounds))}.\n")
    return "\n".join(rows)


def _counts(found: list[Count]) -> str:
    lines = []
    for one in found:
        numbers = ", ".join(f"{key} {figures.shown(value)}" for key, value in one.numbers.items())
        lines.append(f"- {one.name}: {numbers}" + (f" ({one.note})" if one.note else ""))
    return "\n".join(lines) + "\n"


def _latencies(found: list[Count]) -> str:
    """A row a count that has percentiles; others below."""
    rows = [f"| what | a second | {' | '.join(PERCENTILES.values())} |", f"| --- {'| --- ' * (1 + len(PERCENTILES))}|"]
    timed = [one for one in found if "p50" in one.numbers]
    for one in timed:
        times = [figures.time_shown(one.numbers[key]) if key in one.numbers else "" for key in PERCENTILES]
        rows.append(f"| {one.name} | {one.numbers['a second']} | {' | '.join(times)} |")
    others = [one for one in found if one not in timed]
    return "\n".join([*rows, "", _counts(others)] if others else [*rows, ""])


def _source(content: dict[str, Any], machines: list[str]) -> str:
    commit = content["commit"][:12] or "no commit"
    if content["dirty"]:
        commit += " with changes"
    machine = _machine(content)
    if machine not in machines:
        machines.append(machine)
    return _filled(f"{content['date']}, {commit}, profile {content['profile']}, {content['took']:.0f} seconds, machine "
                   f"{machines.index(machine) + 1}: `{content['command']}`")


def _machine(content: dict[str, Any]) -> str:
    machine = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(content["versions"].items()))
    return (f"{machine['processor']}, {machine['cores']} cores"
            f"{', in a virtual machine' if machine['hypervisor'] == 'yes' else ''}, "
            f"{machine['memory'] / 2**30:.0f} GiB, {machine['kernel']}, {machine['file system']}. {versions}.")


def _digits(number: float) -> str:
    """Three digits that count, but a ratio near 1 to the hundredth."""
    return f"{number:.2f}" if number >= 0.1 and number < 100 else f"{number:.3g}"


def _filled(words: str) -> str:
    """A paragraph in lines of at most 120 columns."""
    lines, line = [], ""
    for word in words.split():
        if line and len(line) + 1 + len(word) > 120:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line]) + "\n"


def _plot(name: str, found: list[Figure]) -> bytes:
    """Median and range of every figure, on a logarithmic axis where they lie far apart."""
    baselines = list(dict.fromkeys(one.baseline for one in found))
    return _bars(name, [(one.name, one.lowest, one.median, one.highest) for one in found],
                 "times as long as " + (baselines[0] if len(baselines) == 1 else "the baseline in the table"), [1])


def _spans(name: str, found: list[Count]) -> bytes:
    """From the median to the highest percentile that a count has, the 99th marked."""
    rows = []
    for one in found:
        times = [one.numbers[key] for key in PERCENTILES if key in one.numbers]
        if times:
            rows.append((one.name, times[0], times[min(1, len(times) - 1)], times[-1]))
    return _bars(name, rows, "seconds: from the median to the 99.9th percentile, the 99th marked", [])


def _bars(name: str, rows: list[tuple[str, float, float, float]], axis: str, line: list[float]) -> bytes:
    """A bar a row from its lowest to its highest, a mark between them; a line across all where one is given."""
    def draw(drawing: Any, axes: Any) -> None:
        for place, (_, lowest, mark, highest) in enumerate(rows):
            axes.plot([lowest, highest], [place, place], color="#7a9cc6", linewidth=3, solid_capstyle="butt")
            axes.plot([mark], [place], marker="|", markersize=8, markeredgewidth=2, color="#1f3a5f")
        for where in line:
            axes.axvline(where, color="#999999", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        if max(row[3] for row in rows) > 10 * min(line + [row[1] for row in rows]):
            axes.set_xscale("log")
        axes.set_xlabel(axis)
        axes.grid(axis="x", linewidth=0.3)
        # Set by hand: what fits depends on the fonts of the machine.
        drawing.subplots_adjust(left=0.42, right=0.98, top=1 - 0.1 / drawing.get_figheight(),
                                bottom=0.45 / drawing.get_figheight())

    return svg(name, (8, 0.8 + 0.2 * len(rows)), draw)


def _growth(name: str, counts: list[Count]) -> bytes:
    """How numbers grow with the table, both axes logarithmic, by the number of known triplets that a count has."""
    sizes = [count.numbers for count in counts if "known" in count.numbers]
    slopes = next(count.numbers for count in counts if count.name == "slopes")

    def draw(drawing: Any, axes: Any) -> None:
        for quantity, slope in slopes.items():
            # Each by what it is in the smallest table, so that what grows alike runs alike.
            times = [one[quantity] / sizes[0][quantity] for one in sizes]
            axes.plot([one["known"] for one in sizes], times, marker="o", markersize=3,
                      label=f"{quantity}: slope {slope:.2f}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("known triplets")
        axes.set_ylabel("times as much as in the smallest table")
        axes.grid(linewidth=0.3)
        axes.legend(frameon=False)
        drawing.subplots_adjust(left=0.1, right=0.98, top=0.97, bottom=0.12)

    return svg(name, (8, 4), draw)


def write(results: Path, target: Path) -> list[Path]:
    """Make the page and the plots beside it; what was written. Plots of sections that are gone go."""
    sections = figures.load(results)
    folder = target.with_suffix("")
    folder.mkdir(exist_ok=True)
    drawn = plots(sections)
    for old in folder.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    target.write_text(page(sections))
    for name, content in drawn.items():
        (folder / name).write_bytes(content)
    return [target, *(folder / name for name in drawn)]


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=DOCS / "benchmarks.json", metavar="FILE", help="the results")
    parser.add_argument("--page", type=Path, default=DOCS / "benchmarks.md", metavar="FILE",
                        help="the page; its plots go into a folder of that name without .md")
    arguments = parser.parse_args()
    try:
        written = write(arguments.json, arguments.page)
    except FileNotFoundError as error:
        raise SystemExit(f"bench: no {error.filename}; make it with: make bench PROFILE=full RESULTS={arguments.json}")
    for file in written:
        print(file)


if __name__ == "__main__":
    main()
