"""postgrey: Perl, one process, BerkeleyDB with a log that is flushed for every question."""

import re
import subprocess
from collections.abc import Callable

from peers.peer import AHEAD, DELAY, Peer, me
from peers.questions import Request

# Lines of key and value, in the order of the keys, into a new tree as postgrey makes it.
FILL = r"""
use BerkeleyDB;
my $db = BerkeleyDB::Btree->new(-Filename => $ARGV[0], -Flags => DB_CREATE) or die $BerkeleyDB::Error;
while (<STDIN>) { chomp; my ($key, $value) = split /\t/; $db->db_put($key, $value) == 0 or die $BerkeleyDB::Error; }
"""
FINISHED = re.compile(r"cleaning main database finished\. before: (\d+), after: (\d+)")


class Postgrey(Peer):
    """postgrey on a socket of its directory, without whitelists."""

    name = "postgrey"
    packages = ("postgrey",)
    differs = ("postgrey: a daemon of one process, asked over connections that stay; it writes and flushes for every "
               "question, known senders too")
    expires = "reads all entries and deletes what expired, once a night, in the process that answers"
    lifetime = 35 * 86400

    @property
    def where(self) -> str:
        return str(self.directory / "socket")

    def fill(self, entries: int, expiring: int, request: Callable[[int], Request]) -> None:
        database = self.directory / "database"
        database.mkdir()
        lines = []
        for number in range(entries + expiring):
            client, sender, recipient = request(number)
            last = self.last_seen(number, expiring)
            network = client.rpartition(".")[0]
            lines.append(f"{network}.0/{sender}/{recipient}\t{last - 2 * DELAY},{last}\n")
        subprocess.run(["perl", "-e", FILL, database / "postgrey.db"], input="".join(sorted(lines)), text=True,
                       check=True)

    def command(self) -> tuple[list[str], dict[str, str]]:
        nobody = self.directory / "nobody"
        nobody.touch()
        user, group = me()
        words = ["postgrey", f"--unix={self.where}", f"--dbdir={self.directory / 'database'}", f"--delay={DELAY}",
                 f"--user={user}", f"--group={group}", "--auto-whitelist-clients=0", f"--whitelist-clients={nobody}",
                 f"--whitelist-recipients={nobody}"]
        # It cleans up between two and seven in the morning only: let it be three where the clock is set ahead.
        zone = (3 - (self.seen + AHEAD) // 3600) % 24
        return words, {"TZ": f"BENCH{-zone if zone <= 12 else 24 - zone:+d}"}

    def expired(self) -> bool:
        return FINISHED.search(self.log.read_text()) is not None

    def remaining(self) -> int:
        found = FINISHED.search(self.log.read_text())
        return int(found[2]) if found else -1
