"""SQLgrey: Perl, one process, here with SQLite, the one of its databases that needs no daemon."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing

from daemons import START, wait_for
from peers.peer import DELAY, Peer, me
from peers.questions import Request

NEVER = r"^nothing\.is\.like\.this$"
FINISHED = re.compile(r"spent \d+s cleaning: from_awl \(([1-9]\d*)\)")


class Sqlgrey(Peer):
    """SQLgrey on a socket of its directory, without whitelists and expressions; clients by /24, as the others do it."""

    name = "sqlgrey"
    packages = ("sqlgrey", "libdbd-sqlite3-perl")
    differs = ("sqlgrey: a daemon of one process, asked over connections that stay, with SQLite (a large site would "
               "give it PostgreSQL); it writes and flushes for every question, known senders too")
    expires = "deletes what expired in one statement, every half hour, in the process that answers (clean_method sync)"
    lifetime = 60 * 86400

    @property
    def where(self) -> str:
        return str(self.directory / "socket")

    @property
    def _database(self) -> str:
        return str(self.directory / "sqlgrey.db")

    def fill(self, entries: int, expiring: int, request: Callable[[int], Request]) -> None:
        # It makes its own tables, once it listens.
        with self.running():
            wait_for(self._is_made, START, "sqlgrey to make its tables", self.log)
        rows = []
        for number in range(entries + expiring):
            client, sender, _ = request(number)
            last = self.last_seen(number, expiring)
            rows.append((*sender.split("@"), client.rpartition(".")[0], last - 2 * DELAY, last))
        with closing(sqlite3.connect(self._database)) as database, database:
            database.execute("PRAGMA synchronous = OFF")
            database.executemany("INSERT INTO from_awl VALUES (?, ?, ?, ?, ?)", rows)
            # Else it cleans up at the first question.
            database.execute("INSERT OR REPLACE INTO config VALUES ('last_dbclean', ?)", [self.seen])

    def _is_made(self) -> bool:
        try:
            with closing(sqlite3.connect(self._database)) as database:
                return database.execute("SELECT value FROM config WHERE parameter = 'version'").fetchone() is not None
        except sqlite3.OperationalError:
            return False

    def command(self) -> tuple[list[str], dict[str, str]]:
        for name, content in {"clients_ip_whitelist": "", "clients_fqdn_whitelist": "", "smtp_server.regexp": NEVER,
                              "dyn_fqdn.regexp": NEVER, "discrimination.regexp": ""}.items():
            (self.directory / name).write_text(content)
        user, group = me()
        settings = {
            "conf_dir": self.directory, "user": user, "group": group, "unix": self.where, "db_type": "SQLite",
            "db_name": self._database, "reconnect_delay": DELAY // 60, "greymethod": "classc", "admin_mail": "",
        }
        file = self.directory / "sqlgrey.conf"
        file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        return ["sqlgrey", "-f", str(file)], {}

    def expired(self) -> bool:
        return FINISHED.search(self.log.read_text()) is not None

    def remaining(self) -> int:
        with closing(sqlite3.connect(self._database)) as database:
            number: int = database.execute("SELECT count(*) FROM from_awl").fetchone()[0]
        return number
