"""Records in Valkey or Redis: one server, one that Sentinels watch, or a cluster.

A record is 8 bytes under `{NAMESPACE}`, a letter for its kind, and its key (docs/shared.md). What stands in braces
decides on which node of a cluster a key is, so a store is on one node as a whole. It cannot be otherwise: a decision
reads and writes its records at once, and there is nothing smaller that all of them have in common. The record of a pair
has no network in it and that of a client no recipient. One node answers many times what a mail system asks.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from valkey.asyncio.connection import AbstractConnection, Connection, DefaultParser, SSLConnection
from valkey.exceptions import ResponseError, ValkeyError

from fastgrey.errors import EngineError

from . import address
from .engine import NAMESPACE, Slot, Write
from .merging import KNOWN
from .valkey_answers import code, explained
from .valkey_link import Line, Link, LostError
from .valkey_place import BySentinel, InCluster, Named, Place

PORT, SENTINEL_PORT = 6379, 26379
LETTERS = {"client": b"c", "domain": b"d", "triplet": b"t", "pair": b"p", "waiting": b"w", "hops": b"h"}
RECORD_SIZE = 8
# Keys that are looked for, and removed, at once.
BATCH = 1000

# Write all records, or none where one of them is not what it was. KEYS: theirs. ARGV: what they must be ('' for
# nothing), then what they shall be, then the seconds to keep them. Whatever the server refuses, it refuses at the
# first SET, before anything is written.
SWAP = b"""
local there = redis.call('MGET', unpack(KEYS))
local n = #KEYS
for i = 1, n do
  if (there[i] or '') ~= ARGV[i] then return 0 end
end
for i = 1, n do
  redis.call('SET', KEYS[i], ARGV[n + i], 'EX', ARGV[n + n + i])
end
return 1
"""
SECRET = b"redis.call('SET', KEYS[1], ARGV[1], 'NX') return redis.call('GET', KEYS[1])"
SWAP_SHA = hashlib.sha1(SWAP, usedforsecurity=False).hexdigest().encode()


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    """Errors as the server worded them: the client would make exceptions of some and drop the word that tells which."""

    EXCEPTION_CLASSES: dict[str, Any] = {}


class Valkey:
    """Records in Valkey (or Redis 6 and later).

    url: `valkey://HOST:PORT/DB`, `valkey+sentinel://HOST:PORT,…/SERVICE` or `valkey+cluster://HOST:PORT,…`; with
    `valkeys` for TLS, where `?ca=FILE` names who signs its certificate; `redis` and `rediss` mean the same. `?wait=N`:
    what is earned counts as written once N replicas have it as well, or did not say so in half the time-out.
    password_file: holds the password, read anew whenever a connection is made. timeout: seconds within which a command
    ends, connecting included. namespace: what tells the stores on one engine apart. Raises EngineError where the URL
    cannot be meant.
    """

    def __init__(self, url: str, *, password_file: str | None = None, timeout: float = 1.0,
                 namespace: str = "fastgrey") -> None:
        sentinel = "+sentinel" in url.partition("://")[0]
        self._address = address.parse(url, SENTINEL_PORT if sentinel else PORT)
        self.name = self._address.name
        self.timeout = timeout
        self.password_file = password_file
        # Promotions that no replica is known to have, of those that were to wait for one.
        self.unconfirmed = 0
        if not NAMESPACE.fullmatch(namespace):
            raise EngineError(f"the engine {self.name}: {namespace[:80]!r} cannot be a name space; use a-z, 0-9 and _, "
                              "40 of them at most, not beginning with a digit")
        self._prefix = b"{%s}" % namespace.encode()
        self._prefixes = {kind: self._prefix + letter for kind, letter in LETTERS.items()}
        self._secret_key = self._prefix + b":secret"
        self._tls, self._db, self._place = self._understood()
        self._replicas = self._option("wait")
        self._line = Line(self._connect, timeout)
        # A server answers nothing else on a connection that waits for its replicas.
        self._waiting_line = Line(self._connect, timeout) if self._replicas else self._line
        # The question to replicas that is under way, and the one after it.
        self._this_wait: asyncio.Task[tuple[int, Link | None]] | None = None
        self._next_wait: asyncio.Task[tuple[int, Link | None]] | None = None

    async def open(self) -> None:
        await self._ask(self._line, b"SCRIPT", b"LOAD", SWAP, repeat=True)

    async def close(self) -> None:
        if waits := [task for task in (self._this_wait, self._next_wait) if task is not None]:
            await asyncio.wait(waits)
        self._this_wait = None
        await self._line.close()
        await self._waiting_line.close()

    async def secret(self, own: bytes) -> bytes:
        found = await self._ask(self._line, b"EVAL", SECRET, 1, self._secret_key, own, repeat=True)
        if not isinstance(found, bytes) or len(found) != len(own):
            raise EngineError(f"the engine {self.name}: {self._secret_key.decode()} is no secret of fastgrey; "
                              "give this store another name space")
        return found

    async def fetch(self, slots: Sequence[Slot]) -> list[int]:
        if not slots:
            return []
        prefixes = self._prefixes
        found = await self._ask(self._line, b"MGET", *[prefixes[kind] + key for kind, key in slots], repeat=True)
        return [0 if record is None else int.from_bytes(record, "big") for record in found]

    async def swap(self, slots: Sequence[Slot], writes: Sequence[Write]) -> bool:
        if not writes:
            return True
        keys, old, new, keep = [], [], [], []
        earned = False
        for write in writes:
            kind, key = slots[write.index]
            # Losing any other costs a stranger one more wait.
            earned = earned or kind in KNOWN
            keys.append(self._prefixes[kind] + key)
            old.append(write.old.to_bytes(RECORD_SIZE, "big") if write.old else b"")
            new.append(write.new.to_bytes(RECORD_SIZE, "big"))
            keep.append(write.keep)
        waits = earned and self._replicas > 0
        line = self._waiting_line if waits else self._line
        done = await self._ask(line, b"EVALSHA", SWAP_SHA, len(keys), *keys, *old, *new, *keep)
        if done and waits:
            await self._wait(line)
        return bool(done)

    async def upkeep(self, now: int) -> None:
        """Nothing: what expired, the server drops by itself."""

    async def drop(self) -> None:
        """Remove all records of this name space, and its secret. Looks through all keys of the server, in small
        steps."""
        cursor = b"0"
        while True:
            cursor, keys = await self._ask(self._line, b"SCAN", cursor, b"MATCH", self._prefix + b"*", b"COUNT", BATCH,
                                           repeat=True)
            if keys:
                await self._ask(self._line, b"UNLINK", *keys, repeat=True)
            if cursor == b"0":
                return

    async def doubts(self) -> list[str]:
        """What works and will not keep records as it should, a line each. Raises EngineError."""
        text = await self._ask(self._line, b"INFO", repeat=True)
        facts = dict(line.split(":", 1) for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
        found = []
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            found.append(f"the engine {self.name} evicts records when it is full (maxmemory-policy {policy}), and "
                         "whoever earned them waits again; CONFIG SET maxmemory-policy noeviction")
        if facts.get("aof_enabled") == "0":
            found.append(f"the engine {self.name} forgets at a restart what came after its last snapshot; "
                         "CONFIG SET appendonly yes")
        replicas = int(facts.get("connected_slaves", "0"))
        if replicas < self._replicas:
            found.append(f"the engine {self.name} has {replicas} replicas, and promotions wait for {self._replicas}; "
                         "add replicas, or lower wait in its URL")
        if self.unconfirmed:
            found.append(f"the engine {self.name}: {self.unconfirmed} promotions are not known to be on "
                         f"{self._replicas} replicas and would be lost with the primary; see its replicas")
        return found

    def _understood(self) -> tuple[dict[str, Any], int, Place]:
        """Options of the client for TLS, the database, and how the primary is found."""
        parts = self._address
        base, _, way = parts.scheme.lower().partition("+")
        unknown = set(parts.options) - {"wait", "ca"}
        if unknown:
            raise EngineError(f"the engine {self.name}: no option {min(unknown)[:40]!r} in its URL; there are wait and "
                              "ca")
        tls: dict[str, Any] = {}
        if base in ("valkeys", "rediss"):
            tls = {"ssl": True, "ssl_check_hostname": True, "ssl_ca_certs": parts.options.get("ca")}
        if way == "sentinel":
            if not parts.path:
                raise EngineError(f"the engine {self.name}: no service; write {self.name}/SERVICE, as the Sentinels "
                                  "call it")
            return tls, 0, BySentinel(parts.hosts, parts.path)
        if not re.fullmatch(r"[0-9]{0,5}", parts.path):
            raise EngineError(f"the engine {self.name}: {parts.path[:40]!r} is no database; write a number, such as 0")
        if way == "cluster":
            if int(parts.path or 0):
                raise EngineError(f"the engine {self.name}: a cluster has database 0 only; leave out {parts.path}")
            return tls, 0, InCluster(parts.hosts, self._secret_key.decode())
        if way:
            raise EngineError(f"the engine {self.name}: no such way as {way[:40]!r}; there are +cluster and +sentinel")
        if len(parts.hosts) > 1:
            raise EngineError(f"the engine {self.name}: several hosts; write {base}+sentinel://…/SERVICE or "
                              f"{base}+cluster://…")
        return tls, int(parts.path or 0), Named(parts.hosts[0])

    def _option(self, name: str) -> int:
        text = self._address.options.get(name, "0")
        if not re.fullmatch("[0-9]{1,3}", text):
            raise EngineError(f"the engine {self.name}: {name}={text[:40]!r} in its URL; expected a number of replicas")
        return int(text)

    async def _connect(self) -> AbstractConnection:
        """A connection to the primary as it is now."""
        password = address.read_password(self.password_file) if self.password_file else self._address.password
        login: dict[str, Any] = {"username": self._address.user, "password": password}
        host, port = await self._place.find({**login, "tls": self._tls}, self.timeout)
        tls = {name: value for name, value in self._tls.items() if name != "ssl"}
        kind = SSLConnection if self._tls else Connection
        # Bounded as a whole, by whoever connects and by whoever asks.
        connection = kind(host=host, port=port, db=self._db, parser_class=_Parser, socket_timeout=None,
                          socket_keepalive=True, lib_name=None, lib_version=None, **login, **tls)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await self._place.check(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _ask(self, line: Line, *words: bytes | int, repeat: bool = False) -> Any:
        """The answer to a command. repeat: it does no harm twice, so it is asked again where the connection was lost.
        """
        until = asyncio.get_running_loop().time() + self.timeout
        link = line.link
        if link is not None and link.lost is None:
            try:
                return await link.ask(*words)
            except LostError as error:
                # After one that was silent there is no time left.
                if not repeat:
                    raise self._error(error) from None
            except ResponseError as error:
                if code(error) == "NOSCRIPT":
                    # A server that restarted or took over, or whose scripts somebody flushed. Now it has it again.
                    words = (b"EVAL", SWAP, *words[2:])
                elif not self._follow(line, link, error):
                    raise self._error(error) from None
        try:
            async with asyncio.timeout_at(until):
                return await self._ask_anew(line, words)
        except (LostError, ValkeyError, OSError, TimeoutError) as error:
            raise self._error(error) from None

    async def _ask_anew(self, line: Line, words: Sequence[bytes | int]) -> Any:
        """Connect where need be, and ask. What a server did not do for want of the script, or because another one has
        the keys, is asked once more."""
        link = await line.ready()
        try:
            return await link.ask(*words)
        except ResponseError as error:
            if code(error) == "NOSCRIPT":
                words = (b"EVAL", SWAP, *words[2:])
            elif not self._follow(line, link, error):
                raise
        return await (await line.ready()).ask(*words)

    def _follow(self, line: Line, link: Link, error: ResponseError) -> bool:
        """Whether another server is to be asked; then the line is led there."""
        what = code(error)
        if what == "READONLY":
            followed = self._place.follows
        elif what == "MOVED" and self._place.follows:
            followed = True
            host, _, port = str(error).split()[2].rpartition(":")
            if line.link is link:
                self._place.moved((host or link.host, int(port)))
        else:
            followed = False
        if followed:
            line.leave(link)
        return followed

    async def _wait(self, line: Line) -> None:
        """Until the replicas have what was written, or for half the time-out and as long as the one before takes. It
        counts as written either way."""
        link = line.link
        # What is asked next covers all that was written by then. One for each would come one after the other: what is
        # to be written behind them would be late where no replica answers.
        if self._next_wait is None:
            self._next_wait = asyncio.create_task(self._confirm(line, self._this_wait))
        confirmed, over = await asyncio.shield(self._next_wait)
        # Another connection has written nothing that it could wait for.
        if confirmed < self._replicas or over is not link:
            self.unconfirmed += 1

    async def _confirm(self, line: Line, before: asyncio.Task[tuple[int, Link | None]] | None) -> tuple[int, Link | None]:
        """How many replicas have what was written, and the link over which it was."""
        if before is not None:
            await asyncio.wait([before])
        self._this_wait, self._next_wait = self._next_wait, None
        link = line.link
        try:
            confirmed = await self._ask(line, b"WAIT", self._replicas, max(1, int(self.timeout * 500)))
        except EngineError:
            confirmed = 0
        return confirmed, link if line.link is link else None

    def _error(self, error: BaseException) -> EngineError:
        return EngineError(explained(self.name, error, self.timeout))
