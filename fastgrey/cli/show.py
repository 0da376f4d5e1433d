"""fastgrey show."""

import click

from fastgrey import directory, records
from fastgrey.cli.common import config_option, json_option, local_option, print_json, print_rows, say, store_option
from fastgrey.cli.common import store_path
from fastgrey.cli.records_of import records_of, view_of
from fastgrey.errors import RecordError


@click.command()
@click.argument("key")
@store_option
@config_option
@local_option
@json_option
def show(key: str, store: str | None, config: str | None, local: bool, as_json: bool) -> None:
    """Show every record whose key begins with KEY, 4 to 32 hex digits.

    The log line of every decision ends with the key of its triplet; 'fastgrey list' and 'fastgrey forget' show the keys
    of clients, sender domains and pairs as well. Exit status 1 where there is no such record.

    Keys are hashes, so a record tells no address. From addresses to records: fastgrey explain IP SENDER RECIPIENT.

    \b
    Example: fastgrey show 0752f3077a02
    """
    prefix = records.key_prefix(key)
    with directory.open_store(store_path(store)) as opened, records_of(opened, config, local) as held:
        view = view_of(opened, held)
        found = view.find(prefix)
        if not found:
            raise RecordError(f"no record has a key that begins with {prefix}; it may have expired, or its mail was "
                              "accepted by a rule, a known client or a known domain, which leaves no triplet")
        if as_json:
            print_json({"key": prefix, "records": [view.facts(record) for record in found]})
            return
        for number, record in enumerate(found):
            say(("\n" if number else "") + f"{record.where} {record.kind} {record.key.hex()}")
            print_rows((f"  {name}", value) for name, value in view.rows(record))
