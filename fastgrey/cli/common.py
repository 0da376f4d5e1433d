"""What several commands share: options, JSON, tables."""

import json
from collections.abc import Iterable

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
dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Write nothing; show what would be done.")
set_option = click.option(
    "--set", "assignments", metavar="NAME=VALUE", multiple=True, help="A setting, such as delay=5m. Repeatable."
)


def store_path(option: str | None) -> str:
    """The store to use: what --store names, else what the environment names."""
    return option or directory.default_store()


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2))


def print_rows(rows: Iterable[tuple[str, object]]) -> None:
    """Two aligned columns."""
    pairs = [(name, str(value)) for name, value in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{name:<{width}}  {value}".rstrip())


def bytes_shown(number: int) -> str:
    """A number of bytes for people: 1.5 MiB."""
    size, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{number} B" if unit == "B" else f"{size:.1f} {unit}"
