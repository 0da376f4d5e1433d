"""fastgrey apply."""

import difflib
from dataclasses import replace
from typing import Any

import click

from fastgrey import configuration, directory, disk, policy, settings, times
from fastgrey.cli.common import (
    config_option, counted, dry_run_option, json_option, print_json, say, store_option, store_path,
)
from fastgrey.policy import Policy


@click.command()
@config_option
@store_option
@dry_run_option
@json_option
def apply(config: str | None, store: str | None, dry_run: bool, as_json: bool) -> None:
    """Put the configuration in force.

    Everything is checked first and refused whole where anything is wrong; then settings and rules change in one
    transaction, so that a check sees the old policy or the new one. With --dry-run, shows what would change.

    \b
    Example: fastgrey apply --dry-run && fastgrey apply
    """
    loaded = configuration.load(config)
    for doubt in configuration.doubts(loaded):
        say(f"fastgrey: {doubt}", err=True)
    with directory.open_store(store_path(store)) as opened:
        before, damaged = policy.in_force_or_damaged(opened)
        after = replace(loaded.policy, settings=disk.settled(loaded.policy.settings, opened.path))
        changed = (before.settings, before.rules, before.files) != (after.settings, after.rules, after.files)
        changed = changed or damaged
        number = before.number
        if (changed or not number) and not dry_run:
            # The one that was compiled when it was checked.
            number = policy.apply(opened, loaded.policy)
            changed = True
    facts = {"store": opened.path, "dry_run": dry_run, "changed": changed, "number": number} | changes(before, after)
    if as_json:
        print_json(facts)
    else:
        _show(facts, before, after, opened.path)


def changes(before: Policy, after: Policy) -> dict[str, Any]:
    """What differs: settings as [old, new] by name, rules that go and that come."""
    old, new = settings.show(before.settings), settings.show(after.settings)
    lines = [{f"{rule.list}: {rule.entry}" for rule in policy_.rules} for policy_ in (before, after)]
    return {
        "settings": {name: [old[name], new[name]] for name in new if old[name] != new[name]},
        "removed": sorted(lines[0] - lines[1]),
        "added": sorted(lines[1] - lines[0]),
    }


def _show(facts: dict[str, Any], before: Policy, after: Policy, path: str) -> None:
    since = "no policy applied yet"
    if before.number:
        since = f"policy {before.number}, applied {times.date(before.applied)}"
    if facts["dry_run"]:
        for line in difflib.unified_diff(before.lines(), after.lines(), f"{path} ({since})", after.files[0], n=0,
                                         lineterm=""):
            say(line)
    if not facts["changed"]:
        say(f"{path}: nothing to change ({since})")
        return
    counts = ", ".join(f"{counted(len(facts[name]), thing)} {done}" for name, thing, done in (
        ("settings", "setting", "changed"), ("added", "rule", "added"), ("removed", "rule", "removed")))
    verb = "would be" if facts["dry_run"] else "is"
    number = f"policy {facts['number']}" if not facts["dry_run"] else "the configuration"
    say(f"{path}: {number} {verb} in force; {counts}")
