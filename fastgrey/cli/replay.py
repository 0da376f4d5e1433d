"""fastgrey replay."""

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from fastgrey import configuration, settings
from fastgrey import replay as replay_
from fastgrey._core import Store
from fastgrey.cli.common import json_option, print_json, print_rows, set_option
from fastgrey.verdict import Verdict

if TYPE_CHECKING:
    from fastgrey.shared.throwaway import Checks

Row = tuple[int, Verdict]


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--store", metavar="DIR", help="Decide on this store, and record there. Default: an empty throw-away "
              "one, whatever FASTGREY_STORE says.")
@set_option
@click.option("--config", metavar="FILE", help="Settings and rules of the throw-away store, as apply would take them.")
@click.option("--engine", metavar="URL", help="Hold the records on this Valkey or PostgreSQL, apart from those of "
              "mail; they are removed afterwards.")
@click.option("--password-file", metavar="FILE", help="Holds the password of the engine, where the URL does not.")
@click.option("--jsonl", is_flag=True, help="Print one JSON object a row.")
@json_option
def replay(file: str, store: str | None, assignments: tuple[str, ...], config: str | None, engine: str | None,
           password_file: str | None, jsonl: bool, as_json: bool) -> None:
    """Decide the envelopes of FILE in order, each at its own time.

    FILE is tab-separated with a header line that names the columns time (Unix seconds), client_ip, client_name,
    sender and recipient; '-' is standard input. --set and --config apply to the throw-away store only, --set over --config.

    \b
    Example: fastgrey replay envelopes.tsv --set delay=10m --jsonl
    """
    if store and engine:
        raise click.UsageError("--store and --engine are two places for records; give one of them")
    if password_file and not engine:
        raise click.UsageError("--password-file goes with --engine")
    if store and (assignments or config):
        raise click.UsageError("--set and --config go with the throw-away store; a store has settings of its own")
    tally: Counter[str] = Counter()
    values = settings.parse_assignments(assignments)
    rules = None
    if config:
        loaded = configuration.load(config).policy
        rules = replace(loaded, settings=loaded.settings | values)
    with (replay_.Envelopes(file) as envelopes, replay_.replay_store(store, values, rules) as opened,
          _on_engine(engine, password_file, opened) as checks):
        for number, verdict in _with_progress(replay_.replay(envelopes, checks), envelopes):
            tally[f"{verdict.action} {verdict.reason}"] += 1
            if jsonl:
                sys.stdout.write(json.dumps({"row": number, "action": verdict.action, "reason": verdict.reason,
                                             "wait": verdict.wait}) + "\n")
    sys.stdout.flush()
    if as_json:
        print_json({"rows": tally.total(), "verdicts": dict(tally.most_common())})
    elif not jsonl:
        print_rows([("rows", tally.total()), *tally.most_common()])


@contextmanager
def _on_engine(url: str | None, password_file: str | None, store: Store) -> "Iterator[Store | Checks]":
    """What decides: the store alone, or with its records on an engine."""
    if url is None:
        yield store
        return
    from fastgrey.shared.throwaway import checks_on

    # What was written there is removed: SIGTERM is as Ctrl-C, which a shell may have had ignored.
    before = [(signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)),
              (signal.SIGTERM, signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)))]
    try:
        with checks_on(url, store, password_file) as checks:
            yield checks
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _with_progress(rows: Iterator[Row], envelopes: replay_.Envelopes) -> Iterator[Row]:
    """The rows again, with a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty() or not envelopes.size:
        yield from rows
        return
    with click.progressbar(length=envelopes.size, label="replay", file=sys.stderr) as bar:
        for row in rows:
            if row[0] % 1000 == 0:
                bar.update(envelopes.position - bar.pos)
            yield row
        bar.update(envelopes.size - bar.pos)
