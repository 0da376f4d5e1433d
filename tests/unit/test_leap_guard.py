"""Before a compaction: a clock that leapt ahead is told from a store in use."""

import os
import time

import pytest

import fastgrey
from fastgrey import compaction
from fastgrey.leap import leapt

DAY = 86_400
LIFETIME = 36 * DAY
NOW = int(time.time())


def seen(store, number, when):
    """A known record, last seen then."""
    request = {"client": f"10.0.{number}.1", "sender": f"a@h{number}.example", "recipient": "b@example.net"}
    store.check(**request, now=when - 300)
    assert store.check(**request, now=when).reason == "retry"


@pytest.fixture
def store(make_store, path):
    """A store made or compacted just now."""
    with fastgrey.open(make_store()) as opened:
        yield opened


def test_nothing_tells_against_the_clock(store, path):
    assert leapt(store, NOW + 400 * DAY) is None
    seen(store, 1, NOW)
    for now in (NOW, NOW + LIFETIME - 60, NOW - 400 * DAY):
        assert leapt(store, now) is None


def test_a_leap(store, path):
    seen(store, 1, NOW)
    reason = leapt(store, NOW + 365 * DAY)
    assert "after the last compaction" in reason
    assert "\n" not in reason
    # Checks under the wrong clock make it no better.
    seen(store, 2, NOW + 365 * DAY)
    assert leapt(store, NOW + 365 * DAY + 3600) is not None


@pytest.mark.parametrize(("after", "doubted"), [(LIFETIME, False), (LIFETIME + 1, True)])
def test_the_edge(store, path, after, doubted):
    link = int((path / "current").lstat().st_mtime)
    seen(store, 1, link)
    assert (leapt(store, link + after) is not None) == doubted


def test_a_store_in_use_that_was_not_compacted_for_long(store, path):
    """Its records were seen all along."""
    os.utime(path / "current", (NOW - 100 * DAY,) * 2, follow_symlinks=False)
    seen(store, 1, NOW - 90 * DAY)
    assert leapt(store, NOW) is not None
    seen(store, 2, NOW)
    assert leapt(store, NOW) is not None
    seen(store, 3, NOW - 2 * DAY)
    assert leapt(store, NOW) is None


def test_a_compaction_says_that_the_clock_was_right(store, path):
    seen(store, 1, NOW - 40 * DAY)
    os.utime(path / "current", (NOW - 50 * DAY,) * 2, follow_symlinks=False)
    assert leapt(store, NOW) is not None
    compaction.compact(path, NOW)
    assert leapt(store, NOW) is None


@pytest.mark.parametrize("option", [[], ["--if-needed"]])
def test_compact_refuses_such_a_clock(store, path, run_fastgrey, option):
    seen(store, 1, NOW - 40 * DAY)
    known = sum(store.known().values())
    os.utime(path / "current", (NOW - 50 * DAY,) * 2, follow_symlinks=False)
    refused = run_fastgrey("compact", *option)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "fastgrey compact --trust-clock" in refused.stderr
    assert sum(store.known().values()) == known
    assert run_fastgrey("compact", "--trust-clock", *option).returncode == 0
    assert sum(store.known().values()) == 0
