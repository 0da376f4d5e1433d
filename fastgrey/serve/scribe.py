"""The scribe of a worker: decides what ends in a flush, so that the worker does not wait for the disk.

A process of its own, started afresh: an LMDB environment is opened once in a process and crosses no fork. Its socket to
the worker is standard input; when that ends, so does the scribe.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys

from fastgrey import directory
from fastgrey._core import leave_on_damage, run_errands
from fastgrey.errors import FastgreyError

from .log import say


def begin(path: str, form: str = "text") -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start one for the store at path: the worker's end of the socket, and the process. form: the option log."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # -P: nothing is imported from the directory where the server happens to have been started.
        process = subprocess.Popen([sys.executable, "-P", "-m", "fastgrey.serve.scribe", path, form],
                                   stdin=its.fileno(), stdout=subprocess.DEVNULL)
    except OSError:
        ours.close()
        raise
    finally:
        its.close()
    ours.setblocking(False)
    return ours, process


def main() -> int:
    """Serve the worker at standard input."""
    # The worker ends it, who may have answers to wait for; a signal to all processes of the server must not.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    leave_on_damage()
    path, form = sys.argv[1:]
    try:
        with directory.open_store(path) as store:
            # Only a worker that was killed does not wait for the answer.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                run_errands(store, 0)
    except FastgreyError as error:
        say(str(error), form=form)
        return 1
    except OSError as error:
        say(f"the scribe of process {os.getppid()}: {error.strerror}", form=form)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
