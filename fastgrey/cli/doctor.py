"""fastgrey doctor."""

import sys

import click

from fastgrey import health
from fastgrey.cli.common import json_option, print_json, store_option, store_path

COLOURS = {"good": "green", "doubt": "yellow", "wrong": "red"}


@click.command()
@store_option
@click.option("--user", metavar="NAME[:GROUP]", help="The user that the hook runs as, with all its groups, or with "
              "GROUP alone, as tcpserver -g and setuidgid have it. Default: judge by group and modes.")
@click.option("--hook", metavar="PATH", help="The executable that qmail-smtpd runs. Default: qmail-checkenv beside "
              "fastgrey, else on the path.")
@json_option
def doctor(store: str | None, user: str | None, hook: str | None, as_json: bool) -> None:
    """Look for what is wrong with a store, or soon will be, and say what to do.

    Changes nothing, but frees reader slots of processes that are no more. Exit status: 0 all is good, 1 something is
    in doubt, 2 something is wrong and a check or a command would fail.

    \b
    Example: fastgrey doctor --user qmaild:nofiles --hook /var/qmail/bin/qmail-checkenv
    """
    path = store_path(store)
    findings = health.examine(path, user, hook)
    status = health.status(findings)
    if as_json:
        print_json({"store": path, "status": status, "findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            level = click.style(f"{finding.level:<7}", COLOURS[finding.level])
            click.echo(f"{level} {one_line('; '.join(part for part in finding[1:] if part))}")
    sys.exit(status)


def one_line(text: str) -> str:
    """Names of files and processes are not ours to choose: no control character of theirs reaches a terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
