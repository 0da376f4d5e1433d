"""Run a command as on a terminal, and see what it shows there."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from conftest import FASTGREY


def on_terminal(arguments, path, stream="stderr", width=100, height=50, status=0, **environment):
    """Run a command with a terminal as one of its streams, which ends with this status; what it wrote there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
    environment = {"FASTGREY_STORE": str(path), "TERM": "xterm", "PATH": os.environ["PATH"], **environment}
    process = subprocess.Popen([FASTGREY, *arguments], env=environment,
                               **({"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {stream: slave}))
    os.close(slave)
    text = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                text += os.read(master, 65536)
            except OSError:
                break
        elif process.poll() is not None:
            break
    os.close(master)
    assert process.wait(60) == status
    return text.decode()
