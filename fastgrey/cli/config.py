"""fastgrey config check, show and describe."""

from collections import Counter

import click

from fastgrey import configuration, reference, settings
from fastgrey.cli.common import config_option, counted, json_option, print_json, print_rows, say


@click.group()
def config() -> None:
    """Look at the configuration without putting it in force: check, show, describe."""


@config.command()
@config_option
@json_option
def check(config: str | None, as_json: bool) -> None:
    """Check the configuration whole: every file, every rule.

    Exit status 0 where it could be applied, 1 where not; doubts go to standard error.

    \b
    Example: fastgrey config check --config fastgrey.toml
    """
    loaded = configuration.load(config)
    found = configuration.doubts(loaded)
    policy = loaded.policy
    if as_json:
        print_json({"files": policy.files, "rules": len(policy.rules), "doubts": found})
        return
    for doubt in found:
        say(f"fastgrey: {doubt}", err=True)
    say(f"{policy.files[0]}: good; {counted(len(policy.files), 'file')}, "
        f"{counted(len(loaded.origins), 'setting')}, {counted(len(policy.rules), 'rule')}")


@config.command()
@config_option
@json_option
def show(config: str | None, as_json: bool) -> None:
    """Show what the files come to: every setting and where it is set, how many rules each list has, and what of [serve]
    is set.

    \b
    Example: fastgrey config show --json
    """
    loaded = configuration.load(config)
    values = settings.show(loaded.policy.settings)
    if as_json:
        print_json({
            "files": loaded.policy.files, "settings": values, "origins": loaded.origins,
            "serve": loaded.serve.shown(),
            "rules": [rule.facts() for rule in loaded.policy.rules],
        })
        return
    print_rows((name, f"{value:<12}{loaded.origins.get(name, 'default')}") for name, value in values.items())
    counts = Counter((rule.list, rule.file) for rule in loaded.policy.rules)
    print_rows((name, f"{number:<12}{file}") for (name, file), number in counts.items())
    print_rows((f"serve.{name}", f"{value:<12} {loaded.origins[f'serve.{name}']}")
               for name, value in loaded.serve.shown().items() if f"serve.{name}" in loaded.origins)


@config.command()
@click.option("--markdown", is_flag=True, help="Print the reference page.")
@click.option("--toml", is_flag=True, help="Print a configuration to begin with: every option, commented out.")
@json_option
def describe(markdown: bool, toml: bool, as_json: bool) -> None:
    """Describe every option: type, unit, default, allowed values, meaning, source.

    \b
    Example: fastgrey config describe | less
    """
    if markdown + toml + as_json > 1:
        raise click.UsageError("--markdown, --toml and --json exclude one another")
    rows = configuration.describe() + configuration.describe_serve()
    if as_json:
        print_json(rows)
    elif toml:
        say(reference.template(), nl=False)
    elif markdown:
        say(reference.page(), nl=False)
    else:
        for row in rows:
            say(f"{row['name']} = {row['default']}")
            say(f"    {row['meaning']}")
            unit = f", in {row['unit']}" if row["unit"] else ""
            say(f"    {row['type']}{unit}; {row['allowed']}")
            say(f"    source: {row['source']}")
