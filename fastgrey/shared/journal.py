"""STORE/journal: what all processes of a machine have still to write, to the engine and to the local table.

SQLite, because it is the one thing in the standard library that many processes may write to at once, that a kill of all
of them leaves whole, and in which a record that is written twice is one. docs/format.md has its tables.
"""

import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fastgrey.errors import StoreError

from .engine import KINDS, Slot

VERSION = 1
DIRECTORY = "journal"
NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
# Bytes; a record takes about 50.
SIZE = 256 << 20
# Of them strangers leave a share for what was earned.
SHARE = 8
# Seconds to wait for another process that writes.
PATIENCE = 5
# Pages of the log after which a writer tidies it up where nobody else does.
LOG_PAGES = 8192
SCHEMA = """
    CREATE TABLE owed (kind INTEGER, key BLOB, record INTEGER NOT NULL, gains INTEGER NOT NULL, sent INTEGER NOT NULL,
                       sent_gains INTEGER NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
    CREATE TABLE copies (kind INTEGER, key BLOB, record INTEGER NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""


class FullError(sqlite3.OperationalError):
    """There is no room in the journal."""


class Owed(NamedTuple):
    """A record that the engine lacks. record: as decisions here see it. gains: promotions, or hops, among its count
    that the engine does not know of. sent: what was last tried to put there, 0 where nothing was; sent_gains: how many
    of the gains are in it."""

    slot: Slot
    record: int
    gains: int
    sent: int
    sent_gains: int


def _signed(record: int) -> int:
    """SQLite's numbers have a sign."""
    return record - (1 << 64) if record >> 63 else record


def _unsigned(number: int) -> int:
    return number & ((1 << 64) - 1)


def _names(slots: Iterable[Slot]) -> list[tuple[int, bytes]]:
    return [(NUMBERS[kind], key) for kind, key in slots]


class Journal:
    """The journal of the store at root, open in one process. Every method raises sqlite3.Error where it cannot be read
    or written; open raises StoreError."""

    def __init__(self, root: str | os.PathLike[str], size: int = SIZE):
        self.path = Path(root) / DIRECTORY
        self.size = size
        self._reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._lock = -1

    def open(self) -> None:
        """Open it, made where it is missing."""
        try:
            self._own()
            # Two: what is being flushed keeps nobody from reading.
            self._reading = self._connect()
            self._writing = self._connect()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise StoreError(f"cannot open the journal {self.path}: {error}; move it away, and what was earned while "
                             "the engine was away and is in it is earned again") from None

    def _own(self) -> None:
        """SQLite makes files by name: nobody else may put a link in their place."""
        with suppress(FileExistsError):
            self.path.mkdir(0o700)
        status = self.path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise OSError(f"it is not a directory of the user that this runs as, number {os.geteuid()}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            self.path.chmod(0o700)

    def _connect(self) -> sqlite3.Connection:
        """Where others open it in the same moment SQLite does not wait for what it locks to change its ways."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._connect_once()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _connect_once(self) -> sqlite3.Connection:
        made = sqlite3.connect(self.path / "records", timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            made.execute("PRAGMA journal_mode = WAL")
            made.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            made.execute(f"PRAGMA max_page_count = {self.size // made.execute('PRAGMA page_size').fetchone()[0]}")
            self._prepare(made)
        except BaseException:
            made.close()
            raise
        return made

    @staticmethod
    def _prepare(made: sqlite3.Connection) -> None:
        if (version := made.execute("PRAGMA user_version").fetchone()[0]) not in (0, VERSION):
            raise OSError(f"it has format version {version}, not {VERSION}")
        if version:
            return
        made.execute("BEGIN IMMEDIATE")
        try:
            if made.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in SCHEMA.split(";"):
                    made.execute(statement)
                made.execute(f"PRAGMA user_version = {VERSION}")
            made.execute("COMMIT")
        except BaseException:
            made.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close it; what was written stays."""
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def _reader(self) -> sqlite3.Connection:
        if self._reading is None:
            raise sqlite3.ProgrammingError("the journal is not open")
        return self._reading

    @property
    def _writer(self) -> sqlite3.Connection:
        if self._writing is None:
            raise sqlite3.ProgrammingError("the journal is not open")
        return self._writing

    def look(self, slots: Sequence[Slot]) -> list[tuple[Slot, int, bool]]:
        """What there is of the slots: the record, and whether the engine lacks it; of a slot one of both, or both."""
        return self._look(self._reader, slots)

    @staticmethod
    def _look(connection: sqlite3.Connection, slots: Sequence[Slot]) -> list[tuple[Slot, int, bool]]:
        wanted = ",".join(["(?,?)"] * len(slots))
        names = [part for name in _names(slots) for part in name]
        return [((KINDS[kind], key), _unsigned(record), bool(owed)) for kind, key, record, owed in connection.execute(
            f"WITH wanted (kind, key) AS (VALUES {wanted}) "
            "SELECT kind, key, record, 0 FROM wanted JOIN copies USING (kind, key) "
            "UNION ALL SELECT kind, key, record, 1 FROM wanted JOIN owed USING (kind, key)", names)]

    @contextmanager
    def change(self, durable: bool) -> Iterator["Change"]:
        """A transaction in which nobody else writes; of one that is durable nothing is lost in a power cut, of another
        perhaps. FullError for strangers where only the room for what was earned is left, and for all where none is."""
        writer = self._writer
        writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        writer.execute("BEGIN IMMEDIATE")
        try:
            yield Change(writer)
            writer.execute("COMMIT")
        except BaseException as error:
            # SQLite ends some transactions by itself.
            with suppress(sqlite3.Error):
                writer.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise FullError from None
            raise

    def crowded(self) -> bool:
        """Whether what is left of the room is for what was earned."""
        pages, free, most = (self._writer.execute(f"PRAGMA {name}").fetchone()[0]
                             for name in ("page_count", "freelist_count", "max_page_count"))
        return bool((pages - free) * SHARE >= most * (SHARE - 1))

    def owed(self, limit: int, after: Slot | None = None) -> list[Owed]:
        """Up to limit records that the engine lacks, what was earned before what waits; those behind the slot after."""
        kind, key = _names([after])[0] if after else (-1, b"")
        return [Owed((KINDS[kind], key), _unsigned(record), gains, _unsigned(sent), sent_gains)
                for kind, key, record, gains, sent, sent_gains in self._reader.execute(
                    "SELECT * FROM owed WHERE (kind, key) > (?, ?) ORDER BY kind, key LIMIT ?", (kind, key, limit))]

    def copies(self, limit: int) -> list[tuple[Slot, int]]:
        """Up to limit records that the local table may lack."""
        return [((KINDS[kind], key), _unsigned(record)) for kind, key, record in self._reader.execute(
            "SELECT kind, key, record FROM copies ORDER BY kind, key LIMIT ?", (limit,))]

    def numbers(self) -> tuple[int, int]:
        """How many records the engine lacks, and how many the local table may lack."""
        owed, copies = (self._reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                        for table in ("owed", "copies"))
        return owed, copies

    def tidy(self) -> None:
        """Move what is in the log to where it belongs, as far as nobody reads it."""
        self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def lock(self) -> bool:
        """Be the one process that writes back; False where another one is."""
        if self._lock < 0:
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class Change:
    """What may be done within a transaction of the journal."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def look(self, slots: Sequence[Slot]) -> list[tuple[Slot, int, bool]]:
        """As Journal.look, and nobody changes it before the transaction ends."""
        return Journal._look(self._connection, slots)

    def owe(self, slot: Slot, record: int, gains: int, in_doubt: bool = False) -> None:
        """Keep a record for the engine; gains are added to those that are there. in_doubt: it was tried to put this
        record there, and it may be there."""
        sent, more = (record, 0) if in_doubt and gains else (0, gains)
        self._connection.execute(
            "INSERT INTO owed VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET record = excluded.record, "
            "gains = gains + ?", (*_names([slot])[0], _signed(record), gains, _signed(sent), gains - more, more))

    def copy(self, slot: Slot, record: int) -> None:
        """Keep a record for the local table."""
        self._connection.execute("INSERT OR REPLACE INTO copies VALUES (?, ?, ?)",
                                 (*_names([slot])[0], _signed(record)))

    def copied(self, slot: Slot, record: int) -> None:
        """The local table has this record."""
        self._connection.execute("DELETE FROM copies WHERE kind = ? AND key = ? AND record = ?",
                                 (*_names([slot])[0], _signed(record)))

    def sending(self, owed: Owed, record: int) -> None:
        """What will be tried to put in its place at the engine, 0 where it is certain that it is not there."""
        self._connection.execute("UPDATE owed SET sent = ?, sent_gains = ? WHERE kind = ? AND key = ?",
                                 (_signed(record), owed.gains if record else 0, *_names([owed.slot])[0]))

    def paid(self, owed: Owed) -> None:
        """The engine has it; what came to it meanwhile it still lacks."""
        name = _names([owed.slot])[0]
        gone = self._connection.execute("DELETE FROM owed WHERE kind = ? AND key = ? AND record = ? AND gains = ?",
                                        (*name, _signed(owed.record), owed.gains)).rowcount
        if not gone:
            self._connection.execute("UPDATE owed SET gains = gains - ?, sent = 0, sent_gains = 0 WHERE kind = ? AND "
                                     "key = ?", (owed.gains, *name))
