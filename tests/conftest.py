"""Fixtures that more than one kind of test uses."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import debian
import effort
import fastgrey
import machine
from fastgrey import directory

BIN = Path(sys.executable).parent
HOOK = BIN / "qmail-checkenv"
FASTGREY = BIN / "fastgrey"
SHARED = Path(__file__).resolve().parents[2] / "shared"
# Mail servers and databases run as users of their own, who need a way to what tests make for them.
os.umask(0o022)


def pytest_report_header():
    """What repeats the tests that try at random."""
    return f"effort: {effort.EFFORT}, drawn with FASTGREY_SEED={effort.SEED}"


@pytest.fixture(autouse=True)
def no_outer_environment(monkeypatch):
    """What the tests' own environment says of mail must not reach the programs under test."""
    for name in ("FASTGREY_STORE", "FASTGREY_CONFIG", "TCPREMOTEIP", "TCP6REMOTEIP", "TCPREMOTEHOST", "RELAYCLIENT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place():
    """A directory of the test into which every user may look."""
    with machine.public_place() as place:
        yield place


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
    """Run the real executable, as name where that is given; gives status, line (standard error) and its first words.

    On standard output it must say what says tells; None for anything, to be found in said.
    """

    def run(sender="a@example.org", recipient="b@example.net", client="192.0.2.1", env=None, argv=None, name=None,
            says=b"", **options):
        environment = {"FASTGREY_STORE": str(path)}
        if client is not None:
            environment["TCPREMOTEIP"] = client
        environment |= env or {}
        # Another user may have no way into the directory of the checkout.
        hook = shutil.copy(HOOK, tmp_path) if "user" in options else HOOK
        done = subprocess.run(
            [hook if name is None else name, *([sender, recipient] if argv is None else argv)], executable=hook,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, **options,
        )
        assert says is None or done.stdout == says
        line = done.stderr.decode("ascii")
        return SimpleNamespace(status=done.returncode, line=line, words=line.split()[1:3], said=done.stdout)

    return run


@pytest.fixture(scope="session")
def debian_package(tmp_path_factory):
    """The files of a Debian package by its name, unpacked once a session."""

    @functools.cache
    def files(name):
        return debian.unpack(name, tmp_path_factory.mktemp(name))

    return files


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


def nothing_said_into(folder, *texts):
    """No file below the folder holds a log line or any of these texts, as a table opened by their descriptor would."""
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert [text for text in (b"fastgrey: ", *texts) if text in content] == [], file


def full_pipe():
    """A pipe that takes nothing more: its ends for reading and for writing."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer

@pytest.fixture
def in_memory():
    """Put the store of the test where no disk can stall for seconds: the test is about the crowd alone."""
    with machine.in_memory() as place:
        yield place


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
