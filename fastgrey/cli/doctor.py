"""fastgrey doctor."""

import sys

import click

from fastgrey import health
from fastgrey.cli.common import json_option, print_findings, print_json, store_option, store_path


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
    Example: fastgrey doctor --user qmaild:fastgrey --hook /var/qmail/bin/qmail-checkenv
    """
    path = store_path(store)
    findings = health.examine(path, user, hook)
    status = health.status(findings)
    if as_json:
        print_json({"store": path, "status": status, "findings": [finding._asdict() for finding in findings]})
    else:
        print_findings(findings)
    sys.exit(status)
