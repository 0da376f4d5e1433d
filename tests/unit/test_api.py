"""The Python API: verdicts, sharing, forks, threads, types."""

import os
import subprocess
import sys
import threading

import pytest

import fastgrey
from fastgrey import Verdict

REQUEST = {"client": "192.0.2.1", "sender": "a@example.org", "recipient": "b@example.net"}


def test_a_stranger_s_way(make_store):
    with fastgrey.open(make_store()) as store:
        first = store.check(**REQUEST, now=1000)
        assert first == Verdict("defer", "new", 300, None, first.key)
        assert len(first.key) == 12
        assert store.check(**REQUEST, now=1100)[:3] == ("defer", "early", 200)
        assert store.check(**REQUEST, now=1300)[:3] == ("accept", "retry", 0)
        assert store.check(**REQUEST, now=1300)[:3] == ("accept", "known-domain", 0)


def test_text_and_bytes_are_the_same(make_store):
    with fastgrey.open(make_store()) as store:
        store.check(**REQUEST, now=1000)
        assert store.check(**{name: text.encode() for name, text in REQUEST.items()}, now=1001).reason == "early"


@pytest.mark.parametrize("name", ["client", "sender", "recipient", "client_name"])
@pytest.mark.parametrize("value", [5, 1.5, object(), ["a"]])
def test_other_types_are_refused(make_store, name, value):
    with fastgrey.open(make_store()) as store, pytest.raises(TypeError, match=f"{name} must be str or bytes"):
        store.check(**REQUEST | {name: value})


@pytest.mark.parametrize(("wrong", "what"), [
    ({"client": "x"}, "no IP address"), ({"sender": "a" * 1001}, "the sender"), ({"recipient": b"\0"}, "the recipient"),
    ({"now": -1}, "before 1970"), ({"now": 1 << 40}, "after the year 36000"),
])
@pytest.mark.parametrize(("on_error", "action"), [("accept", "accept"), ("defer", "defer")])
def test_bad_input_is_a_verdict(make_store, wrong, what, on_error, action):
    with fastgrey.open(make_store(f"on_error={on_error}")) as store:
        verdict = store.check(**REQUEST | wrong)
        assert verdict[:3] == (action, "error", 0)
        assert what in verdict.cause


def test_error_in_learn_mode_is_accepted(make_store):
    with fastgrey.open(make_store("on_error=defer", "mode=learn")) as store:
        verdict = store.check(**REQUEST | {"client": "x"})
        assert verdict[:3] == ("accept", "learn", 0)
        assert "no IP address" in verdict.cause


@pytest.mark.parametrize(("setting", "trusted", "known"), [
    ("true", None, True), ("false", None, False), ("true", False, False), ("false", True, True),
])
def test_name_is_trusted_as_told_else_as_set(make_store, setting, trusted, known):
    with fastgrey.open(make_store(f"trust_client_name={setting}", "pool_hops=0", "allow_client_after=0")) as store:
        for now in (0, 300):
            store.check(**REQUEST, client_name="mx1.pool.example", name_trusted=trusted, now=now)
        other = store.check(**REQUEST | {"client": "203.0.113.9"}, client_name="mx2.pool.example", name_trusted=trusted,
                            now=301)
        assert other.reason == ("known-domain" if known else "new")


def test_settings_take_effect_in_open_stores(make_store, run_fastgrey):
    with fastgrey.open(make_store()) as store:
        store.check(**REQUEST, now=1000)
        assert run_fastgrey("init", "--set", "delay=10s").returncode == 0
        assert store.check(**REQUEST, now=1005)[:3] == ("defer", "early", 5)


def test_opened_twice_is_one_store(make_store, path):
    make_store()
    first = fastgrey.open(path)
    second = fastgrey.open(path)
    first.check(**REQUEST)
    first.close()
    assert second.check(**REQUEST).reason == "early"
    second.close()
    with pytest.raises(fastgrey.FastgreyError, match="is closed"):
        second.check(**REQUEST)
    with fastgrey.open(path) as third:
        assert third.check(**REQUEST).reason == "early"


def test_no_store(path):
    with pytest.raises(fastgrey.StoreError, match="fastgrey init"):
        fastgrey.open(path)
    path.mkdir()
    with pytest.raises(fastgrey.StoreError, match="there is no store"):
        fastgrey.open(path)


def test_store_from_the_environment(make_store, path, monkeypatch):
    make_store()
    monkeypatch.setenv("FASTGREY_STORE", str(path))
    with fastgrey.open() as store:
        assert store.path == str(path)


FORK = """
import os, sys, fastgrey
request = dict(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
store = fastgrey.open(sys.argv[1])
store.check(**request)
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        try:
            store.check(**request)
        except fastgrey.ForkedError as error:
            assert "open it anew" in str(error), error
        else:
            os._exit(1)
        try:
            with fastgrey.open(sys.argv[1]) as own:
                assert own is not store
                assert own.check(**request).reason == "early"
            del store
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(2)
        os._exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert codes == [0] * 4, codes
assert store.check(**request).reason == "early"
"""


def test_fork(make_store, path):
    """A store carried over a fork refuses by name; a worker that opens its own works; the parent's goes on."""
    make_store()
    done = subprocess.run([sys.executable, "-c", FORK, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_share_a_store(make_store):
    with fastgrey.open(make_store("pool_hops=0")) as store:
        reasons = []

        def work(number):
            for step in range(200):
                reasons.append(store.check(client="192.0.2.1", sender=f"a@{number}-{step}.example",
                                           recipient="b@example.net").reason)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reasons == ["new"] * 1600
        assert store.counters()["verdicts"] == {"defer new": 1600}


def test_dry_run_writes_nothing(make_store, path, pending_path):
    with fastgrey.open(make_store()) as store:
        before = store.counters()
        for _ in range(3):
            assert store.check(**REQUEST, dry_run=True).reason == "new"
        assert store.partitions() == []
        assert store.counters() == before
        assert not pending_path.exists()


def test_keys_differ_between_stores(tmp_path):
    """The secret is the store's own: the same triplet has another key elsewhere, and no address is on disk."""
    keys = set()
    for name in ("one", "two"):
        fastgrey.create(tmp_path / name)
        with fastgrey.open(tmp_path / name) as store:
            keys.add(store.check(**REQUEST).key)
        for file in (tmp_path / name).rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert not any(text.encode() in content for text in (*REQUEST.values(), "example"))
    assert len(keys) == 2


def test_stub_is_true():
    """mypy's stubtest compares the stub with the extension, and mypy checks the package strictly."""
    environment = os.environ | {"MYPY_CACHE_DIR": os.devnull}
    for command in (["mypy.stubtest", "fastgrey._core", "--ignore-missing-stub", "--ignore-positional-only",
                     "--ignore-disjoint-bases"],
                    ["mypy", "--strict", "-p", "fastgrey"]):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
