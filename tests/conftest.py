"""Fixtures that more than one kind of test uses."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastgrey
from fastgrey import directory

BIN = Path(sys.executable).parent
HOOK = BIN / "qmail-checkenv"
FASTGREY = BIN / "fastgrey"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def no_outer_environment(monkeypatch):
    """What the tests' own environment says of mail must not reach the programs under test."""
    for name in ("FASTGREY_STORE", "FASTGREY_CONFIG", "TCPREMOTEIP", "TCP6REMOTEIP", "TCPREMOTEHOST", "RELAYCLIENT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def path(tmp_path):
    """Where a test makes its store."""
    return tmp_path / "store"


@pytest.fixture
def make_store(path):
    """Make the store of the test, with settings as the command line takes them."""

    def make(*assignments, group=None):
        fastgrey.create(path, fastgrey.settings.parse_assignments(assignments), group)
        return path

    return make


@pytest.fixture
def run_hook(path, tmp_path):
    """Run the real executable; gives status, line (standard error) and its first words."""

    def run(sender="a@example.org", recipient="b@example.net", client="192.0.2.1", env=None, argv=None, **options):
        environment = {"FASTGREY_STORE": str(path)}
        if client is not None:
            environment["TCPREMOTEIP"] = client
        environment |= env or {}
        # Another user may have no way into the directory of the checkout.
        hook = shutil.copy(HOOK, tmp_path) if "user" in options else HOOK
        done = subprocess.run(
            [hook, sender, recipient] if argv is None else [hook, *argv],
            env=environment, capture_output=True, timeout=60, **options,
        )
        assert done.stdout == b""
        line = done.stderr.decode("ascii")
        return SimpleNamespace(status=done.returncode, line=line, words=line.split()[1:3])

    return run


@pytest.fixture
def config(tmp_path):
    """Write the configuration of the test, and any other files beside it by name; gives the path of the main one."""

    def write(text, **files):
        folder = tmp_path / "etc"
        for name, content in {"fastgrey.toml": text, **files}.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return folder / "fastgrey.toml"

    return write


@pytest.fixture
def run_fastgrey(path, tmp_path):
    """Run the real command; gives the finished process, its texts decoded."""

    def run(*arguments, env=None, **options):
        environment = {"PATH": os.environ["PATH"], "FASTGREY_STORE": str(path), "LC_ALL": "C.UTF-8",
                       "FASTGREY_CONFIG": str(tmp_path / "etc" / "fastgrey.toml")} | (env or {})
        return subprocess.run([FASTGREY, *arguments], env=environment, capture_output=True, text=True, timeout=120,
                              **options)

    return run


@pytest.fixture
def pending_path(path):
    """Where the strangers of this boot are."""
    return path / f"pending.{directory.boot_id()}"


@pytest.fixture
def envelopes():
    """The real envelopes beside the project; without them the test is skipped."""
    name = SHARED / "data" / "envelopes.tsv"
    if not name.exists():
        pytest.skip(f"no {name}")
    return name


@pytest.fixture
def in_memory():
    """Put the store of the test where no disk can stall for seconds: the test is about the crowd alone."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    with tempfile.TemporaryDirectory(prefix="fastgrey-test-", dir="/dev/shm") as place:
        yield Path(place)


HOLDER = """
import lmdb, sys
with lmdb.open(sys.argv[1], max_dbs=16).begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def write_lock_held(environment):
    """A process that holds the write lock of an LMDB environment, killed at the end where it still runs."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(environment)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        yield holder
    finally:
        if holder.returncode is None:
            holder.kill()
            holder.communicate()
