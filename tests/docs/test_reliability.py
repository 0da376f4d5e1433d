"""docs/reliability.md: names tests that there are, and its table is what was tried; `make torture` refuses what it is not."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import effort
import tried

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def test_names_tests_that_there_are():
    text = PAGE.read_text()
    names = re.findall(r"`(tests/[^`]*)`", text)
    assert len(names) > 10
    for name in names:
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not test or re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE), name


def test_begins_with_the_two_promises():
    first = PAGE.read_text().partition("##")[0]
    assert "**Mail never stops because of it.**" in first
    assert "**A sender that earned its place keeps it.**" in first


def test_every_test_of_chance_is_named():
    """A file with the mark says nothing to who reads the page unless it is there."""
    text = PAGE.read_text()
    marked = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")
              if re.search(r"^(pytestmark = .*|@)pytest\.mark\.torture", path.read_text(), re.MULTILINE)]
    assert "tests/crash/test_kill_storms.py" in marked
    assert [path for path in marked if path not in text] == []


def test_the_table_is_what_was_tried():
    lines = tried.read(tried.LINES)
    assert PAGE.read_text() == tried.page(PAGE.read_text(), lines)
    by_name = {line["what"]: line for line in lines}
    assert len(by_name) == len(lines)
    assert all(line["effort"] >= 1 and line["machine"] for line in lines)
    assert by_name["kill storm"]["kills"] >= 20_000
    assert by_name["kill storm"]["lost"] == 0


def test_a_run_takes_the_place_of_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(tried, "LINES", tmp_path / "lines")
    monkeypatch.setattr(tried, "PAGE", tmp_path / "page")
    monkeypatch.setenv("FASTGREY_TRIED", str(tmp_path / "run"))
    (tmp_path / "page").write_text(f"before\n{tried.BEGIN}what was\n{tried.END}after\n")
    for kills in (1, 23_456):
        (tmp_path / "run").unlink(missing_ok=True)
        effort.tried("storm", kills=kills - 1, lost=0, kind="a")
        effort.tried("storm", kills=1, lost=0, kind="b")
        effort.tried(f"other {kills}", cases=7)
        tried.main(tmp_path / "run")
    text = (tmp_path / "page").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("| storm |") == 1
    assert "| storm | kills 23,456, lost 0, kind a, b |" in text
    assert "| other 1 | cases 7 |" in text
    assert "what was" not in text


def make(*arguments):
    """Run make as from a shell, whatever make may run these tests."""
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(["make", "--no-print-directory", *arguments], cwd=ROOT, env=environment, capture_output=True,
                          text=True)


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5", "20 times", "", "0x10"])
def test_make_torture_refuses_what_is_no_effort(value):
    """Before anything else is done, in one line."""
    done = make("torture", f"EFFORT={value}", "VENV=/nonexistent")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Makefile:")
    assert f"EFFORT is '{value}'; it is a whole number from 1 on, as in: make torture EFFORT=20" in done.stderr


def test_make_torture_runs_the_tests_of_make_test():
    """The same tests, with their numbers multiplied, and no others."""
    done = make("--dry-run", "torture", "EFFORT=3", "ONLY=kill")
    assert done.returncode == 0
    assert "FASTGREY_EFFORT=3" in done.stdout
    assert "pytest -m torture -k 'kill'" in done.stdout
