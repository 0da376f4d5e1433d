"""fastgrey backup."""

import shutil
import sys
import tempfile
from pathlib import Path

import click

from fastgrey import backup as backup_
from fastgrey.cli.common import counted, dry_run_option, json_option, print_json, say, store_option, store_path
from fastgrey.cli.progress import Bars
from fastgrey.errors import BackupError
from fastgrey.sizes import bytes_shown


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@store_option
@click.option("--no-counters", is_flag=True, help="Leave out the counters and the hits of rules.")
@dry_run_option
@json_option
def backup(file: Path, store: str | None, no_counters: bool, dry_run: bool, as_json: bool) -> None:
    """Write the store to one file, while hooks run: known records, settings, rules, windows and the secret.

    The file is of one moment, verified before it gets its name, and readable by its owner alone: who has it can tell
    who wrote to whom. Strangers that wait are not in it. `-` writes to standard output.

    \b
    Example: fastgrey backup /var/backups/fastgrey
    """
    path = store_path(store)
    with Bars(as_json) as bars:
        if str(file) == "-" or dry_run:
            if str(file) == "-" and sys.stdout.isatty() and not dry_run:
                raise BackupError("a backup is no text for a terminal; name a file, or send it into one or a pipe")
            with tempfile.NamedTemporaryFile() as spool:
                saved = backup_.save(path, Path(spool.name), spool, not no_counters, bars)  # type: ignore[arg-type]
                if not dry_run:
                    spool.seek(0)
                    shutil.copyfileobj(spool, sys.stdout.buffer, backup_.PIECE)
                    sys.stdout.buffer.flush()
                    return
        else:
            saved = backup_.backup(path, file, not no_counters, bars)
    if as_json:
        print_json({"store": path, "file": str(file), "dry_run": dry_run} | saved.as_dict())
    else:
        say(f"{file}: {'would be ' if dry_run else ''}written, {bytes_shown(saved.size)}, "
            f"{counted(sum(saved.records.values()), 'known record')}")
