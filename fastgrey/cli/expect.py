"""fastgrey expect."""

import time

import click

from fastgrey import directory, records, times, windows
from fastgrey.cli.common import dry_run_option, json_option, print_json, say, store_option, store_path
from fastgrey.windows import Window


@click.command()
@click.argument("recipient", required=False)
@click.option("--from", "domain", metavar="DOMAIN", help="Only mail from this sender domain and those below it.")
@click.option("--for", "duration", metavar="DURATION", help="How long, such as 15m; at most the setting expect_max.")
@click.option("--close", is_flag=True, help="Close the window of RECIPIENT (and --from), or that of --key.")
@click.option("--key", metavar="HEX", help="With --close: the key of a window as --list shows it, or its beginning.")
@click.option("--list", "listing", is_flag=True, help="List the windows that are open.")
@store_option
@dry_run_option
@json_option
def expect(recipient: str | None, domain: str | None, duration: str | None, close: bool, key: str | None,
           listing: bool, store: str | None, dry_run: bool, as_json: bool) -> None:
    """Let mail to RECIPIENT pass for a while, as for a login code that is expected now.

    Until the window closes, mail to that recipient is accepted at once, from the domain of --from or from anywhere;
    deny rules still hold. The store keeps a hash only, so --list shows keys and times, and no address.

    \b
    Example: fastgrey expect you@example.net --from example.org --for 15m
    """
    if listing + close + (duration is not None) != 1:
        raise click.UsageError("say one of: RECIPIENT --for DURATION, --close, --list")
    if (recipient is None) != (listing or key is not None) or (key is not None and not close):
        raise click.UsageError("RECIPIENT goes with --for and --close, and --key with --close in its place")
    if domain is not None and recipient is None:
        raise click.UsageError("--from goes with a RECIPIENT")
    with directory.open_store(store_path(store)) as opened:
        if listing:
            _list(windows.listing(opened), as_json)
            return
        if key is not None:
            done = windows.close_by_key(opened, key, dry_run)
        elif close:
            done = windows.close_window(opened, recipient or "", domain, dry_run)
        else:
            done = windows.open_window(opened, recipient or "", domain, duration or "", dry_run)
        if records.View(opened).settings["shared"]:
            say("fastgrey: windows are of this machine alone; on each of the others, say the same", err=True)
    if as_json:
        print_json({"done": "close" if close else "open", "dry_run": dry_run} | windows.facts(done))
        return
    would = "would be " if dry_run else ""
    if close:
        say(f"{would}closed: window {records.short(done['key'])}, {times.span(done['until'] - int(time.time()))} early")
        return
    whom = f"from {domain} and below " if domain else ""
    say(f"{would}open: mail {whom}to {recipient} passes until {times.date(done['until'])}"
        + (f"; key={records.short(done['key'])}" if done["key"] else ""))


def _list(found: list[Window], as_json: bool) -> None:
    if as_json:
        print_json([windows.facts(window) for window in found])
        return
    now = int(time.time())
    for window in found:
        say(f"{records.short(window['key'])}  open {times.date_and_distance(window['opened'], now)}, closes "
            f"{times.date_and_distance(window['until'], now)}, "
            f"{'from one domain' if window['narrow'] else 'from any sender'}")
    if not found:
        say("no window is open")
