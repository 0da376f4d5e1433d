"""fastgrey rollback."""

import click

from fastgrey import directory, rollback as rollback_
from fastgrey.cli.common import counted, dry_run_option, json_option, print_json, say, store_option, store_path
from fastgrey.cli.progress import Bars
from fastgrey.succession import Loss


@click.command()
@store_option
@dry_run_option
@json_option
def rollback(store: str | None, dry_run: bool, as_json: bool) -> None:
    """Go back to the generation before the last compaction, while hooks run.

    A copy of that generation is verified and put in force, with its settings, rules and windows; says what is lost by
    it. The generation that is left is kept: going back once more undoes it. One that is damaged is put aside instead,
    as damaged.N in the store.

    \b
    Example: fastgrey rollback --dry-run
    """
    path = store_path(store)
    with Bars(as_json) as bars:
        summary = rollback_.rollback(path, dry_run, bars)
    if as_json:
        print_json({"store": path, "dry_run": dry_run} | summary.as_dict())
        return
    names = [directory.generation_name(number) for number in (summary.source, summary.generation, summary.left)]
    known = counted(sum(summary.records.values()), "known record")
    say(f"{path}: {names[1]}, a copy of {names[0]} with {known}, {'would be' if dry_run else 'is'} in force "
        f"instead of {names[2]}")
    if summary.damage is not None:
        say(f"{names[2]} is damaged ({summary.damage}), so what is lost cannot be counted"
            + ("" if dry_run else f"; it was put aside as damaged.{summary.left:06d}"))
    if summary.loss is not None:
        print_loss(summary.loss, names[2])
        if not dry_run:
            say("to undo this: fastgrey rollback")


def print_loss(loss: Loss, name: str) -> None:
    """What is lost when a generation of this name gives its place to another, a line each."""
    lines = [(loss.added, "is lost", "are lost"), (loss.changed, "is as it was before", "are as they were before"),
             (loss.gone, "comes back", "come back")]
    for numbers, one, many in lines:
        if total := sum(numbers.values()):
            kinds = ", ".join(counted(number, kind) for kind, number in numbers.items() if number)
            say(f"  {counted(total, 'known record')} of {name} {one if total == 1 else many}: {kinds}")
    for setting, goes, comes in loss.settings:
        say(f"  setting {setting}: {goes} -> {comes}")
    for what, change in (("policy", loss.policy), ("windows", loss.windows)):
        if change is not None:
            say(f"  {what}: {change[0]} -> {change[1]}")
    if not any(sum(numbers.values()) for numbers, _, _ in lines) and not loss.settings and not loss.policy \
            and not loss.windows:
        say("  nothing is lost")
