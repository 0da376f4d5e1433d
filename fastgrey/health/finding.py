"""What a look at something gives: findings, about a place."""

import shlex
from pathlib import Path
from typing import NamedTuple

from .account import Account


class Finding(NamedTuple):
    """One fact. level is 'good', 'doubt' or 'wrong'; remedy is one line, empty for what is good."""

    level: str
    what: str
    remedy: str = ""


class Trouble(Exception):
    """A finding that ends the look at something."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding)
        self.finding = finding


class Place(NamedTuple):
    """What is looked at: the directory of a store, the user that the hook runs as, the hook; None where not named."""

    root: Path
    user: Account | None = None
    hook: str | None = None

    def run(self, command: str, *arguments: str) -> str:
        """A remedy: run fastgrey's command on this store."""
        return run("fastgrey", command, "--store", str(self.root), *arguments)


def run(*words: str) -> str:
    """A remedy that is one command of the shell."""
    return f"run: {shlex.join(words)}"


def good(what: str) -> Finding:
    """Something that is as it should be."""
    return Finding("good", what)


def doubt(what: str, remedy: str) -> Finding:
    """Something that works and is hardly meant, or will not work for long, or could not be looked at."""
    return Finding("doubt", what, remedy)


def wrong(what: str, remedy: str) -> Finding:
    """Something that fails, or makes something else fail."""
    return Finding("wrong", what, remedy)
