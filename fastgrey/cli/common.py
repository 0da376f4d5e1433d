"""What several commands share: options, JSON, tables."""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice

import click

from fastgrey import directory

store_option = click.option(
    "--store", metavar="DIR", default=None, help="The store. Default: FASTGREY_STORE, else /var/lib/fastgrey."
)
config_option = click.option(
    "--config", metavar="FILE", default=None,
    help="The configuration. Default: FASTGREY_CONFIG, else /etc/fastgrey/fastgrey.toml; conf.d/*.toml beside it is "
    "read after it.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
local_option = click.option(
    "--local", is_flag=True, help="The table of this machine, by which it goes while the engine that holds shared records "
    "is away.",
)
dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Write nothing; show what would be done.")
set_option = click.option(
    "--set", "assignments", metavar="NAME=VALUE", multiple=True, help="A setting, such as delay=5m. Repeatable."
)

name_option = click.option("--name", metavar="HOST", help="Host name of the client, which is trusted: what is under "
                           "its name parent goes along.")

COLOURS = {"good": "green", "doubt": "yellow", "wrong": "red"}

# Rows after which the widths of a table's columns are settled.
TABLE_SAMPLE = 1000


def parts_arguments(required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """CLIENT [SENDER [RECIPIENT]], of which a part not given is '-'. required: CLIENT must be there."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in ("recipient", "sender"):
            command = click.argument(name, default="-")(command)
        return click.argument("client", **{"required": True} if required else {"default": "-"})(command)

    return decorate


def store_path(option: str | None) -> str:
    """The store to use: what --store names, else what the environment names."""
    return option or directory.default_store()


def say(text: str = "", err: bool = False, nl: bool = True) -> None:
    """Print lines. What a mail, a file or an argument brought into them reaches a terminal as text only."""
    click.echo("\n".join(map(one_line, text.split("\n"))), err=err, nl=nl)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2))


def print_rows(rows: Iterable[tuple[str, object]]) -> None:
    """Two aligned columns."""
    pairs = [(name, str(value)) for name, value in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        say(f"{name:<{width}}  {value}".rstrip())


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns under their titles. Rows are printed as they come, so there may be any number of them."""
    remaining = iter(rows)
    first = [titles, *islice(remaining, TABLE_SAMPLE)]
    widths = [max(len(cell) for cell in column) for column in zip(*first, strict=True)]
    for row in chain(first, remaining):
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def print_findings(findings: Iterable[tuple[str, str, str]], err: bool = False) -> None:
    """What doctor and its kin found, a line each: level, what, remedy."""
    for level, *parts in findings:
        text = one_line("; ".join(part for part in parts if part))
        click.echo(f"{click.style(f'{level:<7}', COLOURS[level])} {text}", err=err)


def one_line(text: str) -> str:
    """Names of files and processes, and what mail brings, are not ours to choose: no control character of theirs reaches
    a terminal, nor what turns the direction of writing."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def counted(number: int, thing: str) -> str:
    """A number of things: 1 rule, 2 rules."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
