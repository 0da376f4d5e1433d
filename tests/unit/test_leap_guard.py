"""Before a compaction: a clock that leapt ahead is told from a store in use."""

import json
import os
import time

import pytest

import fastgrey
from fastgrey import compaction, last_run
from fastgrey.last_run import LastRun
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
    for days in (0, 1, 5, 17):
        seen(store, 2 + days, NOW + (365 + days) * DAY)
        assert leapt(store, NOW + (365 + days) * DAY + 3600) is not None


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
    seen(store, 3, NOW - 17 * DAY)
    assert leapt(store, NOW) is not None
    seen(store, 4, NOW - 19 * DAY)
    assert leapt(store, NOW) is None


@pytest.mark.parametrize(("hours", "doubted"), [(12, False), (47, False), (48, True)])
def test_records_that_live_for_a_day_or_two(make_store, path, hours, doubted):
    """Compacted every night, and seen in the daytime only."""
    with fastgrey.open(make_store(f"lifetime={hours}h", "retry_window=6h", "pool_window=6h")) as store:
        os.utime(path / "current", (NOW - 49 * 3600,) * 2, follow_symlinks=False)
        seen(store, 1, NOW - 49 * 3600)
        seen(store, 2, NOW)
        assert (leapt(store, NOW) is not None) == doubted


def test_a_compaction_that_was_not_needed_had_no_doubt(store, path):
    """A small store whose senders come every day; what expired is never enough."""
    seen(store, 1, NOW - 40 * DAY)
    seen(store, 2, NOW)
    os.utime(path / "current", (NOW - 50 * DAY,) * 2, follow_symlinks=False)
    for days, doubted in ((1, False), (37, True)):
        last_run.write(path, LastRun("declined", NOW, NOW, succeeded=NOW - days * DAY))
        assert (leapt(store, NOW) is not None) == doubted


def test_mail_that_began_late(store, path):
    """Where nothing expires, nothing is in doubt: a store made long before its first mail."""
    os.utime(path / "current", (NOW - 50 * DAY,) * 2, follow_symlinks=False)
    seen(store, 1, NOW)
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
    # What a dry run says before.
    foretold = run_fastgrey("compact", "--dry-run", *option)
    assert foretold.returncode == 0
    # All but the moment that the clock says.
    told = refused.stderr.partition("+0000, ")[2]
    assert told in foretold.stdout
    assert "no compaction is needed" not in foretold.stdout
    doubt = json.loads(run_fastgrey("compact", "--dry-run", "--json", *option).stdout)["doubt"]
    assert told.startswith(doubt.partition("+0000, ")[2])
    foretold = run_fastgrey("compact", "--dry-run", "--trust-clock", *option)
    assert "--trust-clock" not in foretold.stdout
    assert run_fastgrey("compact", "--trust-clock", *option).returncode == 0
    assert sum(store.known().values()) == 0
