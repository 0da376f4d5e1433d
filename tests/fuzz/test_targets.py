"""Fuzz targets on the core: their corpora run under sanitizers with any compiler, and more under clang's libFuzzer."""

import re
import shutil
import subprocess

import pytest

import fuzzing
from effort import times, tried
from fuzz import whole_store
from fuzzing import TARGETS, figures, run

pytestmark = pytest.mark.torture

# What is found of each fault on purpose: an input, and what is said of it.
PLANTED = {b"!a.": "heap-buffer-overflow", b"!u\x01": "signed integer overflow", b"!i.": "violated: this was planted"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return fuzzing.cythonize(tmp_path_factory.mktemp("targets"))


@pytest.fixture(scope="module")
def replay(source):
    """The targets, to run inputs that are there."""
    return fuzzing.build_replay(source.parent, source)


@pytest.fixture(scope="module")
def fuzzer(source):
    """The targets, to make inputs up."""
    if fuzzing.clang() is None:
        pytest.skip("no clang with libFuzzer; Debian: apt-get install clang libclang-rt-14-dev")
    return fuzzing.build_fuzzer(source.parent, source)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """What the target of whole stores damages; in the environment of every target."""
    return {"FUZZ_STORE": str(whole_store.make(tmp_path_factory.mktemp("whole") / "store"))}


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(replay, store, tmp_path, target):
    files = fuzzing.unpack(target, tmp_path)
    done = run(replay, target, *files, env=store)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(files)} inputs\n" in done.stdout
    assert files
    tried(f"fuzz corpus, {target}", inputs=len(files), violations=0)


@pytest.mark.parametrize("content", PLANTED)
def test_replay_sees_faults(replay, tmp_path, content):
    """A build whose sanitizers or invariants are blind would pass everything."""
    (tmp_path / "input").write_bytes(content)
    done = run(replay, "planted", tmp_path / "input")
    assert done.returncode != 0
    assert PLANTED[content] in done.stdout


def test_fuzzer_finds_faults(fuzzer, tmp_path):
    """From nothing, one of each kind; those found before are kept from it."""
    for content, said in PLANTED.items():
        (tmp_path / "input").write_bytes(content)
        done = run(fuzzer, "planted", tmp_path / "input")
        assert done.returncode != 0
        assert said in done.stdout
    done = run(fuzzer, "planted", "-seed=1", "-runs=3000000", f"-artifact_prefix={tmp_path}/")
    assert done.returncode != 0
    assert any(said in done.stdout for said in PLANTED.values())


@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing(fuzzer, store, tmp_path, target):
    """For some seconds, from the corpus on; what it finds wrong is in the report, with the input."""
    fuzzing.unpack(target, tmp_path / "corpus")
    done = run(fuzzer, target, f"-max_total_time={times(1)}", "-timeout=300", "-rss_limit_mb=4000", "-max_len=4096",
               f"-artifact_prefix={tmp_path}/", tmp_path / "corpus", env=store, timeout=600 + 2 * times(1))
    assert done.returncode == 0, done.stdout[-5000:]
    counted = figures(done.stdout)
    assert counted["executions"] >= len(fuzzing.read_corpus(target))
    tried(f"fuzz, {target}", seconds=times(1), **counted)


def test_coverage(fuzzer, source, store, tmp_path):
    """Which lines of the core the corpora reach."""
    if shutil.which("llvm-cov") is None:
        pytest.skip("no llvm-cov; Debian: apt-get install llvm")
    raw = []
    for target in TARGETS:
        raw.append(tmp_path / f"{target}.profraw")
        files = fuzzing.unpack(target, tmp_path / target)
        done = run(fuzzer, target, *files, env=store | {"LLVM_PROFILE_FILE": str(raw[-1])})
        assert done.returncode == 0, done.stdout[-3000:]
        lines = covered(fuzzer, source, tmp_path, raw[-1:])
        tried(f"fuzz coverage, {target}", **share(lines, OWN[target]))
    everything = covered(fuzzer, source, tmp_path, raw)
    tried("fuzz coverage, all", **share(everything, everything))
    assert share(everything, everything)["percent"] > 75, missing(everything, everything)


# The files of the core that a target is for.
OWN = {
    "address": ["address"], "client": ["client"], "envelope": ["envelope", "key"], "pattern": ["pattern"],
    "policy": ["policy", "rules"], "record": ["record", "head", "rings", "partition"], "caller": ["caller"],
    "log": ["log", "text", "verdict"], "reply": ["reply", "manners"], "exchange": ["question"],
    "asked": ["policy_request", "policy_reply"], "table": ["decide", "known", "pending", "passed"],
}


def covered(program, source, folder, profiles):
    """Of each file of the core its lines with code, and whether they ran: {"address": {31: True}}."""
    merged = folder / "merged.profdata"
    subprocess.run(["llvm-profdata", "merge", "-o", merged, *profiles], check=True, capture_output=True)
    shown = subprocess.run(["llvm-cov", "show", f"-instr-profile={merged}", program, source], check=True,
                           capture_output=True, text=True).stdout
    lines = {}
    place = None
    # What clang counts are lines of the C; it says of each piece which line of the core it came from.
    for count, text in re.findall(r"^ *[0-9]+\| *([^|]*)\|(.*)$", shown, re.M):
        if from_core := re.match(r'#line ([0-9]+) "fastgrey/core/(.*)\.pxi"', text):
            place = from_core[2], int(from_core[1])
        elif text.startswith(("#line", "}")):
            place = None
        elif place and count:
            part = lines.setdefault(place[0], {})
            part[place[1]] = part.get(place[1], False) or count != "0"
    return lines


def share(lines, parts):
    """Of the lines of these files, how many ran."""
    there = [ran for part in parts for ran in lines[part].values()]
    return {"lines": len(there), "covered": sum(there), "percent": round(100 * sum(there) / len(there))}


def missing(lines, parts):
    """The lines that did not run, for whoever has to find inputs for them."""
    return {part: [number for number, ran in lines[part].items() if not ran] for part in parts}
