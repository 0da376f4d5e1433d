"""Records in PostgreSQL, or in what speaks its protocol well enough (docs/shared-postgresql.md)."""

import asyncio
import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format

from fastgrey.errors import EngineError

from . import postgresql_schema
from .engine import Slot, Write
from .postgresql_faults import raced, told
from .postgresql_lanes import Connection, Lane, hang_up

# First byte of a key, by kind.
LETTERS = {"client": b"c", "domain": b"d", "triplet": b"t", "pair": b"p", "waiting": b"w", "hops": b"h"}
STRANGERS = ("waiting", "hops")
MASK = (1 << 64) - 1

# Requests whose records one statement fetches, and swaps that one writes. Each key of a swap is a lock of the server,
# which has max_locks_per_transaction (64) of them for each connection.
FETCHES_MOST = 64
SWAPS_MOST = 16
# Connections that an open engine keeps: for fetches, for swaps that are flushed, for those that are not.
CONNECTIONS = 3
# Seconds in which open() may make tables, and each step of upkeep() may last.
PATIENCE = 30
# Pages of known (8 kB) looked through in one statement, and in one upkeep.
SWEEP_PAGES = 128
SWEEPS = 32

FETCH = """
SELECT key, record FROM {schema}.known WHERE key = ANY ($1)
UNION ALL SELECT key, record FROM {schema}.strangers WHERE key = ANY ($2)
"""
SWAP = "SELECT {schema}.swap($1, $2, $3, $4, $5, $6, $7)"
MAKE_PARTITIONS = "SELECT {schema}.make_partition(keep, false) FROM unnest($1) AS keep"
# What a function relies on is not left to how the server is set. Without its plans for tables as small as they are
# when a connection is new, a statement uses the index from the beginning.
GREET = """
SELECT set_config('default_transaction_isolation', 'read committed', false),
       set_config('statement_timeout', $1, false), set_config('lock_timeout', '0', false),
       set_config('plan_cache_mode', 'force_generic_plan', false), set_config('jit', 'off', false),
       set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
       set_config('enable_mergejoin', 'off', false)
"""


class _Array(bytes):
    """An array as the server reads it: made in one go, where psycopg would look at every element."""


class _Keys(_Array):
    pass


class _Numbers(_Array):
    pass


class _Small(_Array):
    pass


class _Flags(_Array):
    pass


class _Dump(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


# Element type and array type of each, from pg_type, which are the same in every database.
_TYPES = {_Keys: (17, 1001), _Numbers: (20, 1016), _Small: (23, 1007), _Flags: (16, 1000)}
_DUMPERS = {made: type(f"{made.__name__}Dump", (_Dump,), {"oid": array}) for made, (_, array) in _TYPES.items()}


def _head(element: int, size: int) -> bytes:
    # Dimensions, no NULL, type; elements, counted from 1.
    return struct.pack(">iiIii", 1, 0, element, size, 1) if size else struct.pack(">iiI", 0, 0, element)


def _keys(keys: Sequence[bytes]) -> _Keys:
    """Keys of 17 bytes."""
    return _Keys(_head(17, len(keys)) + b"".join(b"\0\0\0\x11" + key for key in keys))


def _numbers(numbers: Sequence[int]) -> _Numbers:
    """Records: the 64 bits of a record are those of a bigint, whose highest is its sign."""
    return _Numbers(_head(20, len(numbers)) + b"".join(
        b"\0\0\0\x08" + (number & MASK).to_bytes(8, "big") for number in numbers))


def _small(numbers: Sequence[int]) -> _Small:
    return _Small(_head(23, len(numbers)) + b"".join(b"\0\0\0\x04" + number.to_bytes(4, "big") for number in numbers))


def _flags(flags: Sequence[bool]) -> _Flags:
    return _Flags(_head(16, len(flags)) + b"".join(b"\0\0\0\x01\x01" if flag else b"\0\0\0\x01\0" for flag in flags))


class _Fetch(NamedTuple):
    """Keys of records, those of strangers apart."""

    known: list[bytes]
    strangers: list[bytes]


class _Row(NamedTuple):
    """One record to write: key, whether it is a stranger's, what must be there, what shall be, seconds to keep it."""

    key: bytes
    stranger: bool
    old: int
    new: int
    keep: int


class Postgresql:
    """An Engine. It belongs to the event loop that opened it.

    url: postgresql://[ROLE@]HOST[:PORT][,HOST...]/DATABASE, as libpq reads it; of several hosts the one that can be
    written to is used. password_file: a file whose first line is the password. timeout: seconds for fetch, swap and
    secret; open() and upkeep() may take longer, but no step of them longer than PATIENCE. namespace: the schema.
    Raises EngineError where one of them cannot be meant.
    """

    def __init__(self, url: str, *, password_file: str | None = None, timeout: float = 1.0, namespace: str = "fastgrey"):
        self.schema = postgresql_schema.checked(namespace)
        self.timeout = timeout
        self._password_file = password_file
        self._options = self._read(url)
        self.name = self._shown(self._options)
        self._fetch = FETCH.replace("{schema}", self.schema)
        self._swap = SWAP.replace("{schema}", self.schema)
        self._make_partitions = MAKE_PARTITIONS.replace("{schema}", self.schema)
        self._lanes: list[Lane[Any, Any]] = []
        self._fetches: Lane[_Fetch, dict[bytes, int]] = self._lane(self._fetch_all, FETCHES_MOST)
        self._earned: Lane[list[_Row], bool] = self._lane(self._swap_all, SWAPS_MOST)
        self._strangers: Lane[list[_Row], bool] = self._lane(self._swap_all, SWAPS_MOST)

    def _lane(self, run: Any, most: int) -> Lane[Any, Any]:
        lane: Lane[Any, Any] = Lane(self.name, self._connect, run, self._told, most, self.timeout)
        self._lanes.append(lane)
        return lane

    def _read(self, url: str) -> dict[str, Any]:
        # What libpq says of a URL that it cannot read holds the URL, and so a password.
        unreadable = EngineError("the URL of the engine cannot be read; expected "
                                 "postgresql://[ROLE@]HOST[:PORT][,HOST...]/DATABASE, such as "
                                 "postgresql://fastgrey@db1.example.net,db2.example.net/mail")
        if not url.startswith(("postgresql://", "postgres://")):
            raise unreadable
        try:
            options = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise unreadable from None
        wait = max(2, math.ceil(self.timeout))
        defaults = {"target_session_attrs": "read-write", "connect_timeout": wait, "application_name": "fastgrey",
                    "tcp_user_timeout": 1000 * wait, "keepalives_idle": 30, "keepalives_interval": 10,
                    "keepalives_count": 3}
        return defaults | options

    @staticmethod
    def _shown(options: dict[str, Any]) -> str:
        hosts = str(options.get("host") or options.get("hostaddr") or "").split(",")
        ports = str(options.get("port") or "").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        places = ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports))
        role = f"{options['user']}@" if options.get("user") else ""
        return f"postgresql://{role}{places}/{options.get('dbname') or ''}"

    def _told(self, error: psycopg.Error) -> str:
        role = self._options.get("user") or "ROLE"
        return f"{self.name}: " + told(error, schema=self.schema, role=role, connections=CONNECTIONS,
                                       database=self._options.get("dbname") or role)

    def _password(self) -> dict[str, str]:
        if not self._password_file:
            return {}
        try:
            with open(self._password_file) as file:
                return {"password": file.readline().rstrip("\r\n")}
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not text"
            raise EngineError(f"cannot read the password in {self._password_file}: {why}; make it a file of one line "
                              "that the user of fastgrey serve can read") from None

    async def _connect(self, patience: float | None = None) -> Connection:
        """A connection ready for statements, each of which may last patience seconds. EngineError."""
        limit = self.timeout if patience is None else patience
        try:
            connection = await psycopg.AsyncConnection.connect(
                make_conninfo(**(self._options | self._password())), autocommit=True,
                prepare_threshold=None, cursor_factory=psycopg.AsyncRawCursor)
        except psycopg.Error as error:
            raise EngineError(self._told(error)) from None
        for kind, dumper in _DUMPERS.items():
            connection.adapters.register_dumper(kind, dumper)
        guard = asyncio.get_running_loop().call_later(2 * limit, hang_up, connection)
        try:
            await connection.execute(GREET, [f"{max(1, round(1000 * limit))}ms"])
        except BaseException as error:
            hang_up(connection)
            await connection.close()
            if isinstance(error, psycopg.Error):
                raise EngineError(self._told(error)) from None
            raise
        finally:
            guard.cancel()
        return connection

    async def open(self) -> None:
        """Connect, and make schema, tables and functions where they are missing."""
        await self.close()
        await self._administer(self._install)
        connections: list[Connection] = []
        try:
            for _ in self._lanes:
                connections.append(await self._connect())
        except BaseException:
            for connection in connections:
                await connection.close()
            raise
        for lane, connection in zip(self._lanes, connections, strict=True):
            lane.start(connection)

    async def close(self) -> None:
        """Disconnect."""
        for lane in self._lanes:
            await lane.stop()

    async def _administer(self, work: Any) -> Any:
        """What work gives over a connection of its own, on which a statement may take its time. EngineError."""
        connection = await self._connect(PATIENCE)
        guard = asyncio.get_running_loop().call_later(4 * PATIENCE, hang_up, connection)
        try:
            return await work(connection)
        except psycopg.Error as error:
            raise EngineError(self._told(error)) from None
        finally:
            guard.cancel()
            hang_up(connection)
            await connection.close()

    async def _install(self, connection: Connection) -> None:
        version = await self._version(connection)
        if version is None:
            await connection.execute(postgresql_schema.statements(self.schema))
            version = await self._version(connection)
        if version != postgresql_schema.VERSION:
            raise EngineError(f"{self.name}: the schema {self.schema} has version {version}, this program knows "
                              f"{postgresql_schema.VERSION}; install the same fastgrey on every machine, or name another "
                              "schema, which begins empty")
        await connection.execute(f"SELECT {self.schema}.make_ahead()")

    async def _version(self, connection: Connection) -> int | None:
        """None where there are no tables."""
        try:
            found = await connection.execute(f"SELECT version FROM {self.schema}.state")
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return None
        row = await found.fetchone()
        return None if row is None else int(row[0])

    async def secret(self, own: bytes) -> bytes:
        """The secret under which the keys of this engine were made. Where it has none yet, it gets own."""
        async def agree(connection: Connection) -> bytes:
            found = await connection.execute(f"SELECT {self.schema}.agree($1)", [own], binary=True)
            row = await found.fetchone()
            assert row is not None
            return bytes(row[0])
        agreed: bytes = await self._administer(agree)
        return agreed

    async def fetch(self, slots: Sequence[Slot]) -> list[int]:
        """The records of the slots, 0 for each that is not there. One statement."""
        asked = _Fetch([], [])
        keys = []
        for kind, key in slots:
            key = LETTERS[kind] + key
            (asked.strangers if kind in STRANGERS else asked.known).append(key)
            keys.append(key)
        found = await self._fetches.ask(asked)
        return [found.get(key, 0) for key in keys]

    async def _fetch_all(self, connection: Connection, asked: Sequence[_Fetch]) -> list[dict[bytes, int]]:
        found = await connection.execute(
            self._fetch, [_keys([key for one in asked for key in one.known]),
                          _keys([key for one in asked for key in one.strangers])], prepare=True, binary=True)
        # Everybody finds his own in what was found for all.
        records = {key: record & MASK for key, record in await found.fetchall()}
        return [records] * len(asked)

    async def swap(self, slots: Sequence[Slot], writes: Sequence[Write]) -> bool:
        """Write all of it where every old record is still what it was, else nothing; whether it was written. One
        statement, and a second one where a partition is missing."""
        rows = [_Row(LETTERS[slots[index][0]] + slots[index][1], slots[index][0] in STRANGERS, old, new, keep)
                for index, old, new, keep in writes]
        if not rows:
            return True
        # What was earned is flushed before it counts; strangers alone are not worth a flush.
        lane = self._strangers if all(row.stranger for row in rows) else self._earned
        return await lane.ask(rows, frozenset(row.key for row in rows))

    async def _swap_all(self, connection: Connection, asked: Sequence[list[_Row]]) -> list[bool]:
        try:
            stale = await self._swap_once(connection, asked)
        except psycopg.errors.CheckViolation:
            # Nobody made the partition ahead that a stranger goes into.
            keeps = {row.keep for rows in asked for row in rows if row.stranger}
            await connection.execute(self._make_partitions, [_numbers(sorted(keeps))])
            stale = await self._swap_once(connection, asked)
        except psycopg.Error as error:
            if not raced(error):
                raise
            return [False] * len(asked)
        return [number not in stale for number in range(len(asked))]

    async def _swap_once(self, connection: Connection, asked: Sequence[list[_Row]]) -> list[int]:
        """The numbers of those swaps that did not happen."""
        rows = [row for one in asked for row in one]
        locks = sorted({int.from_bytes(row.key[1:9], "big", signed=True) for row in rows})
        found = await connection.execute(self._swap, [
            _numbers(locks), _keys([row.key for row in rows]), _flags([row.stranger for row in rows]),
            _numbers([row.old for row in rows]), _numbers([row.new for row in rows]),
            _numbers([row.keep for row in rows]),
            _small([number for number, one in enumerate(asked) for _ in one])], prepare=True, binary=True)
        row = await found.fetchone()
        assert row is not None
        return row[0] or []

    async def upkeep(self, now: int) -> None:
        """Make partitions for what comes, drop those that expired, and go on looking for expired records."""
        async def work(connection: Connection) -> None:
            await connection.execute(f"SELECT {self.schema}.make_ahead()")
            await connection.execute(f"SELECT {self.schema}.drop_expired($1::bigint)", [now])
            for _ in range(SWEEPS):
                found = await connection.execute(f"SELECT {self.schema}.sweep($1::bigint, $2::bigint)", [now, SWEEP_PAGES])
                row = await found.fetchone()
                if row is None or not row[0]:
                    break
        await self._administer(work)

    async def drop(self) -> None:
        """Remove the schema with all records and the secret."""
        async def work(connection: Connection) -> None:
            await connection.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        await self._administer(work)

    async def doubts(self) -> list[str]:
        """What works and will not keep records as it should, a line each."""
        found: list[str] = []
        async def work(connection: Connection) -> None:
            for setting, lost in (("fsync", "all of it"), ("synchronous_commit", "what was earned in the last second")):
                rows = await connection.execute(f"SHOW {setting}")
                row = await rows.fetchone()
                if row is not None and row[0] == "off":
                    found.append(f"the engine {self.name} may lose {lost} in a power cut ({setting} is off); "
                                 f"ALTER SYSTEM SET {setting} = on")
        await self._administer(work)
        return found
