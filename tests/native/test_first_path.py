"""The main job, end to end, with the real clock: a stranger is deferred, comes back in time and passes."""

import time


def test_stranger_waits_and_passes(make_store, run_hook):
    make_store("delay=2s")
    first = run_hook()
    assert (first.status, first.words) == (111, ["defer", "new"])
    assert " wait=2 " in first.line
    early = run_hook()
    assert (early.status, early.words) == (111, ["defer", "early"])
    time.sleep(2.1)
    retry = run_hook()
    assert (retry.status, retry.words) == (0, ["accept", "retry"])
    second_message = run_hook(recipient="another@example.net")
    assert (second_message.status, second_message.words) == (0, ["accept", "known-domain"])
