"""Spans and dates as people and JSON see them."""

import time

import pytest

from fastgrey import times


@pytest.mark.parametrize(("seconds", "shown"), [
    (-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (250, "4m 10s"), (3599, "59m 59s"), (3600, "1h"), (3659, "1h"),
    (3660, "1h 1m"), (86_399, "23h 59m"), (86_400, "1d"), (183_600, "2d 3h"), (31_536_000, "365d"),
])
def test_span(seconds, shown):
    assert times.span(seconds) == shown


@pytest.mark.parametrize(("zone", "shown"), [
    ("UTC0", "2026-11-22 16:29:44+0000"), ("CET-1", "2026-11-22 17:29:44+0100"), ("EST5", "2026-11-22 11:29:44-0500"),
])
def test_date_is_local_with_its_zone(monkeypatch, zone, shown):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert times.date(1_795_364_984) == shown
        assert times.date_and_distance(1_795_364_984, 1_795_364_984 + 250) == f"{shown} (4m 10s ago)"
        assert times.date_and_distance(1_795_364_984, 1_795_364_984 - 3600) == f"{shown} (in 1h)"
        assert times.rfc3339(1_795_364_984) == "2026-11-22T16:29:44Z"
    finally:
        monkeypatch.undo()
        time.tzset()
