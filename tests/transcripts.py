"""Transcripts in documents: commands behind '$ ' in indented blocks are run, and what follows each is what they print.

    python tests/transcripts.py PAGE     run the commands of the page and write what they print into it

Commands of a page run in order in one scratch directory, where STORE/ and fastgrey.toml are; the environment names
them. A block that begins with a line 'NAME:' makes the file NAME there. What differs from run to run is masked by
same().
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

INDENT = "    "
MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[+-]\d{4}|Z)"), "DATE"),
    (re.compile(r"\b[0-9a-f]{12,32}\b"), "KEY"),
    (re.compile(r"\b\d+[dhms](?: \d+[hms])?\b(?= ago| early|\))"), "SPAN"),
    (re.compile(r"\bin \d+[dhms](?: \d+[hms])?"), "in SPAN"),
    (re.compile(r"\bwait=\d+"), "wait=N"),
    (re.compile(r"\b\d+(?:\.\d)? (?:B|[KMG]iB)\b"), "SIZE"),
    # A line is broken sooner where a span in it is longer.
    (re.compile(r"\n {12,}"), " "),
    (re.compile(r" +"), " "),
)


def same(text):
    """The text with everything masked that is another one each time."""
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text


def commands(page):
    """The commands of a page."""
    return [line.removeprefix(INDENT + "$ ") for line in page.splitlines() if line.startswith(INDENT + "$ ")]


def run(page, place):
    """The page with what its commands print now, run in the directory place."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": place,
        "FASTGREY_STORE": "STORE", "FASTGREY_CONFIG": "fastgrey.toml",
    }
    out, block, printing = [], None, False
    for line in page.splitlines():
        if line.startswith(INDENT + "$ "):
            done = subprocess.run(["bash", "-c", line.removeprefix(INDENT + "$ ")], cwd=place, env=environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
            printed = done.stdout.replace(f"{place}/", "/etc/fastgrey/")
            out += [line, *((INDENT + text).rstrip() for text in printed.splitlines())]
            printing = True
        elif printing and (line.startswith(INDENT) or not line):
            # What the command printed last time, up to the next text.
            continue
        else:
            out += [""] * printing + [line]
            printing = False
            if not line.startswith(INDENT):
                block = None
            elif block is None and re.fullmatch(rf"{INDENT}[\w.-]+:", line):
                block = Path(place) / line.strip().removesuffix(":")
                block.write_text("")
            elif block is not None:
                with open(block, "a") as file:
                    file.write(line.removeprefix(INDENT) + "\n")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        file = Path(sys.argv[1])
        file.write_text(run(file.read_text(), directory))
