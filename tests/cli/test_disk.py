"""A pending_size that goes by the disk: computed when it is put in force, stored and shown as a number."""

import json

import pytest

import fastgrey
from fastgrey import disk, replay, settings
from fastgrey.policy import Policy
from machine import needs_root, small_disk

G = 1 << 30


@pytest.mark.parametrize(("size", "pending"), [
    (0, 16 << 20), (1 << 20, 16 << 20), (G, 32 << 20), (2 * G - 1, 32 << 20), (2 * G, 64 << 20), (20 * G, G // 2),
    (40 * G, G), (127 * G, 2 * G), (128 * G, 4 * G), (10_000 * G, 4 * G),
])
def test_share(size, pending):
    assert disk.pending_size(size) == pending
    assert settings.BY_NAME["pending_size"].least <= pending <= settings.BY_NAME["pending_size"].most


@needs_root
def test_by_the_disk_that_the_store_is_on(tmp_path, config, run_fastgrey):
    """Unset, set, set to go by the disk again, and after the disk became larger; in the diff as in force."""
    def shown():
        return json.loads(run_fastgrey("stats", "--json", "--store", store).stdout)

    def put(text):
        config(text)
        foretold = run_fastgrey("apply", "--dry-run", "--store", store).stdout
        assert run_fastgrey("apply", "--store", store).returncode == 0
        return [line for line in foretold.splitlines() if "pending_size" in line]

    with small_disk(tmp_path / "disk", G) as place:
        store = str(place / "not" / "yet")
        dry = run_fastgrey("init", "--dry-run", "--json", "--store", store)
        assert json.loads(dry.stdout)["settings"]["pending_size"] == "32M"
        run_fastgrey("init", "--store", store)
        assert (shown()["pending_size"], shown()["settings"]["pending_size"]) == (32 << 20, "32M")
        assert "0 B of at most 32.0 MiB" in run_fastgrey("stats", "--store", store).stdout
        assert "0 B of at most 32.0 MiB" in run_fastgrey("doctor", "--store", store).stdout
        assert f'fastgrey_pending_limit_bytes{{store="{store}"}} {32 << 20}\n' in run_fastgrey(
            "stats", "--prometheus", "--store", store).stdout
        assert "32M -> 5M" in run_fastgrey("init", "--store", store, "--set", "pending_size=5M").stdout
        assert "5M -> 32M" in run_fastgrey("init", "--store", store, "--set", "pending_size=disk").stdout
        assert put('pending_size = "8M"') == ["-pending_size = 32M", "+pending_size = 8M"]
        assert shown()["settings"]["pending_size"] == "8M"
        assert put('pending_size = "disk"') == ["-pending_size = 8M", "+pending_size = 32M"]
        assert put("") == []
        assert "nothing to change" in run_fastgrey("apply", "--store", store).stdout
        assert json.loads(run_fastgrey("config", "show", "--json").stdout)["settings"]["pending_size"] == "disk"


def test_a_store_never_says_disk(make_store, path):
    """The hook looks at the number as it is."""
    make_store("pending_size=disk")
    with fastgrey.open(path) as store:
        assert settings.by_name(store.head()["settings"])["pending_size"] >= disk.LEAST


@pytest.mark.parametrize(("given", "expected"), [({}, 1 << 42), ({"pending_size": 5 << 20}, 5 << 20)])
def test_a_replay_has_all_the_room_there_can_be(given, expected):
    """Or else a small disk would change its verdicts."""
    with replay.replay_store(None, given) as store:
        assert settings.by_name(store.head()["settings"])["pending_size"] == expected
    rules = Policy(settings.defaults() | given)
    with replay.replay_store(None, {}, rules) as store:
        assert settings.by_name(store.head()["settings"])["pending_size"] == expected
