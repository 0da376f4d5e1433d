"""A rollback or restore of copies of a store, one of whose calls that change the store fails or is the last: run with
fault.c preloaded.

    succeeding.py TEMPLATE WORK FILE ERRNO NUMBER ...

For each NUMBER copies the store TEMPLATE to WORK/NUMBER and goes back there, or with FILE restores it, in a child: at
that call it is killed where ERRNO is 0, else the call fails. Prints one JSON object for each: n, status (0 done, 1
refused with a message, -9 killed), message, and the calls made.
"""

import ctypes
import json
import os
import shutil
import sys
from pathlib import Path

from fastgrey import backup, rollback
from fastgrey.errors import FastgreyError


def succeed(library, store, file, number, error):
    """In the child; what it forks is counted with it."""
    log = os.open(f"{store}.calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    library.fault_share()
    library.fault_begin(os.fsencode(store), number, error, 0, log)
    try:
        if file:
            with open(file, "rb") as source:
                backup.restore(str(store), source, file)
        else:
            rollback.rollback(str(store))
    except FastgreyError as refused:
        Path(f"{store}.message").write_text(str(refused))
        return 1
    return 0


def main(template, work, file, error, *numbers):
    library = ctypes.CDLL(None)
    for number in numbers:
        store = Path(work) / number
        shutil.copytree(template, store, symlinks=True)
        child = os.fork()
        if not child:
            status = 70
            try:
                status = succeed(library, store, file, int(number), int(error))
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        message = Path(f"{store}.message")
        print(json.dumps({"n": int(number), "status": status,
                          "message": message.read_text() if message.exists() else None,
                          "calls": Path(f"{store}.calls").read_text().splitlines()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
