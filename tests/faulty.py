"""Compactions that are killed, or whose calls fail, at one system call after the other: run with fault.c preloaded.

    faulty.py TEMPLATE WORK HOOK ERRNO LASTING

For N = 1, 2, ... copies the store TEMPLATE to WORK/N and compacts it in a child, in which the N-th call that changes
the store fails with ERRNO, or ends it by SIGKILL where that is 0. LASTING: 1 for all later ones that take room too, 2
for all later ones. Stops at the first N that is not reached. Between copy and comparison a hook earns something. Prints
one JSON object for each: n, status (0 done, 1 refused with a message, -9 killed), message, earned (whether the hook was
told so), and the calls made.
"""

import ctypes
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fastgrey import compaction
from fastgrey.errors import FastgreyError

NOT_REACHED = 42


def earn(hook, store, note):
    """A stranger comes, and comes back: the store has no delay."""
    for _ in range(2):
        done = subprocess.run([hook, "meanwhile@earned.example", "b@example.net"], stderr=subprocess.PIPE,
                              env={"FASTGREY_STORE": str(store), "TCPREMOTEIP": "203.0.113.9"}, check=False)
    note.write_text(json.dumps({"earned": b"accept retry" in done.stderr}))


def compact(library, store, number, arguments, note):
    """In the child."""
    hook, error, lasting = arguments
    earned = iter((None,))

    def progress(step, done, total):
        if step == "compare":
            for _ in earned:
                earn(hook, store, note)

    log = os.open(f"{store}.calls", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    library.fault_begin(os.fsencode(store), number, int(error), int(lasting), log)
    try:
        compaction.compact(str(store), progress=progress)
    except FastgreyError as refused:
        Path(f"{store}.message").write_text(str(refused))
        return 1
    return 0 if library.fault_count() >= number else NOT_REACHED


def main(template, work, *arguments):
    library = ctypes.CDLL(None)
    for number in itertools.count(1):
        store = Path(work) / str(number)
        shutil.copytree(template, store, symlinks=True)
        note, message = Path(f"{store}.note"), Path(f"{store}.message")
        child = os.fork()
        if not child:
            status = 70
            try:
                status = compact(library, store, number, arguments, note)
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"n": number, "status": status,
                          "message": message.read_text() if message.exists() else None,
                          "earned": note.exists() and json.loads(note.read_text())["earned"],
                          "calls": Path(f"{store}.calls").read_text().splitlines()}), flush=True)
        if status == NOT_REACHED:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
