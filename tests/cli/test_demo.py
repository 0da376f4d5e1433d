"""The demonstration runs, and says what it is for."""

import re
import subprocess
import sys
from pathlib import Path

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
