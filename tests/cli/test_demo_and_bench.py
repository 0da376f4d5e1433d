"""The demonstration and the benchmark run, and say what they are for. No time is asserted."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_demo():
    story = run("contrib/demo/demo.py")
    for part in ("first try: never seen, deferred", "too early: still deferred", "in time: accepted", "300 times 451",
                 "what was earned is still there", "accept known-domain 2 ", "defer new 301 "):
        assert part in " ".join(story.split())
    assert re.findall(r"-> (\d{3})", story) == ["451", "451", "250", "250", "250"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_bench():
    report = run("bench/hook.py", "--rounds", "2", "--times", "5", "--known", "20")
    for name in ("known sender", "stranger", "floor of a stranger"):
        assert re.search(rf"^{name} +\d\.\d{{3}} +\d\.\d{{3}}-\d\.\d{{3}} ", report, re.M), report


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_bench_of_rules():
    report = run("bench/rules.py", "--rounds", "2", "--times", "5", "--rules", "300")
    for name in ("known sender, the same store", "stranger, 300 rules", "stranger, 30 expressions"):
        assert re.search(rf"^{name} +\d\.\d{{3}} +\d\.\d{{3}}-\d\.\d{{3}}$", report, re.M), report


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_bench_of_floods():
    report = run("bench/flood.py", "--rounds", "2", "--times", "5", "--strangers", "40000", "--bound", "4M",
                 "--rows", "2000")
    for name in ("stranger, pending full", "known sender, flood", "known sender, the same flood elsewhere"):
        assert re.search(rf"^{name} +\d\.\d{{3}} +\d\.\d{{3}}-\d\.\d{{3}}$", report, re.M), report
    for part in ("40000 strangers in a row", "none not recorded", "of at most 4.0 MiB", "durable commits"):
        assert part in report


def test_bench_of_compactions():
    report = run("bench/compaction.py", "--rounds", "2", "--known", "4000", "--promotions", "30")
    for name in ("compaction, --verify copy", "compaction, --verify full"):
        assert re.search(rf"^{name} +\d+\.\d\d +\d+\.\d\d-\d+\.\d\d ", report, re.M), report
    for part in ("bytes with 4000 entries", "bytes with 2000 after", "peak memory: ", "the write lock was held for"):
        assert part in report
