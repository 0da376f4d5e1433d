"""A store that the session's user cannot use: the answer is as on_error says, the line names cause and remedy."""

import re

import pytest

from machine import needs_root

CODES = {"accept": "250", "defer": "451"}


@pytest.fixture(params=CODES)
def on_error(request):
    """Both values of the setting."""
    return request.param


@pytest.fixture
def assert_answered(serve, path):
    """One check by a server; it must be answered so, in one line that has these words."""

    def check(on_error, *words):
        server = serve()
        assert server.session().mail("a@example.org", "b@example.net") == [CODES[on_error]]
        (line,) = server.log()
        assert re.match(f"fastgrey: {on_error} error (wait=0 )?client=127.0.0.1 sender=a@example.org "
                        r"recipient=b@example.net( key=\w+)?: .+; .+", line), line
        for word in (str(path), *words):
            assert word in line

    return check


def test_no_store(assert_answered):
    assert_answered("accept", "there is no store", "fastgrey init")


@needs_root
def test_store_of_another_group(make_store, assert_answered, on_error):
    """What on_error says is in the store itself, so that accept holds where the store cannot be read."""
    make_store(f"on_error={on_error}")
    assert_answered("accept", "Permission denied", "group")


@needs_root
def test_no_way_to_the_store(make_store, store_group, assert_answered, on_error, path):
    make_store(f"on_error={on_error}", group=store_group)
    path.chmod(0o700)
    assert_answered("accept", "Permission denied")


@needs_root
def test_strangers_part_that_root_made(make_store, store_group, assert_answered, on_error, pending_path):
    make_store(f"on_error={on_error}", group=store_group)
    pending_path.mkdir(mode=0o700)
    assert_answered(on_error, "Permission denied")


def test_damaged_store(make_store, store_group, assert_answered, on_error, path, pending_path):
    make_store(f"on_error={on_error}", group=store_group)
    pending_path.mkdir()
    pending_path.chmod(0o777)
    (pending_path / "data.mdb").write_bytes(b"x" * 100_000)
    (pending_path / "data.mdb").chmod(0o666)
    assert_answered(on_error, "damaged")
