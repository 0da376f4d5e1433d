"""The real daemontools, runit and s6, each with one service directory."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from serving import until

SECONDS = 60

DAEMONTOOLS, RUNIT, S6 = "daemontools", "runit", "s6"
START = {
    DAEMONTOOLS: ["svscan", "SCAN"],
    RUNIT: ["runsv", "SCAN/NAME"],
    S6: ["s6-svscan", "SCAN"],
}
# The supervisors' own ways, in order; svscan would start supervise again.
STOP = {
    DAEMONTOOLS: [signal.SIGTERM, ["svc", "-dx", "SCAN/NAME", "SCAN/NAME/log"]],
    RUNIT: [["sv", "-w", "30", "exit", "SCAN/NAME"]],
    S6: [["s6-svc", "-wD", "-T", "30000", "-d", "SCAN/NAME"], ["s6-svscanctl", "-t", "SCAN"]],
}
RESTART = {
    DAEMONTOOLS: ["svc", "-t", "SCAN/NAME"],
    RUNIT: ["sv", "term", "SCAN/NAME"],
    S6: ["s6-svc", "-t", "SCAN/NAME"],
}


def marked(mark):
    """The processes that have this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


class Supervised:
    """A service directory below a folder of its own, under one of the supervisors. environment: what that is given, beside
    what marks its processes."""

    def __init__(self, kind, folder, environment):
        self.kind = kind
        self.folder = folder
        self.mark = f"FASTGREY_TEST={folder}"
        self.environment = {"PATH": os.environ["PATH"], "FASTGREY_TEST": str(folder)} | environment
        self.running = []

    def words(self, command):
        return [word.replace("SCAN", str(self.folder.parent)).replace("NAME", self.folder.name) for word in command]

    def call(self, command):
        subprocess.run(self.words(command), env=self.environment, check=True, timeout=SECONDS)

    def start(self, **more):
        assert shutil.which(START[self.kind][0]), f"{START[self.kind][0]} is not installed"
        self.running.append(subprocess.Popen(self.words(START[self.kind]), env=self.environment | more,
                                             stderr=subprocess.DEVNULL))

    def stop(self):
        for step in STOP[self.kind]:
            if isinstance(step, signal.Signals):
                self.running[0].send_signal(step)
                self.running[0].wait(SECONDS)
            else:
                self.call(step)
        self.running[0].wait(SECONDS)

    def processes(self):
        return marked(self.mark)

    def end(self):
        """End all of it whatever happened: first those that would start others again."""
        for number in sorted(self.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for process in self.running:
            process.wait(SECONDS)
        until(lambda: not [os.kill(number, signal.SIGKILL) for number in self.processes()], "all processes ended")


def see_shipped(place, defaults, variable, value):
    """The scripts at place can be copied and run; these are their defaults, and the one variable of their envdir."""
    for script in (place / "run", place / "log" / "run"):
        assert os.access(script, os.X_OK)
        subprocess.run(["sh", "-n", script], check=True)
    text = (place / "run").read_text()
    for default in defaults:
        assert f"${{{default}}}" in text
    assert os.listdir(place / "env") == [variable]
    assert (place / "env" / variable).read_text() == f"{value}\n"
