"""fastgrey restore."""

import sys
from contextlib import ExitStack
from typing import BinaryIO

import click

from fastgrey import backup, directory
from fastgrey.backup import Restored
from fastgrey.cli.common import counted, dry_run_option, json_option, print_json, say, store_option, store_path
from fastgrey.cli.init import group_id
from fastgrey.cli.progress import Bars
from fastgrey.cli.rollback import print_loss
from fastgrey.errors import BackupError
from fastgrey.times import date


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@store_option
@click.option("--group", metavar="NAME", help="Group that shares a store that is made anew: the one the hook's user is "
              "in.")
@dry_run_option
@json_option
def restore(file: str, store: str | None, group: str | None, dry_run: bool, as_json: bool) -> None:
    """Put a backup in force, while hooks run.

    Where there is a store, the backup becomes its next generation and the one that was in force is kept: fastgrey
    rollback undoes it. Where there is none, one is made. A file that is damaged, cut short or none of ours changes
    nothing. `-` reads standard input.

    \b
    Example: fastgrey restore /var/backups/fastgrey --dry-run
    """
    path = store_path(store)
    gid = group_id(group)
    with ExitStack() as stack, Bars(as_json) as bars:
        restored = backup.restore(path, _open(file, stack), file, gid, dry_run, bars)
    if as_json:
        print_json({"store": path, "file": file, "dry_run": dry_run} | restored.as_dict())
    else:
        _show(path, file, restored, dry_run)


def _open(file: str, stack: ExitStack) -> BinaryIO:
    try:
        if file == "-":
            return stack.enter_context(backup.spooled(sys.stdin.buffer))
        return stack.enter_context(open(file, "rb"))
    except OSError as error:
        raise BackupError(f"cannot read {file}: {error.strerror}; name a file that fastgrey backup has written"
                          ) from None


def _show(path: str, file: str, restored: Restored, dry_run: bool) -> None:
    known = counted(sum(restored.backup.records.values()), "known record")
    name = directory.generation_name(restored.generation)
    line = (f"{path}: {name}, from {file} of {date(restored.backup.written)} with {known}, "
            f"{'would be' if dry_run else 'is'} in force")
    if restored.left is None:
        say(f"{line}, in a new store")
        return
    left = directory.generation_name(restored.left)
    say(f"{line} instead of {left}")
    if restored.damage is not None:
        say(f"{left} is damaged ({restored.damage}), so what is lost cannot be counted"
            + ("" if dry_run else f"; it was put aside as damaged.{restored.left:06d}"))
    if restored.loss is not None:
        print_loss(restored.loss, left)
        if not dry_run:
            say("to undo this: fastgrey rollback")
