"""Replay on an engine: the verdicts of the embedded store, and nothing that stays."""

import json
import os
import random
import signal
import subprocess

import pytest

from conftest import FASTGREY
from shared import redis_server
from shared.redis_server import wait_until
from stateful.test_replay import HEADER, SETTINGS, assignments, made_up

REAL = {name: SETTINGS[name] for name in ("defaults", "short lives", "learning")}
MADE_UP = {name: SETTINGS[name] for name in ("names trusted", "eager")}


@pytest.fixture
def url(make_engine):
    if make_engine.url is None:
        pytest.skip("that is what the engines are compared with")
    return make_engine.url


def replayed(run_fastgrey, file, settings, *options):
    """What replay prints, a row a line."""
    done = run_fastgrey("replay", str(file), "--jsonl", *assignments(settings), *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("settings", REAL.values(), ids=REAL)
def test_real_envelopes(run_fastgrey, envelopes, url, tmp_path, settings):
    """Other rows for every kind of settings, so that all have their turn and none costs all."""
    rows = envelopes.read_bytes().splitlines(keepends=True)
    first = random.Random(str(settings)).randrange(len(rows) // 2)
    file = tmp_path / "envelopes.tsv"
    file.write_bytes(rows[0] + b"".join(rows[1:] if settings == {} else rows[1 + first:400 + first]))
    ours = replayed(run_fastgrey, file, settings, "--engine", url)
    assert ours == replayed(run_fastgrey, file, settings)
    assert len(ours) > 300


@pytest.mark.parametrize("settings", MADE_UP.values(), ids=MADE_UP)
def test_made_up_envelopes(run_fastgrey, tmp_path, url, settings):
    file = tmp_path / "envelopes.tsv"
    file.write_bytes(HEADER + b"".join(made_up(str(settings), 400)))
    ours = replayed(run_fastgrey, file, settings, "--engine", url)
    assert ours == replayed(run_fastgrey, file, settings)
    assert len({json.loads(line)["reason"] for line in ours}) >= 4


@pytest.fixture(scope="module")
def server():
    with redis_server.server() as server:
        yield server


def keys(server):
    with server.client() as client:
        return client.keys("*")


def test_nothing_stays(run_fastgrey, tmp_path, server):
    server.ask("SET", "{fastgrey}:secret", "of the store that mail uses")
    try:
        file = tmp_path / "envelopes.tsv"
        file.write_bytes(HEADER + b"".join(made_up("all", 100)))
        assert len(replayed(run_fastgrey, file, {}, "--engine", server.url)) == 100
        assert keys(server) == [b"{fastgrey}:secret"]
    finally:
        server.ask("DEL", "{fastgrey}:secret")


def halfway(server, stdout=subprocess.DEVNULL):
    """A replay that has decided some rows and waits for more."""
    running = subprocess.Popen([FASTGREY, "replay", "-", "--jsonl", "--engine", server.url], stdin=subprocess.PIPE,
                               stdout=stdout, stderr=subprocess.PIPE, env={"PATH": os.environ["PATH"]})
    try:
        # More than Python reads at once, less than a pipe holds.
        running.stdin.write(HEADER + b"".join(made_up("half", 600)))
        running.stdin.flush()
        wait_until(lambda: len(keys(server)) > 10, "records of the replay")
        return running
    except BaseException:
        running.kill()
        running.communicate()
        raise


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_nothing_stays_of_one_that_was_ended(server, ending):
    running = halfway(server)
    running.send_signal(ending)
    _, said = running.communicate(timeout=redis_server.PATIENCE)
    assert running.returncode != 0
    assert b"Traceback" not in said
    assert keys(server) == []


def test_what_stays_of_one_that_was_killed_expires(server):
    running = halfway(server)
    running.kill()
    running.communicate(timeout=redis_server.PATIENCE)
    with server.client() as client:
        left = client.keys("*")
        assert left
        # Nor earlier: a record with a minute left in recorded mail may be asked for an hour later.
        assert all(80_000 < client.ttl(key) <= 86_400 for key in left)
        client.delete(*left)


def test_an_engine_that_goes_away_ends_it_with_a_line(tmp_path):
    with redis_server.server() as server:
        running = halfway(server, subprocess.PIPE)
        server.kill()
        rows, said = running.communicate(b"".join(made_up("more", 600)), timeout=redis_server.PATIENCE)
        assert running.returncode == 1
        lines = said.decode().splitlines()
        assert len(lines) == 1 and "see whether it runs" in lines[0]
        # No verdict of a decision without the engine: clients that cannot be read are an error everywhere.
        assert rows.count(b'"reason"') < 1000


@pytest.mark.parametrize(("options", "says"), [
    (["--engine", "mysql://x"], "no engine is called 'mysql'"),
    (["--engine", "valkey://127.0.0.1:1"], "Connection refused"),
    (["--engine", "valkey://host", "--store", "somewhere"], "two places for records"),
    (["--password-file", "file"], "goes with --engine"),
])
def test_what_cannot_be(run_fastgrey, tmp_path, options, says):
    file = tmp_path / "envelopes.tsv"
    file.write_bytes(HEADER)
    done = run_fastgrey("replay", str(file), *options)
    assert done.returncode in (1, 2)
    assert says in done.stderr and "Traceback" not in done.stderr
