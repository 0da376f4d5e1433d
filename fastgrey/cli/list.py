"""fastgrey list."""

import json
from itertools import chain

import click

from fastgrey import directory, listing, overview, records, times
from fastgrey.cli.common import config_option, json_option, print_json, print_rows, print_table, say, store_option
from fastgrey.cli.common import store_path
from fastgrey.cli.records_of import say_of_what

CLOSING = {
    "left_out": "left out; --limit 0 shows all",
    "passed": "known by now are not shown",
    "expired": "expired are not shown",
}


@click.command()
@click.argument("what", required=False, type=click.Choice(tuple(listing.LISTS)))
@store_option
@config_option
@click.option("--limit", metavar="N", type=click.IntRange(0), default=50, show_default=True,
              help="Show so many at most; 0 for all.")
@click.option("--sort", type=click.Choice(tuple(listing.SORTS)), help="What comes first: what expires soonest, was "
              "seen last, counts most, or the lowest key. Default: expires; with --limit 0 as stored, since to sort "
              "all of them takes memory for all of them.")
@click.option("--long", is_flag=True, help="Whole keys of 32 digits.")
@json_option
def list(what: str | None, store: str | None, config: str | None, limit: int, sort: str | None, long: bool,
         as_json: bool) -> None:
    """Show how many records there are, or which: those that count, by their keys.

    Of clients, senders and recipients there are only keys, which are hashes: no address can be listed. The log line
    of every decision has the key of its triplet: from there, fastgrey show KEY. From addresses to records: fastgrey
    explain IP SENDER RECIPIENT. Rules are listed as they were written, with how often each decided.

    \b
    Example: fastgrey list pending --sort seen --limit 20
    """
    with directory.open_store(store_path(store)) as opened:
        if what not in ("windows", "rules"):
            say_of_what(opened, config)
        view = records.View(opened)
        if what is None:
            _overview(view, as_json)
            return
        query = listing.Query(limit, sort, long)
        (_json if as_json else _table)(what, listing.LISTS[what](view, query))


def _table(what: str, found: listing.Listing[object]) -> None:
    titles = [title for title, _ in found.columns]
    rows = iter(found.rows)
    first = next(rows, None)
    if first is None:
        say(f"no {what}")
    else:
        print_table(titles, ([text(row) for _, text in found.columns] for row in chain([first], rows)))
    for name, number in found.closing.items():
        if number:
            say(f"{number} {CLOSING.get(name, name)}", err=True)


def _json(what: str, found: listing.Listing[object]) -> None:
    """One document, a row at a time: a list without a limit may not fit into memory."""
    say(f'{{\n  "what": {json.dumps(what)},\n  "records": [', nl=False)
    separator = "\n    "
    for row in found.rows:
        say(separator + json.dumps(found.facts(row)), nl=False)
        separator = ",\n    "
    closing = "".join(f',\n  "{name}": {number}' for name, number in found.closing.items())
    say(f"\n  ]{closing}\n}}")


def _overview(view: records.View, as_json: bool) -> None:
    found = overview.overview(view)
    if as_json:
        print_json(found.facts())
        return
    print_table(("known", "alive", "expired", "seen first", "", "seen last", "", "next expires", ""), [
        (f"{kind}s", str(known.alive), str(known.expired), *_time(view, known.oldest), *_time(view, known.newest),
         *_time(view, found.next_expires(known))) for kind, known in found.known.items()])
    say("\npending")
    print_rows([
        ("  triplets waiting", found.pending.waiting),
        ("  a retry passes now", found.pending.passing),
        ("  triplets known by now", found.pending.passed),
        ("  pairs", found.pending.pairs),
        ("  expired", found.pending.expired),
        ("  partitions", found.pending.partitions),
    ])
    closes = f", the next closes {' '.join(_time(view, min(found.windows)))}" if found.windows else ""
    say(f"\nwindows open: {len(found.windows)}{closes}")
    if not found.rules:
        say("rules: none")
        return
    say()
    print_table(("rules", "number", "hits", "never hit"), [
        (name, str(row.rules), str(row.hits), str(row.never_hit)) for name, row in found.rules.items()])


def _time(view: records.View, seconds: int | None) -> tuple[str, str]:
    return ("-", "") if seconds is None else (times.date(seconds), times.distance(seconds, view.now))
