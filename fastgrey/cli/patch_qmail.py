"""fastgrey patch-qmail."""

import click

from fastgrey import file_set, qmail_source
from fastgrey.cli.common import dry_run_option, json_option, print_json, print_rows
from fastgrey.qmail_source import Patch


@click.command("patch-qmail")
@click.argument("directory", metavar="DIR")
@click.option("--reverse", is_flag=True, help="Take out what was put in.")
@dry_run_option
@json_option
def patch_qmail(directory: str, reverse: bool, dry_run: bool, as_json: bool) -> None:
    """Put the CHECKENV call into the source of qmail in DIR.

    DIR is the tree of notqmail 1.08 or 1.09, netqmail 1.06 or qmail 1.03; other patches may be in it as long as they
    leave the places alone. All of it is done or nothing. Once more, it puts in what is missing and replaces an older
    checkenv.c. With --dry-run, prints the change as patch -p1 reads it.

    \b
    Example: fastgrey patch-qmail --dry-run /usr/src/notqmail-1.09 | less
    """
    patch = qmail_source.plan(directory, reverse)
    if not dry_run:
        file_set.carry_out(patch.changes)
    diff = b"".join(patch.diff()).decode("utf-8", "backslashreplace") if dry_run else ""
    if as_json:
        print_json({
            "directory": directory, "tree": patch.tree, "found": patch.state, "reverse": reverse, "dry_run": dry_run,
            "changed": {change.path.name: _done(change) for change in patch.changes},
        } | ({"diff": diff} if dry_run else {}))
    elif dry_run and patch.changes:
        click.echo(diff, nl=False)
    else:
        _show(directory, patch, reverse)


def _show(directory: str, patch: Patch, reverse: bool) -> None:
    if not patch.changes:
        click.echo(f"{directory}: {patch.tree}, {patch.state}; nothing to change")
        return
    click.echo(f"{directory}: {patch.tree}, the call is {'out' if reverse else 'in'}; it was {patch.state}")
    print_rows((f"  {change.path.name}", _done(change)) for change in patch.changes)
    click.echo("Next: make there, as root make setup check, then set CHECKENV where tcpserver is started."
               if not reverse else "Next: make there, as root make setup check.")


def _done(change: file_set.Change) -> str:
    return "new" if change.before is None else "removed" if change.after is None else "changed"
