"""fastgrey forget."""

import click

from fastgrey import amend, directory, records
from fastgrey.cli.common import config_option, dry_run_option, json_option, local_option, name_option, parts_arguments
from fastgrey.cli.common import print_json, say, store_option, store_path
from fastgrey.cli.records_of import records_of, view_of
from fastgrey.errors import RecordError, RequestError


@click.command()
@parts_arguments(required=False)
@store_option
@config_option
@local_option
@name_option
@click.option("--only", type=click.Choice(records.KINDS), multiple=True, help="Only records of this kind. Repeatable.")
@click.option("--key", metavar="HEX", help="What 'fastgrey show' finds under this key, of 8 to 32 hex digits, in place "
              "of CLIENT SENDER RECIPIENT.")
@dry_run_option
@json_option
def forget(client: str, sender: str, recipient: str, store: str | None, config: str | None, local: bool,
           name: str | None, only: tuple[str, ...], key: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove records, so that what they let pass is a stranger again.

    CLIENT is an IP address, SENDER an envelope sender ('' for the null sender) or @DOMAIN; a part not given is '-'. All
    that the given parts determine goes: the client; its network with the sender's domain; the triplet, known and
    pending; the pair of SENDER and RECIPIENT, known and pending. Exit status 1 where there is none of it.

    \b
    Example: fastgrey forget 192.0.2.7 a@example.org b@example.net --dry-run
    """
    given = (client, sender, recipient) != ("-", "-", "-") or name is not None
    if given == (key is not None):
        raise RequestError("give either CLIENT [SENDER [RECIPIENT]] or --key HEX")
    prefix = None if key is None else records.key_prefix(key, 8)
    asked = amend.parts(client, sender, recipient, name) if given else None
    with directory.open_store(store_path(store)) as opened, records_of(opened, config, local) as held:
        view = view_of(opened, held)
        found = amend.targets(view, asked) if asked else amend.matches(view, prefix or "")
        chosen = [target for target in found if not only or target.kind in only]
        if asked and not chosen:
            raise RequestError(f"--only {' --only '.join(only)}: the given parts determine no such record")
        if prefix:
            amend.one_key(prefix, chosen)
        gone = amend.forget(view, chosen, dry_run)
        if held is not None:
            # The copies, which would let it pass while the engine is away.
            copies = amend.forget(records.View(opened), chosen, dry_run)
            gone = gone or copies
        doubt = amend.no_parent(asked) if asked else None
        if doubt:
            say(f"fastgrey: {doubt}", err=True)
        if not gone:
            raise RecordError("there is no such record; nothing to forget")
        if as_json:
            print_json({"dry_run": dry_run, "forgotten": [
                view.facts(one.record) | {"what": one.target.what or None} for one in gone]})
            return
        for one in gone:
            say(f"{'would forget' if dry_run else 'forgot'} {view.line(one.record, one.target.what)}")
