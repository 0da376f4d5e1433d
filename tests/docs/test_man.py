"""The manual pages render without a warning; those that are generated are not stale, the others name all there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from conftest import HOOK
from fastgrey.cli.main import cli
from fastgrey.hooks import HOOKS
from fastgrey.qmail_source import KNOWN

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "man").glob("*.[158]"))
GENERATED = ("fastgrey.1", "fastgrey.toml.5")
VERSION = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]


def read(name):
    return (ROOT / "docs" / "man" / name).read_text()


def plain(name):
    """The page as a terminal shows it, in one line."""
    return " ".join(rendered(ROOT / "docs" / "man" / name).stdout.split())


def rendered(page):
    """The page by man-db and groff, which tells all that it doubts on standard error."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "500", "MANROFFOPT": "-ww -rHY=0"}
    return subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", str(page)], env=environment, capture_output=True,
                          text=True, timeout=60)


def linted(page):
    return subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True,
                          timeout=60)


def variables(source):
    """What a source asks of its environment."""
    return set(re.findall(r'(?:getenv|text_of|variable_is|value_of|reply)\([^)]*?b?"([A-Z][A-Z0-9_]+)"', source))


def test_there_are_pages():
    assert {page.name for page in PAGES} == {*GENERATED, "qmail-checkenv.8", "fastgrey-patch-qmail.8"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_renders_without_a_warning(page):
    shown = rendered(page)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"{page.stem}({page.suffix[1:]})")
    lint = linted(page)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")


def test_a_warning_would_be_seen(tmp_path):
    page = tmp_path / "bad.1"
    page.write_text(read("fastgrey.1").replace(".SH FILES", ".SH FILES\n.XX unknown"))
    assert "XX" in rendered(page).stderr
    assert "XX" in linted(page).stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_head_and_references(page):
    text = page.read_text()
    title = re.search(r"^\.TH (.*)$", text, re.MULTILINE)[1].replace("\\", "")
    assert re.fullmatch(rf'{page.stem} {page.suffix[1:]} \d{{4}}-\d\d-\d\d "fastgrey {re.escape(VERSION)}"', title)
    found = subprocess.run(["lexgrog", str(page)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0 and f'"{page.stem} - ' in found.stdout
    ours = {f"{other.stem}({other.suffix[1:]})" for other in PAGES}
    named = set(re.findall(r"[\w.-]+\(\d\)", text.split('.SH "SEE ALSO"')[1].replace("\\", "")))
    assert named & ours
    assert named <= ours | {"qmail-smtpd(8)", "tcp-environ(5)", "tcpserver(1)"}


def test_generated_pages_are_not_stale(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs" / "man" / "pages.py", tmp_path], check=True, timeout=60)
    assert sorted(page.name for page in tmp_path.iterdir()) == list(GENERATED)
    for name in GENERATED:
        assert (tmp_path / name).read_text() == read(name), "make pages writes it anew"


def test_every_command_and_option_is_there():
    shown = plain("fastgrey.1")
    above = click.Context(cli)
    for name in cli.list_commands(above):
        command = cli.get_command(above, name)
        assert f"fastgrey {name}" in shown
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in shown, (name, option)


def test_exit_codes_of_the_hooks():
    """The table is that of --help, row by row, and names every hook."""
    table = read("qmail-checkenv.8").split("reject\n", 1)[1].split(".TE")[0].replace("\\", "")
    cells = [line.split("\t") for line in table.strip().splitlines()]
    rows = {name: tuple(map(int, numbers)) for name, *numbers in cells}
    said = subprocess.run([HOOK, "--help"], capture_output=True, text=True, check=True).stdout
    above, of_help = "", {}
    for line in said.splitlines():
        found = re.match(r"(\S*) +.* (\d+) +(\d+) +(\d+)$", line)
        if found:
            above = found[1] or above
            more = re.search("FASTGREY_RCPTCHECK=close|USE_FD4", "" if found[1] else line)
            of_help[f"{above}, {more[0]}" if more else above] = tuple(int(found[number]) for number in (2, 3, 4))
    assert rows == of_help
    assert set(HOOKS) == {name.partition(",")[0] for name in rows}
    shown = plain("qmail-checkenv.8")
    for hook in HOOKS.values():
        assert hook.installed in shown


def test_environment_and_reasons_of_the_hook():
    sources = "".join(path.read_text() for path in sorted((ROOT / "fastgrey" / "core").glob("*.pxi")))
    asked = variables(sources)
    assert {"FASTGREY_STORE", "RELAYCLIENT", "FASTGREY_TRACE", "USE_FD4"} <= asked
    page = read("qmail-checkenv.8").replace("\\", "")
    told = page.split('.SH "ENVIRONMENT VARIABLES"')[1]
    assert {name for name in asked if not re.search(rf"\b{name}\b", told)} == set()
    body = sources.split("cdef const char *reason_name")[1].split("cdef ")[0]
    reasons = re.findall(r'return b"([a-z-]+)"', body)
    assert len(reasons) == 15
    log = page.split('.SH "LOG LINE"')[1]
    assert [reason for reason in reasons if not re.search(rf"\b{reason}\b", log)] == []


def test_patch_qmail_names_trees_options_and_variables():
    page = read("fastgrey-patch-qmail.8").replace("\\", "")
    asked = variables((ROOT / "contrib" / "qmail" / "checkenv.c").read_text())
    asked = {name for name in asked if name.startswith("CHECKENV")}
    assert len(asked) == 5
    assert {name for name in asked if f".B {name}\n" not in page} == set()
    for tree in KNOWN:
        name, version = tree.split()
        assert re.search(rf"{name} (?:\S+ and )?{re.escape(version)}", page), tree
    command = cli.get_command(click.Context(cli), "patch-qmail")
    for parameter in command.params:
        assert all(option in page for option in parameter.opts if option.startswith("--"))
