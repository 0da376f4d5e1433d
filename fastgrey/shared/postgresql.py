"""Records in PostgreSQL, or in what speaks its protocol well enough (docs/shared-postgresql.md)."""

import asyncio
import math
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format

from fastgrey.errors import EngineError

from . import postgresql_schema
from .address import read_password
from .engine import Slot, Write
from .postgresql_faults import raced, told
from .postgresql_lanes import Connection, Lane, execute, hang_up, prepare

# First byte of a key, by kind.
LETTERS = {"client": b"c", "domain": b"d", "triplet": b"t", "pair": b"p", "waiting": b"w", "hops": b"h"}
STRANGERS = ("waiting", "hops")
KEY_SIZE = 17
# Name of the one statement that a connection has.
PREPARED = b"fastgrey"
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
MAKE_PARTITIONS = "SELECT {schema}.make_partition(keep, false) FROM unnest($1::bigint[]) AS keep"
# What a function relies on is not left to how the server is set. Without its plans for tables as small as they are
# when a connection is new, a statement uses the index from the beginning.
GREET = """
SELECT set_config('default_transaction_isolation', 'read committed', false),
       set_config('statement_timeout', $1, false), set_config('lock_timeout', '0', false),
       set_config('plan_cache_mode', 'force_generic_plan', false), set_config('jit', 'off', false),
       set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
       set_config('enable_mergejoin', 'off', false)
"""
# Settings of the server under which what was flushed may be lost. That a standby follows, every session sees, whatever
# its rights.
DOUBTS = """
SELECT doubt FROM (VALUES
    (current_setting('fsync') = 'off',
     'fsync is off: a power cut may destroy everything; set fsync = on'),
    (current_setting('full_page_writes') = 'off',
     'full_page_writes is off: a power cut may damage tables; set full_page_writes = on'),
    (current_setting('synchronous_commit') = 'off',
     'synchronous_commit is off: a crash loses the last promotions; set synchronous_commit = on'),
    (current_setting('synchronous_standby_names') = '' AND EXISTS (SELECT FROM pg_stat_replication),
     'no standby is synchronous: a failover loses the last promotions; set synchronous_standby_names'),
    (current_setting('synchronous_commit') = 'local' AND current_setting('synchronous_standby_names') <> '',
     'synchronous_commit is local: a failover loses the last promotions; set synchronous_commit = on')
) AS doubts(holds, doubt) WHERE holds
"""
Found = TypeVar("Found")


# Types of pg_type, which are the same in every database: of elements, and of arrays of them.
BOOL, BYTEA, INT8, INT4 = 16, 17, 20, 23
BOOLS, BYTEAS, INT8S, INT4S = 1000, 1001, 1016, 1007
FETCH_TYPES = (BYTEAS, BYTEAS)
SWAP_TYPES = (INT8S, BYTEAS, BOOLS, INT8S, INT8S, INT8S, INT4S)


def _array(element: int, size: int, values: Sequence[bytes]) -> bytes:
    """An array of values of one size as the server reads it: dimensions, no NULL, type, elements, the first index."""
    head = struct.pack(">iiIii", 1, 0, element, len(values), 1) if values else struct.pack(">iiI", 0, 0, element)
    length = size.to_bytes(4, "big")
    return head + b"".join([length + value for value in values])


def _keys(keys: Sequence[bytes]) -> bytes:
    return _array(BYTEA, KEY_SIZE, keys)


def _numbers(numbers: Sequence[int]) -> bytes:
    """Records: the 64 bits of a record are those of a bigint, whose highest is its sign."""
    return _array(INT8, 8, [(number & MASK).to_bytes(8, "big") for number in numbers])


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

    def __init__(self, url: str, *, password_file: str | None = None, timeout: float = 1.0,
                 namespace: str = "fastgrey"):
        self.schema = postgresql_schema.checked(namespace)
        self.timeout = timeout
        self._password_file = password_file
        self._options = self._read(url)
        self.name = self._shown(self._options)
        self._make_partitions = MAKE_PARTITIONS.replace("{schema}", self.schema)
        self._fetches: Lane[_Fetch, dict[bytes, int]] = Lane(
            self.name, self._connect_fetches, self._fetch_all, self._told, FETCHES_MOST, timeout)
        self._earned: Lane[list[_Row], bool] = Lane(
            self.name, self._connect_swaps, self._swap_all, self._told, SWAPS_MOST, timeout)
        self._strangers: Lane[list[_Row], bool] = Lane(
            self.name, self._connect_strangers, self._swap_all, self._told, SWAPS_MOST, timeout)

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
        if any("@" in str(options.get(part) or "") for part in ("host", "port", "dbname")):
            # A slash in a password ends it: what is taken for port and database is a part of it.
            raise unreadable
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
        hosts = [f"[{host}]" if ":" in host else host for host in hosts]
        places = ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports))
        role = f"{options['user']}@" if options.get("user") else ""
        return f"postgresql://{role}{places}/{options.get('dbname') or ''}"

    def _told(self, error: psycopg.Error) -> str:
        role = self._options.get("user") or "ROLE"
        return f"{self.name}: " + told(error, schema=self.schema, role=role, connections=CONNECTIONS,
                                       database=self._options.get("dbname") or role)

    def _password(self) -> dict[str, str]:
        return {"password": read_password(self._password_file)} if self._password_file else {}

    async def _connect(self, patience: float, statement: str = "", types: Sequence[int] = (),
                       flushed: bool = True) -> Connection:
        """A connection whose statements may last patience seconds, with one of them prepared. flushed: whether a commit
        waits as the server says, else for nothing. EngineError."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                make_conninfo(**(self._options | self._password())), autocommit=True, prepare_threshold=None,
                cursor_factory=psycopg.AsyncRawCursor)
        except psycopg.Error as error:
            raise EngineError(self._told(error)) from None
        except UnicodeError as error:
            # From IDNA: an empty label, or one of more than 63 characters.
            raise EngineError(f"{self.name}: no such host can be: {error}; name a host that there is") from None
        self._prefer(connection.info.host, str(connection.info.port))
        guard = asyncio.get_running_loop().call_later(2 * patience, hang_up, connection)
        try:
            await connection.execute(GREET, [f"{max(1, round(1000 * patience))}ms"])
            if not flushed:
                await connection.execute("SET synchronous_commit = off")
            if statement:
                await prepare(connection, PREPARED, statement.replace("{schema}", self.schema), types)
        except BaseException as error:
            hang_up(connection)
            await connection.close()
            if isinstance(error, psycopg.Error):
                raise EngineError(self._told(error)) from None
            raise
        finally:
            guard.cancel()
        return connection

    def _prefer(self, host: str, port: str) -> None:
        """Try this one of several hosts first from now on: one that is gone without a word costs seconds each time."""
        hosts = str(self._options.get("host", "")).split(",")
        ports = str(self._options.get("port") or port).split(",")
        places = list(zip(hosts, ports * len(hosts) if len(ports) == 1 else ports))
        if "hostaddr" in self._options or (host, port) not in places:
            return
        first = places.index((host, port))
        places = [places[first], *places[:first], *places[first + 1:]]
        self._options |= {"host": ",".join(host for host, _ in places), "port": ",".join(port for _, port in places)}

    async def _connect_fetches(self) -> Connection:
        return await self._connect(self.timeout, FETCH, FETCH_TYPES)

    async def _connect_swaps(self) -> Connection:
        return await self._connect(self.timeout, SWAP, SWAP_TYPES)

    async def _connect_strangers(self) -> Connection:
        """What was earned is flushed before it counts; strangers are not worth a flush."""
        return await self._connect(self.timeout, SWAP, SWAP_TYPES, flushed=False)

    async def open(self) -> None:
        """Connect, and make schema, tables and functions where they are missing."""
        await self.close()
        await self._administer(self._install)
        try:
            for lane in (self._fetches, self._earned, self._strangers):
                await lane.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect."""
        for lane in (self._fetches, self._earned, self._strangers):
            await lane.stop()

    async def _administer(self, work: Callable[[Connection], Awaitable[Found]]) -> Found:
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
                              f"{postgresql_schema.VERSION}; install the same fastgrey on every machine, or name "
                              "another schema, which begins empty")
        await connection.execute(f"SELECT {self.schema}.make_ahead()")

    async def _version(self, connection: Connection) -> int | None:
        """None where there are no tables."""
        found = await connection.execute(f"SELECT to_regclass('{self.schema}.state') IS NOT NULL")
        if not (await found.fetchall())[0][0]:
            return None
        found = await connection.execute(f"SELECT version FROM {self.schema}.state")
        rows = await found.fetchall()
        return int(rows[0][0]) if rows else None

    async def secret(self, own: bytes) -> bytes:
        """The secret under which the keys of this engine were made. Where it has none yet, it gets own."""
        async def agree(connection: Connection) -> bytes:
            found = await connection.execute(f"SELECT {self.schema}.agree($1)", [own], binary=True)
            return bytes((await found.fetchall())[0][0])

        return await self._administer(agree)

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
        found = await execute(connection, PREPARED, [
            _keys([key for one in asked for key in one.known]),
            _keys([key for one in asked for key in one.strangers])], Format.BINARY)
        # Everybody finds his own in what was found for all.
        records: dict[bytes, int] = {}
        for row in range(found.ntuples):
            key, record = found.get_value(row, 0), found.get_value(row, 1)
            assert key is not None and record is not None
            records[key] = int.from_bytes(record, "big")
        return [records] * len(asked)

    async def swap(self, slots: Sequence[Slot], writes: Sequence[Write]) -> bool:
        """Write all of it where every old record is still what it was, else nothing; whether it was written. One
        statement, and a second one where a partition is missing."""
        rows = [_Row(LETTERS[slots[index][0]] + slots[index][1], slots[index][0] in STRANGERS, old, new, keep)
                for index, old, new, keep in writes]
        if not rows:
            return True
        lane = self._strangers if all(row.stranger for row in rows) else self._earned
        return await lane.ask(rows, frozenset(row.key for row in rows))

    async def _swap_all(self, connection: Connection, asked: Sequence[list[_Row]]) -> list[bool]:
        try:
            stale = await self._swap_once(connection, asked)
        except psycopg.errors.CheckViolation:
            # Nobody made the partition ahead that a stranger goes into.
            keeps = {row.keep for rows in asked for row in rows if row.stranger}
            await connection.execute(self._make_partitions, [sorted(keeps)])
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
        found = await execute(connection, PREPARED, [
            _numbers(locks), _keys([row.key for row in rows]),
            _array(BOOL, 1, [b"\1" if row.stranger else b"\0" for row in rows]), _numbers([row.old for row in rows]),
            _numbers([row.new for row in rows]), _numbers([row.keep for row in rows]),
            _array(INT4, 4, [number.to_bytes(4, "big") for number, one in enumerate(asked) for _ in one])], Format.TEXT)
        stale = found.get_value(0, 0)
        return [] if stale is None else [int(number) for number in stale[1:-1].split(b",")]

    async def upkeep(self, now: int) -> None:
        """Make partitions for what comes, drop those that expired, and go on looking for expired records."""
        async def work(connection: Connection) -> None:
            await connection.execute(f"SELECT {self.schema}.make_ahead()")
            await connection.execute(f"SELECT {self.schema}.drop_expired($1::bigint)", [now])
            for _ in range(SWEEPS):
                found = await connection.execute(f"SELECT {self.schema}.sweep($1::bigint, $2::bigint)",
                                                 [now, SWEEP_PAGES])
                if not (await found.fetchall())[0][0]:
                    break

        await self._administer(work)

    async def drop(self) -> None:
        """Remove the schema: all records, and the secret."""
        async def work(connection: Connection) -> None:
            await connection.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")

        await self._administer(work)

    async def doubts(self) -> list[str]:
        """What works and will not keep records as it should, a line each. Raises EngineError."""
        async def work(connection: Connection) -> list[str]:
            found = await connection.execute(DOUBTS)
            return [f"the engine {self.name}: {line}" for line, in await found.fetchall()]

        return await self._administer(work)
