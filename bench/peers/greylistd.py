"""greylistd: Python, one process, tables in memory that are written to a file at intervals."""

import os
import subprocess
from collections.abc import Callable

from peers.peer import DELAY, Peer, me
from peers.questions import Request

SEED = {"PYTHONHASHSEED": "0"}
# A line `LAST FIRST TRIPLET` each, into its two files, by the hash that the daemon itself will come to.
FILL = """
import sys
with open(sys.argv[1], "w") as states, open(sys.argv[2], "w") as triplets:
    states.write("[white]\\n")
    for line in sys.stdin:
        last, first, triplet = line.rstrip().split(" ", 2)
        key = hash(triplet)
        states.write(f"{key} = {last} {first} 2\\n")
        triplets.write(f"{key} = {triplet}\\n")
    states.write(f"[statistics]\\nstart = {first}\\n")
"""


class Greylistd(Peer):
    """greylistd on a socket of its directory."""

    name = "greylistd"
    packages = ("greylistd",)
    way = "greylistd"
    differs = ("greylistd: a daemon of one process in Python with its tables in memory, asked over a connection for "
               "each question, as its protocol has it; what came since it last saved (every 10 minutes) is lost with "
               "it. Started with a fixed PYTHONHASHSEED, without which it forgets everything at every start")
    expires = ("goes through its tables and writes both its files anew, every 10 minutes, in the process that answers, "
               "at a moment when nobody is asking")
    lifetime = 60 * 86400

    @property
    def where(self) -> str:
        return str(self.directory / "socket")

    def fill(self, entries: int, expiring: int, request: Callable[[int], Request]) -> None:
        lines = []
        for number in range(entries + expiring):
            last = self.last_seen(number, expiring)
            lines.append(f"{last} {last - 2 * DELAY} {' '.join(request(number))}\n")
        states, triplets = self._files
        subprocess.run(["/usr/bin/python3", "-c", FILL, states, triplets], input="".join(lines), text=True, check=True,
                       env=SEED)
        self._filled = os.stat(triplets).st_ino

    @property
    def _files(self) -> tuple[str, str]:
        return str(self.directory / "states"), str(self.directory / "triplets")

    def command(self) -> tuple[list[str], dict[str, str]]:
        states, triplets = self._files
        file = self.directory / "config"
        file.write_text(f"[timeouts]\nretryMin = {DELAY}\nretryMax = 28800\nexpire = {self.lifetime}\n"
                        f"[socket]\npath = {self.where}\nmode = 0600\nowner = {':'.join(me())}\n"
                        f"[data]\nupdate = 600\nstatefile = {states}\ntripletfile = {triplets}\n")
        return ["greylistd", str(file)], SEED

    def expired(self) -> bool:
        # The second file to be written; it is, because a stranger was asked about.
        return os.stat(self._files[1]).st_ino != self._filled

    def remaining(self) -> int:
        with open(self._files[0]) as states:
            section = "".join(states).partition("[white]\n")[2].partition("[")[0]
        return section.count(" = ")
