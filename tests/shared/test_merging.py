"""Two records of one thing made one."""

from hypothesis import given, strategies

from fastgrey.shared.merging import KNOWN, Spans, count_of, packed, time_of

SPANS = Spans(lifetime=1000, retry_window=100, pool_window=50)
kinds = strategies.sampled_from([*KNOWN, "waiting", "hops"])


@strategies.composite
def records(draw, kind):
    """One of the kind, or none."""
    if draw(strategies.integers(0, 9)) == 0:
        return 0
    count = 0 if kind == "waiting" else draw(strategies.integers(0 if kind in KNOWN else 1, 5))
    return packed(draw(strategies.integers(1, 2500)), count)


@given(strategies.data())
def test_joining_again_changes_nothing(data):
    kind = data.draw(kinds)
    one, other = data.draw(records(kind)), data.draw(records(kind))
    whole = SPANS.joined(kind, one, other)
    assert whole == SPANS.joined(kind, other, one)
    for again in (one, other, whole):
        assert SPANS.joined(kind, whole, again) == whole


@given(strategies.data())
def test_what_lets_pass_goes_on_to(data):
    """At any moment at which one of the two lets a mail pass, both together do, unless it was forgotten later."""
    kind = data.draw(kinds)
    one, other = data.draw(records(kind)), data.draw(records(kind))
    now = max(time_of(one), time_of(other))
    whole = SPANS.joined(kind, one, other)
    if kind in KNOWN:
        late = max(one, other, key=lambda record: (time_of(record), count_of(record)))
        for record in (one, other):
            if SPANS.alive(kind, record, now) and count_of(record) and (count_of(late) or not late):
                assert SPANS.alive(kind, whole, now) and count_of(whole) >= count_of(record)
    else:
        for record in (one, other):
            if SPANS.alive(kind, record, now):
                assert SPANS.alive(kind, whole, now) and time_of(whole) <= time_of(record)
                assert count_of(whole) >= count_of(record)


@given(strategies.integers(1, 9), strategies.integers(1, 9), strategies.integers(1, 9), strategies.booleans())
def test_gains_of_two_add_up(base, left, right, swapped):
    """Whoever is written back first."""
    there = packed(100, base)
    earned = [(packed(110, base + left), left), (packed(120, base + right), right)]
    for record, gains in earned[::-1] if swapped else earned:
        there = SPANS.added("client", there, record, gains)
    assert there == packed(120, base + left + right)


def test_gains_of_what_the_engine_lost():
    assert SPANS.added("client", 0, packed(110, 5), 1) == packed(110, 5)
    assert SPANS.added("client", packed(100, 2), packed(110, 5), 1) == packed(110, 5)


def test_gains_around_a_forgetting():
    """What was earned before it is forgotten, what was earned after it counts."""
    assert SPANS.added("client", packed(120, 0), packed(110, 5), 2) == packed(120, 0)
    assert SPANS.added("client", packed(100, 0), packed(110, 5), 2) == packed(110, 2)
    assert SPANS.added("client", packed(100, 0), packed(110, 5), 0) == packed(100, 0)
