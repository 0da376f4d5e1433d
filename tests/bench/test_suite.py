"""Every module of the benchmarks runs, measures what it says it has, and keeps it. No time is asserted."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import figures
import suite
from figures import Count, Figure
from machine import strace

ROOT = Path(__file__).resolve().parents[2]
# They count system calls.
COUNTING = ("hook", "in_process")
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def run(module, *options):
    done = subprocess.run([sys.executable, ROOT / "bench" / f"{module}.py", *options], cwd=ROOT, capture_output=True,
                          text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def arguments(file, *only):
    return argparse.Namespace(profile="smoke", json=file, only=list(only))


@pytest.mark.parametrize("module", suite.MODULES)
def test_module(module, tmp_path):
    """All that it has, small; each section with rounds for every figure and with where it comes from."""
    if module in COUNTING:
        strace()
    file = tmp_path / "results.json"
    said = run(module, "--profile", "smoke", "--json", str(file))
    sections = figures.load(file)
    declared = suite.sections(module)
    assert sorted(sections) == sorted(declared)
    assert str(ROOT) not in file.read_text() and str(tmp_path) not in file.read_text()
    for name, content in sections.items():
        assert f"{name} (smoke)" in said
        assert content["figures"] or content["counts"]
        for figure in content["figures"]:
            assert figure.section == name and figure.baseline
            assert 0 < figure.lowest <= figure.median <= figure.highest
            assert figures.line_of(figure) in said
        for count in content["counts"]:
            assert count.section == name and count.numbers
        assert content["profile"] == "smoke"
        assert content["command"] == f"bench/{module}.py --profile smoke"
        assert {"processor", "cores", "kernel", "memory", "file system"} <= set(content["machine"])
        assert {"fastgrey", "python", "gcc", "PyPI lmdb"} <= set(content["versions"])
        assert len(content["commit"]) in (0, 40) and isinstance(content["dirty"], bool)


def test_a_section_run_again_leaves_the_others(tmp_path):
    file = tmp_path / "results.json"
    for only, number in ((None, 1), ("second", 2)):
        results = figures.Results(arguments(file, *([only] if only else [])), ["first", "second"])
        for section in ("first", "second"):
            if results.wants(section):
                results.add(Count(section, "what", {"number": number}))
        results.write()
    sections = figures.load(file)
    assert {name: content["counts"][0].numbers["number"] for name, content in sections.items()} == {
        "first": 1, "second": 2}
    assert not list(tmp_path.glob("*.new"))


def test_an_unknown_section_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no section third; there are first, second"):
        figures.Results(arguments(tmp_path / "results.json", "third"), ["first", "second"])


def test_subjects_take_turns():
    """Each as often as the others, and each as often the first."""
    order = []
    found = figures.in_turn({name: lambda name=name: order.append(name) or {"a": 1.0, "b": 2.0, "c": 5.0}[name]
                             for name in "abc"}, "b", 3, "section")
    assert "".join(order) == "abcbcacab"
    assert [(one.name, one.ratios, one.seconds) for one in found] == [("a", [0.5] * 3, 1.0), ("c", [2.5] * 3, 5.0)]


def test_ratios_are_those_of_a_round():
    """The baseline of the same round, not the median of all."""
    (found,) = figures.figures_of({"base": [1.0, 2.0, 4.0], "subject": [2.0, 2.0, 2.0]}, "base", "section")
    assert found.ratios == [2.0, 1.0, 0.5]
    assert (found.median, found.lowest, found.highest) == (1.0, 0.5, 2.0)
    with pytest.raises(ValueError, match="not as many rounds"):
        figures.figures_of({"base": [1.0], "subject": [1.0, 2.0]}, "base", "section")


def test_a_check_that_decides_otherwise_ends_the_run(tmp_path):
    """A hook that fails is a fast one."""
    import execs

    spawner = execs.Spawner(tmp_path)
    command = execs.hook(tmp_path / "nothing", "a@example.org", "192.0.2.1", "b@example.net", "defer new")
    with pytest.raises(SystemExit, match="0 lines of 'fastgrey: defer new ', expected 2"):
        spawner.seconds([command, spawner.empty()], 2)


def test_what_failed_is_said_and_the_rest_is_run(tmp_path):
    """The suite goes on, and its status tells."""
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"sections": "broken"}))
    done = subprocess.run([sys.executable, ROOT / "bench" / "suite.py", "--profile", "smoke", "--json", file, "rules"],
                          capture_output=True, text=True, timeout=1800)
    assert done.returncode == 1
    assert f"bench: {file} holds no results of benchmarks; remove it, or name another one" in done.stderr
    assert "bench: failed: rules" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_that_is_not_there(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "bench" / "suite.py", "nonsense"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2
    assert "no module nonsense" in done.stderr


def test_figures_are_tuples_that_survive_the_file(tmp_path):
    file = tmp_path / "deep" / "results.json"
    figure = Figure("s", "subject", "base", [1.5, 2.5], 2.0, 1.0, 7, "a note")
    results = figures.Results(arguments(file), ["s"])
    assert results.wants("s")
    results.add(figure)
    results.write()
    assert figures.load(file)["s"]["figures"] == [figure]
