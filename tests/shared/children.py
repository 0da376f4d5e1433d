"""Processes of a test that run a piece of Python with the tests' own modules at hand."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent


def begin(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start it; sys.argv[1:] are the arguments, its standard output a pipe."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(TESTS)})


def end(process: subprocess.Popen[bytes], kill: bool = False) -> int:
    """Kill it, or wait for its end; its exit status."""
    if kill:
        process.kill()
    # What it did not read while it ended would be written now.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    status = process.wait(timeout=300)
    process.stdout.close()
    return status
