"""fastgrey compact."""

import json
import sys
from contextlib import ExitStack

import click

from fastgrey import compaction
from fastgrey.cli.common import dry_run_option, json_option, print_rows, store_option, store_path
from fastgrey.sizes import bytes_shown


@click.command()
@store_option
@dry_run_option
@json_option
def compact(store: str | None, dry_run: bool, as_json: bool) -> None:
    """Drop what expired and pack the rest, while hooks run.

    Writes a new generation, verifies it, puts it in force and keeps the one before. With --json, progress and result
    are JSON objects, one a line.

    \b
    Example: fastgrey compact --dry-run
    """
    path = store_path(store)
    if dry_run:
        facts = compaction.foretell(path)
        click.echo(json.dumps(facts)) if as_json else print_rows(facts.items())
        return
    bar = _Bar() if sys.stderr.isatty() and not as_json else None
    summary = compaction.compact(path, progress=_records if as_json else bar)
    if bar:
        bar.end()
    if as_json:
        click.echo(json.dumps({"event": "done"} | summary.as_dict()))
        return
    print_rows([
        ("generation", summary.generation),
        ("alive", summary.alive),
        ("expired", summary.expired),
        ("written meanwhile", summary.touched),
        ("partitions of strangers dropped", summary.partitions_dropped),
        ("size", f"{bytes_shown(summary.size_before)} -> {bytes_shown(summary.size_after)}"),
        ("seconds", f"{summary.seconds:.2f}"),
    ])


def _records(step: str, done: int, total: int) -> None:
    click.echo(json.dumps({"event": "progress", "step": step, "done": done, "total": total}))


class _Bar:
    """A progress bar a step, on standard error."""

    def __init__(self) -> None:
        self.step = ""
        self.open = ExitStack()

    def __call__(self, step: str, done: int, total: int) -> None:
        if step != self.step:
            self.end()
            self.step = step
            self.bar = self.open.enter_context(click.progressbar(length=total, label=step, file=sys.stderr))
        self.bar.update(done - self.bar.pos)

    def end(self) -> None:
        """Finish the line of the bar."""
        self.open.close()
