"""The library of crash/fault.c, built, and what makes a real command start under it."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "crash" / "fault.c"

# STORE NUMBER CODE LOG WORD ...: the calls of a command count, and not those of its children.
COMMAND = """
import ctypes, os, sys
store, number, code, log, *sys.argv = sys.argv[1:]
library = ctypes.CDLL(None)
from fastgrey.cli.main import main
os.register_at_fork(after_in_child=lambda: library.fault_begin(b"", 0, 0, 0, -1))
descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if log else -1
library.fault_begin(os.fsencode(store), int(number), int(code), 0, descriptor)
main()
"""


def build(target):
    """Compile the library; its path."""
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", target, SOURCE, "-ldl"], check=True)
    return target
