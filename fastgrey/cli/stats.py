"""fastgrey stats."""

from pathlib import Path
from typing import Any

import click

from fastgrey import directory, settings
from fastgrey.cli.common import bytes_shown, json_option, print_json, print_rows, store_option, store_path
from fastgrey.times import rfc3339


@click.command()
@store_option
@json_option
def stats(store: str | None, as_json: bool) -> None:
    """Show counters, numbers of records and sizes. Counters run from the making of the store."""
    facts = collect(store_path(store))
    if as_json:
        print_json(facts)
        return
    click.echo(f"{facts['store']}: {facts['generation']}, made {facts['made']}")
    for title, rows in (
        ("verdicts", facts["verdicts"]),
        ("events", facts["events"]),
        ("known records", facts["known"]),
        ("pending partitions", {p["from"]: f"{p['records']} records until {p['until']}" for p in facts["pending"]}),
        ("size", {name: bytes_shown(size) for name, size in facts["bytes"].items()}),
    ):
        click.echo(f"\n{title}")
        print_rows((f"  {name}", value) for name, value in rows.items())
        if not rows:
            click.echo("  none")


def collect(path: str) -> dict[str, Any]:
    """Everything that stats shows, as JSON has it."""
    with directory.open_store(path) as store:
        head = store.head()
        counters = store.counters()
        partitions = store.partitions()
        known = store.known()
    root = Path(path)
    return {
        "store": path,
        "format": head["version"],
        "generation": head["generation"],
        "made": rfc3339(head["made"]),
        "settings": settings.show(dict(zip(settings.BY_NAME, head["settings"], strict=True))),
        "verdicts": counters["verdicts"] if counters else {},
        "events": counters["events"] if counters else {},
        "known": known,
        "pending": [{"from": rfc3339(p["start"]), "until": rfc3339(p["start"] + p["length"]), "records": p["records"]}
                    for p in partitions],
        "bytes": {
            "in force": directory.size_on_disk(root / head["generation"]),
            "pending": directory.size_on_disk(root / f"pending.{directory.boot_id()}"),
            "all": directory.size_on_disk(root),
        },
    }
