"""fastgrey compact."""

import json
import time

import click

from fastgrey import compaction
from fastgrey.cli.common import counted, dry_run_option, json_option, print_rows, say, store_option, store_path
from fastgrey.cli.progress import Bars
from fastgrey.compaction import Declined, Summary
from fastgrey.settings import Setting
from fastgrey.sizes import bytes_shown

# Seconds between two records of progress within a step.
PAUSE = 1.0
# Less would take days.
RATE_MIN = 64 << 10


@click.command()
@store_option
@click.option("--if-needed", is_flag=True, help="Only where enough is expired or free, or something is left over.")
@click.option("--share", metavar="PERCENT", type=click.FloatRange(0, 100), default=compaction.SHARE * 100,
              show_default=True, help="With --if-needed: how much is enough, of the known records expired or of the "
              "file's pages free.")
@click.option("--max-rate", metavar="SIZE", help="Bytes of the store to go through in a second at most, such as 20M. "
              "Default: no bound.")
@click.option("--verify", type=click.Choice(compaction.VERIFY), default="full", show_default=True,
              help="How the new generation is verified: full walks all its pages with a reader that shares no code "
              "with LMDB, at the lowest priority; copy only compares each record.")
@click.option("--trust-clock", is_flag=True, help="Also where the clock seems to have leapt ahead and nearly all would "
              "expire: after a time without mail that was longer than lifetime.")
@dry_run_option
@json_option
def compact(store: str | None, if_needed: bool, share: float, max_rate: str | None, verify: str, trust_clock: bool,
            dry_run: bool, as_json: bool) -> None:
    """Drop what expired and pack the rest, while hooks run.

    Writes a new generation, verifies it, puts it in force and keeps the one before. With --json, progress and result
    are JSON objects, one a line.

    Exit status: 0 done, or not needed; 1 could not be done; 2 wrong usage; 3 another one is running; 4 the new
    generation was not what it should be. The store is whole after each of them.

    \b
    Example: fastgrey compact --if-needed --max-rate 20M
    """
    path, rate = store_path(store), _rate(max_rate)
    if dry_run:
        _show_foretold(path, share / 100 if if_needed else None, trust_clock, as_json)
        return
    with Bars(as_json) as bars:
        progress = _Records() if as_json else bars
        if if_needed:
            done = compaction.compact_if_needed(path, share / 100, progress=progress, verify=verify, max_rate=rate,
                                                trust_clock=trust_clock)
        else:
            done = compaction.compact(path, progress=progress, verify=verify, max_rate=rate, trust_clock=trust_clock)
    if as_json:
        event = "declined" if isinstance(done, Declined) else "done"
        say(json.dumps({"event": event} | done.as_dict()))
    elif isinstance(done, Declined):
        say(f"{path}: no compaction is needed: {done.why}")
    else:
        _show(done)


def _rate(text: str | None) -> int | None:
    if text is None:
        return None
    return Setting("--max-rate", "size", "", "", "", RATE_MIN, 1 << 50).parse(text)


def _show(done: Summary) -> None:
    print_rows([
        ("generation", done.generation),
        ("alive", done.alive),
        ("expired", done.expired),
        ("written meanwhile", done.touched),
        ("windows closed", done.windows_closed),
        ("partitions of strangers dropped", done.partitions_dropped),
        ("size", f"{bytes_shown(done.size_before)} -> {bytes_shown(done.size_after)}"),
        ("verified", done.verified),
        ("writers waited at most", f"{done.locked * 1000:.1f} ms"),
        ("seconds", f"{done.seconds:.2f}"),
    ])


def _show_foretold(path: str, share: float | None, trust_clock: bool, as_json: bool) -> None:
    found = compaction.foretell(path, trust_clock=trust_clock)
    against = found.need.reason_against(share) if share is not None else None
    if as_json:
        say(json.dumps(found.as_dict() | ({} if share is None else {"needed": against is None})))
        return
    print_rows([
        ("alive", found.alive),
        ("expired", f"{found.expired} ({found.need.expired:.1%})"),
        ("windows closed", found.windows_closed),
        ("partitions of strangers to drop", f"{found.partitions} ({counted(found.strangers, 'record')})"),
        ("size", f"{bytes_shown(found.size)}, {found.need.free:.1%} of its pages free"),
        *((f"{name} to remove", bytes_shown(size)) for name, size in found.removed.items()),
    ])
    if found.doubt is not None:
        say(f"{path}: a compaction would be refused: {found.doubt}; {compaction.TRUST}")
    elif against is not None:
        say(f"{path}: no compaction is needed: {against}")


class _Records:
    """Progress as JSON objects, one a line: the beginning and the end of each step, and what lies a second apart."""

    def __init__(self) -> None:
        self.step = ""
        self.at = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step == self.step and done < total and now - self.at < PAUSE:
            return
        self.step, self.at = step, now
        say(json.dumps({"event": "progress", "step": step, "done": done, "total": total}))
