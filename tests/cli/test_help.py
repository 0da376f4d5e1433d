"""Help: every command has one, with an example that it would understand, and the README names them all."""

import re
from pathlib import Path

import click
import pytest

from fastgrey import errors
from fastgrey.cli.main import COMMANDS, cli

README = Path(__file__).resolve().parents[2] / "README.md"


def leaves(group=cli, words=()):
    """Every command that does something, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*words, name))
        else:
            yield (*words, name), command


LEAVES = dict(leaves())


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_example(run_fastgrey, words):
    done = run_fastgrey(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: fastgrey {' '.join(words)} ")
    example = re.search(r"^  Example: (fastgrey .*)$", done.stdout, re.MULTILINE)[1]
    # Only the first of several commands, and nothing of what a shell does with it.
    arguments = re.split(r" (?:&&|\||>) ?", example)[0].split()
    assert tuple(arguments[1:1 + len(words)]) == words
    LEAVES[words].make_context(" ".join(words), arguments[1 + len(words):])


def test_readme_names_every_command_and_exit_status():
    readme = README.read_text()
    for name in COMMANDS:
        assert f"`fastgrey {name}" in readme, name
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    statuses = {error.exit_status for error in vars(errors).values()
                if isinstance(error, type) and issubclass(error, errors.FastgreyError)}
    assert statuses | {0, 100, 111, 130} == documented
