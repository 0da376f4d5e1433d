"""The real tcpserver around a program, as it runs qmail-smtpd: user and group, rules, the log on standard error."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from machine import NOBODY, tool

# tcpserver leaves a process no other group.
GROUP = 12_345


def wait_until(condition, seconds=60):
    """Wait for something to come true; False when it has not by then."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def compiled(rules, place):
    """Rules as tcpserver -x takes them."""
    cdb = place / "rules.cdb"
    subprocess.run([tool("tcprules"), cdb, place / "rules.tmp"], input=rules.encode(), check=True)
    cdb.chmod(0o644)
    return cdb


def processes(session):
    """What runs of a session but its leader, by process id."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(number) == session and int(entry.name) != session and state != "Z":
                found.append(int(entry.name))
    return found


def end_session(leader):
    """End the leader of a session, a Popen, wait for what it started to end by itself; gives what had to be killed."""
    leader.terminate()
    leader.communicate(timeout=60)
    wait_until(lambda: not processes(leader.pid))
    left = processes(leader.pid)
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return left


class TcpServer:
    """A tcpserver on a port of its own, which runs a program for each connection, in the directory home."""

    def __init__(self, program, home, environment, stderr, address="127.0.0.1", rules=None, limit=40):
        self.address = address
        options = ["-1", "-H", "-R", "-lmx.example", f"-c{limit}", f"-b{limit}"]
        if os.geteuid() == 0:
            options += [f"-u{NOBODY}", f"-g{GROUP}"]
        if rules is not None:
            options += ["-x", compiled(rules, home)]
        # In a session of their own, so that whatever comes of them can be found.
        self._process = subprocess.Popen([tool("tcpserver"), *options, address, "0", program], cwd=home, stderr=stderr,
                                         env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         start_new_session=True)
        port = self._process.stdout.readline()
        if not port:
            self._process.communicate()
            raise AssertionError(f"tcpserver at {address} did not start; its log says why")
        self.port = int(port)

    def processes(self):
        """What runs of all that tcpserver ever started, by process id."""
        return processes(self._process.pid)

    def end(self):
        """End tcpserver, wait for its sessions to end by themselves; gives what did not and had to be killed."""
        return end_session(self._process)
