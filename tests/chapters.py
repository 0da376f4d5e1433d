"""Snippets of the documents, for tests that have real programs read them."""

import itertools
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def snippet(page, name):
    """The one snippet of a page of docs/ that begins with the comment `# name`, up to an empty line."""
    lines = (DOCS / page).read_text().splitlines(keepends=True)
    (begin,) = [index for index, line in enumerate(lines) if line == f"    # {name}\n"]
    return "".join(line[4:] for line in itertools.takewhile(lambda line: line.startswith("    "), lines[begin:]))
