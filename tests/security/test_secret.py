"""The secret of the keys: drawn by the kernel, another one for every store, and said by nothing."""

import subprocess

from conftest import FASTGREY
from fastgrey import _core, directory
from machine import strace


def secret_of(store):
    with _core.Generation(str(store / directory.generation_name(directory.current_number(store)))) as generation:
        return generation.head()["secret"]


def shown(secret):
    """How it could be said: as it is, in hexadecimal digits, as numbers; a part of it is enough."""
    piece = secret[16:24]
    return [piece, piece.hex().encode(), repr(piece)[2:-1].encode(), str(int.from_bytes(piece, "little")).encode(),
            ", ".join(map(str, piece)).encode()]


def test_drawn_anew(make_store, tmp_path):
    import fastgrey

    first = secret_of(make_store())
    fastgrey.create(tmp_path / "other")
    second = secret_of(tmp_path / "other")
    assert len(first) == len(second) == 192 and first != second
    assert len(set(first)) > 90


def test_drawn_by_getrandom(tmp_path):
    """Which waits until the kernel has random numbers, where /dev/urandom would give others (random(7))."""
    log = tmp_path / "trace"
    subprocess.run([strace(), "-f", "-e", "trace=getrandom", "-o", log, FASTGREY, "init", "--store",
                    tmp_path / "store"], check=True, capture_output=True)
    calls = [line for line in log.read_text().splitlines() if ", 192, " in line]
    assert len(calls) == 1 and calls[0].endswith("= 192") and ", 0)" in calls[0], calls


def test_nothing_says_it(make_store, run_hook, run_fastgrey, tmp_path):
    store = make_store()
    secret = secret_of(store)
    run_hook()
    run_fastgrey("pass", "192.0.2.1", "known@example.org", "b@example.net", check=True)
    key = run_hook(sender="known@example.org").line.split("key=")[1].split()[0]
    said = run_hook().line.encode()
    for words in (["doctor", "--json"], ["verify", "--json"], ["stats", "--json"], ["stats", "--prometheus"],
                  ["list", "--json"],                   ["list", "triplets", "--json"], ["show", key, "--json"], ["config", "show"],
                  ["compact", "--dry-run", "--json"],                   ["explain", "192.0.2.1", "a@example.org", "b@example.net", "--json"], ["backup", str(tmp_path / "b")],
                  ["rollback", "--dry-run"], ["compact", "--json"], ["verify", "--json"]):
        done = run_fastgrey(*words)
        said += done.stdout.encode() + done.stderr.encode()
    for form in shown(secret):
        assert form not in said
    for name in ("manifest", "compaction.status", "stats"):
        for file in store.rglob(name):
            assert not [form for form in shown(secret) if form in file.read_bytes()], file
