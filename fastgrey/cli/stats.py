"""fastgrey stats."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from fastgrey import directory, exposition
from fastgrey.cli import stats_plain
from fastgrey.cli.common import config_option, json_option, print_json, say, store_option, store_path
from fastgrey.cli.records_of import say_of_what
from fastgrey.statistics import collect


@click.command()
@store_option
@config_option
@json_option
@click.option("--prometheus", is_flag=True, help="Print Prometheus' text exposition format.")
@click.option("--output", metavar="FILE", help="With --prometheus: write FILE, replaced as a whole, as the textfile "
              "collector of a node exporter needs it.")
@click.option("--watch", metavar="[SECONDS]", is_flag=False, flag_value=2.0, type=click.FloatRange(0.1, 86_400),
              help="Show it again every 2 or SECONDS seconds, until interrupted.")
@click.option("--count", metavar="N", type=click.IntRange(1), help="With --watch: show it N times.")
def stats(store: str | None, config: str | None, as_json: bool, prometheus: bool, output: str | None,
          watch: float | None, count: int | None) -> None:
    """Show checks by verdict, strangers that came back, records and sizes.

    Checks are counted since the page of counters was made, and over the last minute, hour and day, to 10 seconds,
    5 minutes and 1 hour. On a terminal bars show the share of each verdict.

    \b
    Example: fastgrey stats --watch 5
    """
    if as_json + prometheus + (watch is not None) > 1:
        raise click.UsageError("--json, --prometheus and --watch exclude one another")
    if output is not None and not prometheus:
        raise click.UsageError("--output goes with --prometheus")
    if count is not None and watch is None:
        raise click.UsageError("--count goes with --watch")
    path = store_path(store)
    if as_json:
        print_json(collect(path))
    elif output is not None:
        exposition.write(output, exposition.expose(collect(path)))
    elif prometheus:
        say(exposition.expose(collect(path)), nl=False)
    else:
        with directory.open_store(path) as opened:
            say_of_what(opened, config)
        try:
            _show(_views(path, watch, count), watch is not None)
        except KeyboardInterrupt:
            if watch is None:
                raise


def _views(path: str, watch: float | None, count: int | None) -> Iterator[dict[str, Any]]:
    """The facts again and again. The store is opened each time: what replaced it or its counters is seen."""
    number = 1
    yield collect(path)
    while watch is not None and (count is None or number < count):
        time.sleep(watch)
        number += 1
        yield collect(path)


def _show(views: Iterator[dict[str, Any]], again: bool) -> None:
    if not sys.stdout.isatty():
        for number, facts in enumerate(views):
            say("\n".join(([""] if number else []) + stats_plain.lines(facts)))
            sys.stdout.flush()
        return
    # Only here, because it takes longer to import than all the rest.
    from rich.console import Console
    from rich.live import Live

    from fastgrey.cli import stats_terminal

    console = Console(highlight=False)
    if not again:
        console.print(stats_terminal.view(next(views), console))
        return
    with Live(console=console, auto_refresh=False) as live:
        for facts in views:
            live.update(stats_terminal.view(facts, console), refresh=True)
