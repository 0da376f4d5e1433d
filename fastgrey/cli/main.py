"""Entry point: finds the command, turns every expected error into one line and an exit status."""

import importlib
import keyword
import sys

import click

from fastgrey.errors import FastgreyError

COMMANDS = {
    "init": "Make a store, or change the settings of one that has no configuration.",
    "apply": "Put the configuration in force.",
    "config": "Look at the configuration: check, show, describe.",
    "explain": "Tell where a mail is: every step of its decision, and why.",
    "pass": "Make a client, sender domain, triplet or pair known now.",
    "forget": "Remove records, so that what they let pass is a stranger again.",
    "expect": "Let mail to a recipient pass for a while.",
    "list": "Show how many records there are, or which.",
    "show": "Show the records under a key of the log.",
    "stats": "Show what was decided, lately and since the start; records and sizes.",
    "doctor": "Look for what is wrong with a store and say what to do.",
    "check": "Decide one recipient of one message, as the hook would.",
    "serve": "Answer mail servers that ask over a socket.",
    "replay": "Decide the envelopes of a file, each at its own time.",
    "compact": "Drop what expired and pack the rest, while hooks run.",
    "verify": "Check every byte of a store, at rest or while hooks run.",
    "rollback": "Go back to the generation before the last compaction.",
    "backup": "Write the store to one file.",
    "restore": "Put a backup in force.",
    "patch-qmail": "Put the CHECKENV call into the source of qmail-smtpd, or take it out.",
    "install-hook": "Put the hook in its place on a mail server, look at it there, take it away.",
}


class Commands(click.Group):
    """Imports a command only when it is called, so that each starts as fast as it can."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        # A module cannot be called `pass`, nor with a hyphen.
        module = f"{name}_" if keyword.iskeyword(name) else name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"fastgrey.cli.{module}"), module)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fastgrey", message="fastgrey %(version)s")
def cli() -> None:
    """Greylisting for qmail. The store is taken from --store, else FASTGREY_STORE, else /var/lib/fastgrey.

    Exit status: 0 done, 1 could not be done, 2 wrong usage.
    """


def main() -> None:
    """Run the command line and exit."""
    from fastgrey._core import leave_on_damage

    leave_on_damage()
    try:
        status = cli.main(standalone_mode=False)
    except click.UsageError as error:
        context = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        status = _say(f"{' '.join(error.format_message().split())}{context}", 2)
    except click.ClickException as error:
        status = _say(error.format_message(), error.exit_code)
    except FastgreyError as error:
        status = _say(str(error), error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        status = _say("interrupted; what is in place is whole, and this can be run again", 130)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        sys.stdout = None
        status = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _say(f"{where}{error.strerror or error}", 1)
    sys.exit(status if isinstance(status, int) else 0)


def _say(line: str, status: int) -> int:
    from fastgrey.cli.common import one_line

    # What is wrong is often told in the words of who called, or of a file.
    print(f"fastgrey: {one_line(line)}", file=sys.stderr)
    return status
