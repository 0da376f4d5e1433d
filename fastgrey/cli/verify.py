"""fastgrey verify."""

import sys

import click

from fastgrey import verification
from fastgrey.cli.common import counted, json_option, one_line, print_json, say, store_option, store_path
from fastgrey.cli.progress import Bars


@click.command()
@store_option
@json_option
def verify(store: str | None, as_json: bool) -> None:
    """Check every byte of a store, at rest or while hooks run.

    Says in one line that it is whole, or what is wrong where and what to do. Exit status: 0 whole, 1 something is in
    doubt, 2 something is wrong. `fastgrey doctor` looks for what is wrong around it.

    \b
    Example: fastgrey verify --store /var/lib/fastgrey
    """
    path = store_path(store)
    with Bars(as_json) as bars:
        report = verification.verify(path, bars)
    if as_json:
        print_json({"store": path, "status": report.status,
                    "findings": [finding._asdict() for finding in report.findings]})
    elif not report.worst:
        say(f"{path} is whole: {report.findings[0].what}")
    else:
        what, remedy = report.worst[0][1:]
        more = len([finding for finding in report.findings if finding.level != "good"]) - 1
        rest = f" ({counted(more, 'finding')} more: fastgrey verify --json)" if more else ""
        say(one_line(f"{path}: {what}; {remedy}{rest}"))
    sys.exit(report.status)
