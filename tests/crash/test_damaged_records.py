"""Records that LMDB reads well and that hold nonsense: a fault is told, and nothing beyond a record is looked at."""

import struct

import lmdb
import pytest

import fastgrey
import heads
from fastgrey import policy, settings

NAMES = list(settings.BY_NAME)
# Where the settings begin in a head, and the lists and the first pattern's subject in a policy (docs/format.md).
SETTINGS = 264
LISTS = 68
NONSENSE = [("delay", -1), ("retry_window", 1 << 62), ("ipv4_prefix", 33), ("ipv6_prefix", -(1 << 31)),
            ("ipv6_prefix", 129), ("pending_size", 0), ("pending_size", 1 << 43), ("pool_window", -(1 << 63))]


@pytest.mark.parametrize(("name", "number"), NONSENSE)
def test_setting_that_nobody_set(make_store, run_hook, run_fastgrey, name, number):
    path = make_store("on_error=defer")
    heads.overwrite(path / "passed.000001", SETTINGS + 8 * NAMES.index(name), struct.pack("=q", number))
    result = run_hook()
    assert (result.status, result.words) == (111, ["defer", "error"])
    assert "damaged" in result.line
    assert "ask: fastgrey doctor" in result.line
    done = run_fastgrey("list")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "damaged" in done.stderr


def test_settings_at_their_bounds_are_read(make_store, run_hook):
    path = make_store()
    for setting in settings.SETTINGS:
        if setting.kind not in ("flag", "choice"):
            for number in (setting.least, setting.most):
                place = SETTINGS + 8 * NAMES.index(setting.name)
                heads.overwrite(path / "passed.000001", place, struct.pack("=q", number))
                assert run_hook(client="192.0.2.1").words[0] in ("accept", "defer")
                assert "error" not in run_hook(client="192.0.2.1").words


def overwrite_policy(path, change):
    """Change the record of the policy in force by an LMDB that is not the program's own."""
    with lmdb.open(str(path / "passed.000001"), max_dbs=8) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(db=meta, write=True) as txn:
            txn.put(b"policy", change(txn.get(b"policy")))


def test_pattern_of_a_subject_that_no_list_names(make_store, run_hook):
    path = make_store()
    with fastgrey.open(path) as store:
        policy.put(store, {"deny_senders": ["/spam/"]})
    assert run_hook(sender="spam@example.org").words == ["reject", "denied"]
    overwrite_policy(path, lambda record: record[:LISTS] + bytes(4) + record[LISTS + 4:])
    assert run_hook(sender="spam@example.org").words == ["defer", "new"]


def test_text_without_its_end(make_store, run_hook):
    path = make_store()
    with fastgrey.open(path) as store:
        policy.put(store, {"deny_senders": ["*spam*"]})
    overwrite_policy(path, lambda record: record.replace(b"*spam*\0", b"*spam*!"))
    assert run_hook(sender="spam@example.org").words == ["defer", "new"]
