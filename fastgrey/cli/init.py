"""fastgrey init."""

import grp
import os
from pathlib import Path

import click

from fastgrey import directory, disk, policy, settings
from fastgrey.cli.common import (
    dry_run_option, json_option, print_json, print_rows, say, set_option, store_option, store_path,
)
from fastgrey.errors import SettingsError

Values = dict[str, int]


@click.command()
@store_option
@set_option
@click.option("--group", metavar="NAME", help="Group that shares the store: the one the hook's user is in.")
@dry_run_option
@json_option
def init(store: str | None, assignments: tuple[str, ...], group: str | None, dry_run: bool, as_json: bool) -> None:
    """Make a store, or change the settings of one.

    On an existing store everything that is remembered stays; only the settings named with --set change. Once a
    configuration was applied, settings are changed there.

    \b
    Example: fastgrey init --group fastgrey
    """
    path = store_path(store)
    values = settings.parse_assignments(assignments)
    gid = group_id(group)
    exists = os.path.lexists(os.path.join(path, "current"))
    if exists:
        before, after = _change(path, values, group, dry_run)
    else:
        before, after = {}, disk.settled(settings.defaults() | values, path)
        if not dry_run:
            directory.create(path, values, gid)
    _show(path, exists, settings.show(before), settings.show(after), dry_run, as_json)
    for doubt in settings.doubts(after):
        say(f"fastgrey: {doubt}", err=True)


def group_id(name: str | None) -> int | None:
    """The number of the group; SettingsError where there is none of this name."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise SettingsError(f"--group {name}: there is no such group; make it with: groupadd {name}") from None


def _change(path: str, values: Values, group: str | None, dry_run: bool) -> tuple[Values, Values]:
    if group is not None:
        raise SettingsError(f"--group: {path} exists already; change its group with: chgrp -R {group} {path}")
    with directory.open_store(path) as opened:
        in_force = policy.in_force(opened)
        before = in_force.settings
        after = disk.settled(before | values, path)
        if after != before and in_force.files:
            raise SettingsError(f"--set: the settings of {path} come from {in_force.files[0]}; change them there, "
                                "then: fastgrey apply")
        counters = opened.counters()
        # The page of counters has a copy of on_error, which configure brings into line.
        astray = counters is not None and counters["defer_on_error"] != bool(after["on_error"])
        if (after != before or astray) and not dry_run:
            opened.configure(list(after.values()))
        if counters is None and not dry_run:
            directory.make_counters(Path(path), bool(after["on_error"]))
            say(f"fastgrey: the page of counters {path}/stats was lost or unusable; counting starts anew",
                err=True)
    return before, after


def _show(path: str, exists: bool, before: dict[str, str], after: dict[str, str], dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"store": path, "created": not exists, "dry_run": dry_run, "before": before, "settings": after})
        return
    would = "would be " if dry_run else ""
    if not exists:
        say(f"{path}: {would}created")
        print_rows((f"  {name}", value) for name, value in after.items())
    elif before == after:
        say(f"{path}: nothing to change")
    else:
        say(f"{path}: {would}changed")
        print_rows((f"  {name}", f"{before[name]} -> {after[name]}") for name in after if before[name] != after[name])
