"""fastgrey check."""

import click

from fastgrey import directory
from fastgrey.cli.common import dry_run_option, json_option, print_json, say, store_option, store_path

EXIT_CODES = {"accept": 0, "reject": 100, "defer": 111}


@click.command()
@click.argument("client")
@click.argument("sender")
@click.argument("recipient")
@store_option
@click.option("--name", metavar="HOST", help="Host name of the client.")
@click.option("--trust-name/--distrust-name", default=None, help="Whether that name is forward-confirmed. "
              "Default: what the setting trust_client_name says.")
@click.option("--relay", is_flag=True, help="The client may relay (RELAYCLIENT is set).")
@click.option("--now", metavar="SECONDS", type=click.IntRange(0, (1 << 40) - 1), help="Unix time. Default: the clock.")
@dry_run_option
@json_option
def check(client: str, sender: str, recipient: str, store: str | None, name: str | None, trust_name: bool | None,
          relay: bool, now: int | None, dry_run: bool, as_json: bool) -> None:
    """Decide one recipient of one message, as the hook would, and record it.

    The null sender is the empty string. With --dry-run nothing is recorded. Where records are shared, fastgrey serve is
    asked, as the hook does.

    \b
    Example: fastgrey check 192.0.2.7 a@example.org b@example.net --dry-run
    """
    with directory.open_store(store_path(store)) as opened:
        verdict = opened.ask(client=client, sender=sender, recipient=recipient, client_name=name,
                             name_trusted=trust_name, relay=relay, now=now, dry_run=dry_run)
    if as_json:
        print_json(verdict._asdict() | {"exit": EXIT_CODES[verdict.action]})
        return
    line = f"{verdict.action} {verdict.reason}"
    if verdict.action == "defer" and verdict.cause is None:
        line += f" wait={verdict.wait}"
    if verdict.key:
        line += f" key={verdict.key}"
    if verdict.rule:
        line += f" rule={verdict.rule}"
    say(line + (f": {verdict.cause}" if verdict.cause else ""))
