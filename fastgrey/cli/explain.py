"""fastgrey explain."""

import textwrap

import click

from fastgrey import directory, explanation, times
from fastgrey.cli.common import config_option, json_option, local_option, print_json, print_rows, say, store_option
from fastgrey.cli.common import store_path
from fastgrey.cli.records_of import records_of
from fastgrey.explanation import Explanation
from fastgrey.records import short


@click.command()
@click.argument("client", metavar="IP")
@click.argument("sender")
@click.argument("recipient")
@click.option("--name", metavar="HOST", help="Host name of the client.")
@click.option("--trust-name/--distrust-name", default=None, help="Whether that name is forward-confirmed. "
              "Default: what the setting trust_client_name says.")
@store_option
@config_option
@local_option
@json_option
def explain(client: str, sender: str, recipient: str, name: str | None, trust_name: bool | None, store: str | None,
            config: str | None, local: bool, as_json: bool) -> None:
    """Tell where a mail is: what is decided now about IP, SENDER and RECIPIENT, step by step, and why.

    Shows what each part was normalised to, the rule or record that decided, when a retry passes, and the commands that
    let it pass now. Writes nothing. The null sender is ''. The key is the one in the log line of the hook.

    \b
    Example: fastgrey explain 192.0.2.7 billing@example.org you@example.net
    """
    with directory.open_store(store_path(store)) as opened, records_of(opened, config, local) as held:
        told = explanation.explain(opened, client, sender, recipient, name, trust_name, held=held)
    if as_json:
        print_json(told.as_dict())
    else:
        _show(told)


def _show(told: Explanation) -> None:
    print_rows(_parts(told))
    say()
    width = max((len(step.title) for step in told.steps), default=0)
    for step in told.steps:
        mark = "=>" if step.decides else "  "
        say(textwrap.fill(step.text, 110, initial_indent=f"{mark} {step.number:>2} {step.title:<{width}}  ",
                          subsequent_indent=" " * (width + 8), break_on_hyphens=False, break_long_words=False))
    say(("\n" if told.steps else "") + told.summary)
    for remedy in told.remedies:
        say(f"to let it pass now: {remedy}" if told.verdict["reason"] != "error" else f"ask: {remedy}")


def _parts(told: Explanation) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("now", times.date(told.now))]
    found = told.normalised
    if not found:
        return [*rows, ("client", told.client), ("sender", told.sender), ("recipient", told.recipient)]
    rows.append(("client", f"{told.client}, network {found['network']}"))
    if told.name:
        used = f"trusted; parent {found['parent'] or 'none'}" if found["name_trusted"] else "not trusted, so not used"
        rows.append(("name", f"{told.name}, {used}"))
    for part in ("sender", "recipient"):
        given, normal = getattr(told, part), found[part]
        normal = normal or "the null sender"
        rows.append((part, normal if given in (found[part], "") else f"{given}, keyed as {normal}"))
    return [*rows, ("key", short(told.key or ""))]
