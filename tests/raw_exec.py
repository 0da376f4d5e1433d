"""A process with exactly these arguments and variables, such as no shell makes: none at all, or one twice."""

import subprocess
import sys

SCRIPT = """
import ctypes, os, sys
program, count, *words = [word.encode() for word in sys.argv[1:]]
def vector(items):
    return (ctypes.c_char_p * (len(items) + 1))(*items)
ctypes.CDLL(None).execve(program, vector(words[:int(count)]), vector(words[int(count):]))
"""


def raw_exec(program, argv, environ):
    """Run the program; environ is a list of NAME=VALUE."""
    return subprocess.run([sys.executable, "-c", SCRIPT, program, str(len(argv)), *argv, *environ],
                          capture_output=True, timeout=60)
