"""fastgrey pass."""

import click

from fastgrey import amend, directory, records, times
from fastgrey.cli.common import config_option, dry_run_option, json_option, local_option, name_option, parts_arguments
from fastgrey.cli.common import print_json, say, store_option, store_path
from fastgrey.cli.records_of import records_of, view_of


@click.command("pass")
@parts_arguments(required=True)
@store_option
@config_option
@local_option
@name_option
@dry_run_option
@json_option
def pass_(client: str, sender: str, recipient: str, store: str | None, config: str | None, local: bool,
          name: str | None, dry_run: bool, as_json: bool) -> None:
    """Make known now what would have to wait: its mail passes at the next attempt.

    CLIENT is an IP address, SENDER an envelope sender ('' for the null sender) or @DOMAIN; a part not given is '-'.
    CLIENT SENDER RECIPIENT makes known that triplet alone; CLIENT SENDER the sender's domain from that network; CLIENT
    all mail of that client; - SENDER RECIPIENT the pair, from wherever it comes. It stays known as if it had been
    earned.

    \b
    Example: fastgrey pass 192.0.2.7 a@example.org b@example.net
    """
    asked = amend.parts(client, sender, recipient, name)
    with directory.open_store(store_path(store)) as opened, records_of(opened, config, local) as held:
        view = view_of(opened, held)
        made = amend.make_known(view, asked, dry_run)
        doubt = amend.no_parent(asked)
        if doubt:
            say(f"fastgrey: {doubt}", err=True)
        if as_json:
            print_json({"dry_run": dry_run, "passed": [_facts(view, one) for one in made]})
            return
        for one in made:
            say(("would make" if dry_run else "made") + f" known: {_line(view, one)}")


def _facts(view: records.View, one: amend.Made) -> records.Facts:
    return view.facts(one.record) | {
        "what": one.target.what,
        "promotions_before": one.before.counted if one.before else None,
        "waited_since": None if one.waited is None else times.rfc3339(one.waited),
    }


def _line(view: records.View, one: amend.Made) -> str:
    until = times.date_and_distance(view.expires(one.record), view.now)
    line = (f"{one.record.kind} {records.short(one.record.key)} ({one.target.what}): promotions {one.record.counted}, "
            f"until {until}")
    return line if one.waited is None else f"{line}; it waited since {times.date_and_distance(one.waited, view.now)}"
