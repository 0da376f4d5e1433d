"""The page of the benchmarks and its plots are what the tool makes of the results: nothing in them is by hand."""

import copy
import re
from pathlib import Path

import pytest

import figures
import report
import suite
from goals import GOALS

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULTS = DOCS / "benchmarks.json"


@pytest.fixture(scope="module")
def sections():
    return figures.load(RESULTS)


def test_page_is_made_from_the_results(sections):
    assert (DOCS / "benchmarks.md").read_text() == report.page(sections), "run: make bench-report"


def test_plots_are_made_from_the_results(sections):
    pytest.importorskip("matplotlib")
    made = report.plots(sections)
    there = {file.name: file.read_bytes() for file in (DOCS / "benchmarks").iterdir()}
    assert sorted(there) == sorted(made), "run: make bench-report"
    assert [name for name in made if there[name] != made[name]] == [], "run: make bench-report"


def test_page_begins_with_what_it_cannot_say(sections):
    headings = [line for line in report.page(sections).splitlines() if line.startswith("#")]
    assert headings[:2] == ["# Benchmarks", "## What these figures cannot say"]


def test_every_figure_and_its_baseline_is_on_the_page(sections):
    text = report.page(sections)
    for content in sections.values():
        for one in content["figures"]:
            (row,) = [line for line in text.splitlines()
                      if line.startswith((f"| {one.name} |", f"| {one.name} (")) and f"| {one.baseline} |" in line]
            assert f"| {one.median:.2f} |" in row or one.median >= 100 or one.median < 0.1
            assert not one.note or one.note in " ".join(text.split())


def test_every_section_is_of_a_module(sections):
    assert set(sections) <= {name for module in suite.MODULES for name in suite.sections(module)}
    assert set(report.CHAPTERS) <= {name for module in suite.MODULES for name in suite.sections(module)}


def test_results_come_from_a_commit(sections):
    assert {content["commit"] != "" for content in sections.values()} == {True}


def test_goals_are_of_figures_that_exist(sections):
    assert [goal.text for goal in GOALS if goal.value(sections) is None] == []
    assert {goal.section for goal in GOALS} <= set(report.CHAPTERS)


def at_least(one):
    """Is the figure better where it is higher?"""
    return any(goal.least and goal.section == one.section and re.fullmatch(goal.name, one.name) for goal in GOALS)


def test_a_missed_goal_is_called_so(sections):
    slower = copy.deepcopy(sections)
    for content in slower.values():
        content["figures"] = [one._replace(ratios=[0.001 if at_least(one) else 1000.0]) for one in content["figures"]]
        for count in content["counts"]:
            count.numbers.update(dict.fromkeys(count.numbers, 10**6))
    table = report.page(slower).split("## Goals")[1].split("##")[0]
    assert table.count("| missed |") == len(GOALS)
    assert "| met |" not in table


def test_plots_of_sections_that_are_gone_go(tmp_path, sections):
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.md"
    report.write(RESULTS, page)
    stale = tmp_path / "page" / "stale.svg"
    stale.write_text("<svg/>")
    report.write(RESULTS, page)
    assert not stale.exists()
    assert page.read_text() == report.page(sections)


def test_percentiles_have_a_table_and_a_plot(sections):
    """Whatever was measured with too few questions is left out of both, and what is no percentile stays a line."""
    pytest.importorskip("matplotlib")
    counts = [
        figures.Count("serve-latency", "serve, known, unix, 32 connections",
                      {"connections": 32, "a second": 70000, "p50": 0.0004, "p99": 0.0011, "p999": 0.0042}),
        figures.Count("serve-latency", "sqlgrey, new, unix, 1 connections",
                      {"connections": 1, "a second": 390, "p50": 0.0026}),
        figures.Count("serve-latency", "gross, skipped", {"measured": 0}, "not installed: gross"),
    ]
    content = {**next(iter(sections.values())), "figures": [], "counts": counts}
    text = report.page({"serve-latency": content})
    assert "| serve, known, unix, 32 connections | 70000 | 400 us | 1.1 ms | 4.2 ms |\n" in text
    assert "| sqlgrey, new, unix, 1 connections | 390 | 2.6 ms |  |  |\n" in text
    assert "\n- gross, skipped: measured 0 (not installed: gross)\n" in text
    assert "](benchmarks/serve-latency.svg)" in text
    drawn = report.plots({"serve-latency": content})
    assert list(drawn) == ["serve-latency.svg"]
    for count in counts[:2]:
        assert count.name.encode() in drawn["serve-latency.svg"]
    assert b"gross" not in drawn["serve-latency.svg"]
