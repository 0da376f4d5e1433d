# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Assembly of the extension: the core behind Python objects. Nothing here decides anything."""

import os
import threading
import time as clock

from .errors import ClosedError, CompactionError, ForkedError, StoreError
from .verdict import Verdict

include "core/core.pxi"
include "core/compact.pxi"


cdef Span bytes_span(bytes data):
    return span(<const char *>data, len(data))


cdef bytes as_bytes(value, str what):
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")


cdef str cause_text(StoreState *s, int fault, int error):
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    log_cause(&t, s, fault, error)
    text_end(&t)
    return line.decode("ascii", "replace")


cdef str short_key(const unsigned char *key):
    return key[:SHORT_KEY].hex()


cdef tuple ACTION_NAMES = tuple([action_name(i).decode() for i in range(3)])
cdef tuple REASON_NAMES = tuple([reason_name(i).decode() for i in range(DENIED + 1)])


def lmdb_version() -> tuple[int, int, int]:
    """Version of the LMDB in use by this process."""
    cdef int major, minor, patch
    mdb_version(&major, &minor, &patch)
    return major, minor, patch


def normalise_sender(address: str | bytes) -> bytes:
    """The form in which an envelope sender is keyed; ValueError where it is too long or holds NUL, CR or LF."""
    return _normalise(as_bytes(address, "address"), True)


def normalise_recipient(address: str | bytes) -> bytes:
    """The form in which an envelope recipient is keyed; ValueError where it is too long or holds NUL, CR or LF."""
    return _normalise(as_bytes(address, "address"), False)


cdef bytes _normalise(bytes address, bint is_sender):
    cdef Address out
    if normalise_address(bytes_span(address), is_sender, &out) != 0:
        raise ValueError(fault_text(BAD_SENDER if is_sender else BAD_RECIPIENT).decode())
    return out.text[:out.size]


def normalise_client(address: str | bytes, int ipv4_prefix=24, int ipv6_prefix=64) -> tuple[int, bytes, bytes]:
    """Family (4 or 6), exact client and network of an IP address, packed; ValueError where it is none."""
    cdef Client out
    cdef bytes text = as_bytes(address, "address")
    if parse_client(bytes_span(text), ipv4_prefix, ipv6_prefix, &out) != 0:
        raise ValueError(fault_text(BAD_CLIENT).decode())
    return out.family, out.exact[:out.size], out.network[:out.size]


def client_name_parent(name: str | bytes, address: str | bytes) -> bytes:
    """The parent of a client name, empty where the name tells nothing about its owner; ValueError as above."""
    cdef Client client
    cdef unsigned char out[NAME_MAX]
    cdef bytes data = as_bytes(name, "name"), text = as_bytes(address, "address")
    if parse_client(bytes_span(text), 24, 64, &client) != 0:
        raise ValueError(fault_text(BAD_CLIENT).decode())
    return out[:name_parent(bytes_span(data), &client, out)]


cdef void on_damage(int number) noexcept nogil:
    cdef const char *line = (b"fastgrey: a file of the store is damaged or was cut short; "
                             b"ask fastgrey doctor, or make the store anew with: fastgrey init\n")
    write(2, line, strlen(line))
    _exit(1)


def leave_on_damage() -> None:
    """Let a cut file end this process with one line and status 1 instead of by SIGBUS. For commands, not libraries."""
    cdef sigaction_t action
    memset(&action, 0, sizeof(action))
    action.sa_handler = on_damage
    sigaction(SIGBUS, &action, NULL)


def create_generation(path: str, number: int, secret: bytes, made: int, settings: list[int]) -> None:
    """Make an empty, flushed generation in the existing directory path."""
    cdef StoreState state
    cdef Head head
    cdef int rc
    cdef size_t i
    cdef bytes name = os.fsencode(path)
    if len(secret) != SECRET_SIZE or len(settings) != SETTINGS:
        raise ValueError("a generation wants a secret of 192 bytes and every setting")
    memset(&state, 0, sizeof(state))
    memset(&head, 0, sizeof(head))
    memcpy(head.magic, b"fastgrey", 8)
    head.version = FORMAT_VERSION
    head.order = BYTE_ORDER_MARK
    head.generation = number
    head.made = made
    memcpy(head.secret, <const char *>secret, SECRET_SIZE)
    for i in range(SETTINGS):
        (<int64_t *>&head.settings)[i] = settings[i]
    rc = generation_create(&state, name, &head)
    environment_close(&state.passed)
    if rc != 0:
        raise StoreError(f"cannot make {path}: {mdb_strerror(rc).decode()}")


cdef int generation_create(StoreState *s, const char *path, Head *head) noexcept nogil:
    """Leave a new generation open in s, its tables made and its head written and flushed."""
    cdef MDB_txn *txn = NULL
    cdef int kind, rc
    rc = environment_open(&s.passed, path, 0, PASSED_TABLES)
    if rc == 0:
        rc = environment_write(&s.passed, &txn)
    if rc != 0:
        return rc
    rc = mdb_dbi_open(txn, b"meta", MDB_CREATE, &s.meta)
    if rc == 0:
        rc = mdb_dbi_open(txn, b"touched", MDB_CREATE, &s.touched)
    for kind in range(4):
        if rc == 0:
            rc = mdb_dbi_open(txn, kind_name(kind), MDB_CREATE, &s.known[kind])
    if rc == 0:
        rc = head_put(s, txn, head)
    if rc != 0:
        mdb_txn_abort(txn)
        return rc
    return mdb_txn_commit(txn)


def write_counters(path: str, defer_on_error: bool) -> None:
    """Make the page of counters, all zero, at path."""
    cdef CounterPage page
    memset(&page, 0, sizeof(page))
    memcpy(page.magic, b"fgstats\0", 8)
    page.version = COUNTERS_VERSION
    page.defer_on_error = defer_on_error
    with open_private(path) as file:
        file.write((<char *>&page)[:sizeof(page)] + bytes(PAGE - sizeof(page)))


def open_private(path: str):
    """A new file for the store's user and group alone."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o660), "wb")


cdef class Store:
    """A greylist store, open in this process. Get one from fastgrey.open()."""

    cdef StoreState state
    cdef readonly str path
    cdef readonly bint throw_away
    cdef int pid
    cdef object lock
    cdef bint closed
    cdef int users
    # Keeps the number of the directory from being given to another one, by which open() tells stores apart.
    cdef int anchor

    def __cinit__(self, path: str, bint throw_away=False):
        cdef bytes name = os.fsencode(path)
        memset(&self.state, 0, sizeof(self.state))
        self.path = path
        self.pid = getpid()
        self.lock = threading.RLock()
        self.users = 1
        self.anchor = -1
        self.throw_away = throw_away
        if throw_away:
            self.state.flags = THROW_AWAY
        self._raise(store_path(&self.state, name))
        with self.lock:
            self._probe()
        self.anchor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __dealloc__(self):
        # In a child that a fork made, closing would act on locks and slots of the parent.
        if self.pid == getpid() and not self.closed:
            self._close()

    cdef void _close(self) noexcept:
        self.closed = True
        store_close(&self.state)
        close(self.anchor)

    cdef int _raise(self, int fault) except -1:
        if fault != NO_FAULT:
            raise StoreError(cause_text(&self.state, fault, self.state.error))
        return 0

    cdef int _probe(self) except -1:
        """Open what is there and read its head; StoreError where that fails."""
        cdef MDB_txn *txn = NULL
        cdef int fault
        with nogil:
            fault = passed_read(&self.state, &txn)
            environment_read_end(&self.state.passed)
        return self._raise(fault)

    cdef int _usable(self) except -1:
        cdef int pid = getpid()
        if pid != self.pid:
            raise ForkedError(f"store {self.path} was opened by process {self.pid} and carried over a fork into "
                              f"process {pid}; open it anew there")
        if self.closed:
            raise ClosedError(f"store {self.path} is closed; open it anew")
        return 0

    def check(self, *, client, sender, recipient, client_name=None, name_trusted=None, relay=False, now=None,
              dry_run=False):
        """Decide one recipient of one message, and record what the decision says.

        client: IP address. sender, recipient: envelope addresses (RFC 5321 section 3.3). client_name: host name of
        the client. All of them str or bytes. name_trusted: whether that name is forward-confirmed, None for what the
        setting says. relay: the client may relay. now: Unix seconds, None for the clock. dry_run: write nothing.

        Returns a Verdict. What keeps a decision from being made is a verdict too, with reason 'error' and a cause.
        Raises ForkedError, ClosedError, TypeError.
        """
        cdef Request q
        cdef VerdictState v
        cdef bytes client_bytes = as_bytes(client, "client")
        cdef bytes sender_bytes = as_bytes(sender, "sender")
        cdef bytes recipient_bytes = as_bytes(recipient, "recipient")
        cdef bytes name_bytes = as_bytes(client_name, "client_name") if client_name is not None else b""
        self._usable()
        q.client = bytes_span(client_bytes)
        q.name = bytes_span(name_bytes)
        q.sender = bytes_span(sender_bytes)
        q.recipient = bytes_span(recipient_bytes)
        q.name_trusted = -1 if name_trusted is None else 1 if name_trusted else 0
        q.relay = relay
        q.dry = dry_run
        moment = int(clock.time() if now is None else now)
        # The core knows what is wrong with -1; other numbers may not fit its type.
        q.now = moment if 0 <= moment <= TIME_MAX else -1
        with self.lock:
            with nogil:
                decide(&self.state, &q, &v)
            return Verdict(
                ACTION_NAMES[v.action], REASON_NAMES[v.reason], v.wait,
                cause_text(&self.state, v.fault, v.error) if v.fault != NO_FAULT else None,
                short_key(v.key) if v.has_key else None,
            )

    def close(self):
        """Give the store back. The last of several opens of the same store in a process closes it."""
        if self.pid != getpid() or self.closed:
            return
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self._close()

    def _share(self):
        self.users += 1

    def _alone(self):
        """A context in which no other thread of this process uses the store."""
        return self.lock

    @property
    def is_open(self):
        """Whether this process may use the store."""
        return not self.closed and self.pid == getpid()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def head(self):
        """Format version, generation number, time made, settings by slot, and whether a compaction is noted."""
        self._usable()
        with self.lock:
            self._probe()
            return {
                "version": self.state.head.version,
                "generation": self.state.generation.decode(),
                "made": self.state.head.made,
                "noting": bool(self.state.head.noting),
                "settings": [(<int64_t *>&self.state.head.settings)[i] for i in range(SETTINGS)],
            }

    def configure(self, settings: list[int]):
        """Set every setting, by slot, in one transaction."""
        cdef MDB_txn *txn = NULL
        cdef Head head
        cdef int rc, i, attempt
        cdef bint again = True
        cdef int64_t values[SETTINGS]
        self._usable()
        for i in range(SETTINGS):
            values[i] = settings[i]
        with self.lock:
            for attempt in range(TRIES):
                self._raise(passed_write(&self.state, &txn))
                head = self.state.head
                memcpy(&head.settings, values, sizeof(values))
                rc = head_put(&self.state, txn, &head)
                rc = passed_commit(&self.state, txn, rc, &again)
                if not again:
                    self._raise(rc)
                    break
            if self.state.counters != NULL:
                self.state.counters.defer_on_error = head.settings.defer_on_error != 0

    def counters(self):
        """The counters by name; None where there is no usable page of them."""
        cdef CounterPage *page = self.state.counters
        self._usable()
        if page == NULL:
            return None
        verdicts = {}
        for action in range(3):
            for reason in range(DENIED + 1):
                number = fastgrey_counted(&page.slots[action * REASONS + reason])
                if number:
                    verdicts[f"{ACTION_NAMES[action]} {REASON_NAMES[reason]}"] = number
        return {
            "verdicts": verdicts,
            "events": {
                "promoted": fastgrey_counted(&page.slots[COUNT_PROMOTED]),
                "refreshed": fastgrey_counted(&page.slots[COUNT_REFRESHED]),
                "not refreshed": fastgrey_counted(&page.slots[COUNT_NOT_REFRESHED]),
                "not recorded": fastgrey_counted(&page.slots[COUNT_NOT_RECORDED]),
                "partitions given up": fastgrey_counted(&page.slots[COUNT_GIVEN_UP]),
            },
            "defer_on_error": bool(page.defer_on_error),
        }

    def known(self):
        """Number of known records by kind, the expired ones included."""
        cdef MDB_txn *txn = NULL
        cdef MDB_stat stat
        self._usable()
        with self.lock:
            self._raise(passed_read(&self.state, &txn))
            numbers = {}
            for kind in range(4):
                mdb_stat(txn, self.state.known[kind], &stat)
                numbers[kind_name(kind).decode()] = stat.ms_entries
            environment_read_end(&self.state.passed)
            return numbers

    def alive(self, now: int):
        """Number of known records by kind that have not expired at the Unix time now. Goes through all of them."""
        cdef MDB_txn *txn = NULL
        cdef MDB_cursor *cursor = NULL
        cdef MDB_val key, value
        cdef int64_t when = now
        cdef size_t number
        cdef int kind, rc
        self._usable()
        with self.lock:
            self._raise(passed_read(&self.state, &txn))
            numbers = {}
            for kind in range(4):
                number = 0
                with nogil:
                    rc = mdb_cursor_open(txn, self.state.known[kind], &cursor)
                    if rc == 0:
                        rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
                        while rc == 0:
                            number += value_alive(&self.state, &value, when)
                            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
                        mdb_cursor_close(cursor)
                numbers[kind_name(kind).decode()] = number
            environment_read_end(&self.state.passed)
            return numbers

    def partitions(self):
        """The partitions of pending that may hold live records: start and length in seconds, number of records."""
        cdef MDB_txn *txn = NULL
        cdef MDB_stat stat
        cdef Partitions parts
        cdef int rc
        self._usable()
        with self.lock:
            self._probe()
            if self.state.pending.env == NULL:
                self._raise(pending_open(&self.state))
            rc = environment_read(&self.state.pending, &txn)
            if rc == 0:
                # From time 0 no partition is in the past.
                rc = partitions_list(&self.state, txn, 0, 0, &parts)
                found = []
                for i in range(parts.size if rc == 0 else 0):
                    mdb_stat(txn, parts.items[i].dbi, &stat)
                    found.append({"start": parts.items[i].start, "length": parts.items[i].length,
                                  "records": stat.ms_entries})
                environment_read_end(&self.state.pending)
            if rc != 0:
                self._raise(fail(&self.state, CANNOT_READ, rc))
            return found[::-1]

    def drop_expired(self, now: int) -> int:
        """Drop the partitions of pending that hold no live record any more; their number."""
        cdef MDB_txn *txn = NULL
        cdef int rc, dropped = 0, attempt
        cdef int64_t when = now
        self._usable()
        with self.lock:
            self._probe()
            if self.state.pending.env == NULL:
                self._raise(pending_open(&self.state))
            rc = environment_write(&self.state.pending, &txn)
            if rc == 0:
                rc = partitions_drop(txn, when, pending_horizon(&self.state), &dropped)
                if rc == 0:
                    rc = mdb_txn_commit(txn)
                else:
                    mdb_txn_abort(txn)
            if rc != 0:
                self._raise(fail(&self.state, CANNOT_WRITE, rc))
            return dropped

    def readers(self) -> tuple[int, int]:
        """Reader slots in use in the generation in force, and how many stale ones were freed just now."""
        cdef MDB_envinfo info
        cdef int dead = 0
        self._usable()
        with self.lock:
            self._probe()
            mdb_reader_check(self.state.passed.env, &dead)
            mdb_env_info(self.state.passed.env, &info)
            return info.me_numreaders, dead


cdef class Copy:
    """One compaction: from the generation in force of a store into a new one in an existing empty directory."""

    cdef Store store
    cdef StoreState target
    cdef MDB_txn *source
    cdef MDB_txn *copied
    cdef CopyState state
    cdef int64_t now
    cdef uint64_t live[4]
    cdef readonly int generation

    def __cinit__(self, Store store, path: str, int generation, int64_t now):
        memset(&self.target, 0, sizeof(self.target))
        memset(&self.state, 0, sizeof(self.state))
        self.source = NULL
        self.copied = NULL
        self.store = store
        self.now = now
        self.generation = generation
        store._usable()
        self._begin(os.fsencode(path))

    def __dealloc__(self):
        self._end()

    cdef void _end(self) noexcept:
        if self.source != NULL:
            mdb_txn_abort(self.source)
            self.source = NULL
        if self.copied != NULL:
            mdb_txn_abort(self.copied)
            self.copied = NULL
        environment_close(&self.target.passed)

    cdef int _check(self, int rc, str what) except -1:
        if rc != 0:
            raise CompactionError(f"cannot {what} in {self.store.path}: {mdb_strerror(rc).decode()}; "
                                  "the generation in force is unchanged")
        return 0

    cdef int _begin(self, bytes path) except -1:
        """Let writers note what they touch, then take the snapshot: all later writes are in the notes."""
        cdef StoreState *s = &self.store.state
        cdef MDB_txn *txn = NULL
        cdef Head head
        cdef MDB_envinfo info
        cdef MDB_stat stat
        cdef int fault, rc, attempt
        cdef bint again = True
        for attempt in range(TRIES):
            self.store._raise(passed_write(s, &txn))
            rc = mdb_drop(txn, s.touched, 0)
            head = s.head
            head.noting = 1
            if rc == 0:
                rc = head_put(s, txn, &head)
            fault = passed_commit(s, txn, rc, &again)
            if not again:
                self.store._raise(fault)
                break
        self._check(mdb_txn_begin(s.passed.env, NULL, MDB_RDONLY, &self.source), "take a snapshot")
        mdb_env_info(s.passed.env, &info)
        mdb_stat(self.source, s.meta, &stat)
        head.generation = self.generation
        head.noting = 0
        self.target.head = head
        self._check(generation_create(&self.target, path, &head), "make a new generation")
        # A copy is never larger than what is copied, but for a few pages that its own commits leave free.
        self._check(environment_resize(&self.target.passed, (info.me_last_pgno + 1) * stat.ms_psize + (1 << 20)),
                    "size the new generation")
        # One flush at the end stands for all of them.
        self._check(mdb_env_set_flags(self.target.passed.env, MDB_NOSYNC, 1), "prepare the new generation")
        return 0

    def total(self) -> int:
        """Records to go through."""
        cdef MDB_stat stat
        number = 0
        for kind in range(4):
            mdb_stat(self.source, self.store.state.known[kind], &stat)
            number += stat.ms_entries
        return number

    def copy(self, int limit) -> int:
        """Copy up to limit more records; how many were looked at, 0 when all are done."""
        cdef int rc
        cdef uint64_t before
        while self.state.kind <= PAIR:
            before = self.state.alive + self.state.expired
            with nogil:
                rc = copy_some(&self.store.state, self.source, &self.target, self.now, limit, &self.state)
                if rc == MDB_MAP_FULL:
                    rc = environment_grow(&self.target.passed, 0)
            if rc == MDB_NOTFOUND:
                self.live[self.state.kind] = self.state.alive - sum([self.live[k] for k in range(self.state.kind)])
                self.state.kind += 1
                self.state.started = False
            elif rc != 0:
                self._check(rc, "copy")
            if self.state.alive + self.state.expired > before:
                return self.state.alive + self.state.expired - before
        return 0

    def rewind(self) -> tuple[int, int]:
        """Flush the copy and begin to compare it; the numbers of live and of expired records."""
        cdef int rc
        numbers = self.state.alive, self.state.expired
        with nogil:
            rc = mdb_env_sync(self.target.passed.env, 1)
        self._check(rc, "flush the new generation")
        self._check(mdb_txn_begin(self.target.passed.env, NULL, MDB_RDONLY, &self.copied), "read the new generation")
        memset(&self.state, 0, sizeof(self.state))
        return numbers

    def compare(self, int limit) -> int:
        """Compare up to limit more records; how many were looked at, 0 when all are done and the counts agree too."""
        cdef int rc
        cdef uint64_t before
        cdef MDB_stat stat
        while self.state.kind <= PAIR:
            before = self.state.alive + self.state.expired
            with nogil:
                rc = compare_some(&self.store.state, self.source, &self.target, self.copied, self.now, limit,
                                  &self.state)
            if rc == MDB_NOTFOUND:
                mdb_stat(self.copied, self.target.known[self.state.kind], &stat)
                if stat.ms_entries != self.live[self.state.kind]:
                    self._check(MDB_INVALID, "verify the new generation")
                self.state.kind += 1
                self.state.started = False
            elif rc != 0:
                self._check(rc, "verify the new generation")
            if self.state.alive + self.state.expired > before:
                return self.state.alive + self.state.expired - before
        return 0

    def finish(self, swap) -> int:
        """Under the write lock of the old generation: bring over what was touched, flush, call swap(), mark the old
        one superseded. The number of touched records."""
        cdef StoreState *s = &self.store.state
        cdef MDB_txn *txn = NULL
        cdef MDB_txn *copy = NULL
        cdef Head head
        cdef uint64_t touched = 0
        cdef int rc, fault
        # The map may have to move to another size; nothing may be reading it then.
        mdb_txn_abort(self.copied)
        mdb_txn_abort(self.source)
        self.copied = self.source = NULL
        with nogil:
            fault = passed_write(s, &txn)
        self.store._raise(fault)
        try:
            head = s.head
            head.generation = self.generation
            head.noting = 0
            while True:
                touched = 0
                self._check(environment_write(&self.target.passed, &copy), "write the new generation")
                with nogil:
                    rc = copy_touched(s, txn, &self.target, copy, self.now, &touched)
                    if rc == 0:
                        rc = head_put(&self.target, copy, &head)
                    if rc == 0:
                        rc = mdb_txn_commit(copy)
                    else:
                        mdb_txn_abort(copy)
                    if rc == 0:
                        rc = mdb_env_sync(self.target.passed.env, 1)
                if rc != MDB_MAP_FULL:
                    break
                self._check(environment_grow(&self.target.passed, 0), "size the new generation")
            self._check(rc, "write the new generation")
            swap()
        except BaseException:
            mdb_txn_abort(txn)
            raise
        # From here the new generation is in force. The mark lets those who only read the old one notice; writers go
        # by the symlink. So a mark that cannot be written takes nothing back.
        head = s.head
        head.superseded = self.generation
        head.noting = 0
        rc = mdb_drop(txn, s.touched, 0)
        if rc == 0:
            rc = head_put(s, txn, &head)
        if rc == 0:
            rc = mdb_txn_commit(txn)
        else:
            mdb_txn_abort(txn)
        self._end()
        environment_close(&s.passed)
        self.store._probe()
        return touched
