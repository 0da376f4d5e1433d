"""fastgrey doctor."""

import sys

import click

from fastgrey import health
from fastgrey.cli.common import json_option, print_json, store_option, store_path


@click.command()
@store_option
@json_option
def doctor(store: str | None, as_json: bool) -> None:
    """Look for what is wrong with a store and say what to do. Exit status 1 where something is wrong."""
    path = store_path(store)
    findings = health.examine(path)
    if as_json:
        print_json({"store": path, "findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            click.echo(f"{finding.level:<7} {finding.what}" + (f"; {finding.remedy}" if finding.remedy else ""))
    sys.exit(1 if any(finding.level == "wrong" for finding in findings) else 0)
