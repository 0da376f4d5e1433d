# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Loops around the core, in C, so that what is timed is the core and not the call from Python; and stores filled in
bulk. bench/core.py builds it; it is never installed."""

import os
from time import perf_counter

from libc.stdlib cimport malloc, qsort

include "fastgrey/core/core.pxi"
include "fastgrey/core/view.pxi"

cdef enum:
    # A group is an organisation: one client, one sender domain, so many known triplets.
    GROUP = 10
    # Records written in one transaction, and envelopes that the loop over hashing goes round.
    BATCH = 50_000
    PREPARED = 256
    # Requests from this number on are nobody's that fill() made known.
    FIRST_STRANGER = 2_000_000_000
    TEXT_SIZE = 64

cdef packed struct Entry:
    unsigned char key[KEY_SIZE]
    uint64_t record

cdef struct Sample:
    char client[TEXT_SIZE]
    char sender[TEXT_SIZE]
    char recipient[TEXT_SIZE]


cdef void letters(Text *t, uint64_t number, int least) noexcept nogil:
    """A number in base 26, of at least so many letters; no digits, which normalising would fold away."""
    while number or least > 0:
        text_char(t, <char>(c"a" + number % 26))
        number = number // 26
        least -= 1


cdef void sample(uint64_t i, Sample *out) noexcept nogil:
    """The request with number i. Those of a group share client and sender domain."""
    cdef uint64_t group = i // GROUP
    cdef Text t = text_begin(out.client, TEXT_SIZE)
    text_number(&t, 11 + (group >> 16) % 200, 1)
    text_char(&t, c".")
    text_number(&t, (group >> 8) & 255, 1)
    text_char(&t, c".")
    text_number(&t, group & 255, 1)
    text_char(&t, c".")
    text_number(&t, 1 + (group * 31) % 250, 1)
    text_end(&t)
    t = text_begin(out.sender, TEXT_SIZE)
    letters(&t, i, 6)
    text_char(&t, c".")
    letters(&t, i % 7000, 4)
    text_add(&t, b"@mail.")
    letters(&t, group, 5)
    text_add(&t, b".example")
    text_end(&t)
    t = text_begin(out.recipient, TEXT_SIZE)
    letters(&t, i * 7919 % 200_000, 5)
    text_add(&t, b"@dept.example.net")
    text_end(&t)


cdef Request request_of(const char *client, const char *sender, const char *recipient, int64_t now) noexcept nogil:
    cdef Request q
    memset(&q, 0, sizeof(Request))
    q.client = span(client, strlen(client))
    q.sender = span(sender, strlen(sender))
    q.recipient = span(recipient, strlen(recipient))
    q.name_trusted = -1
    q.now = q.clock = now
    return q


def stranger(number: int) -> tuple[bytes, bytes, bytes]:
    """The same of a stranger; each is an organisation of its own."""
    return triplet(FIRST_STRANGER + number * GROUP)


def triplet(number: int) -> tuple[bytes, bytes, bytes]:
    """Client, sender and recipient of request `number`, the one that fill() made known where it is low enough."""
    cdef Sample s
    sample(number, &s)
    return s.client, s.sender, s.recipient


cdef int by_key(const void *a, const void *b) noexcept nogil:
    return memcmp(a, b, KEY_SIZE)


cdef int put_rows(MDB_env *env, MDB_dbi dbi, const Entry *rows, size_t n, size_t start, size_t step,
                  unsigned int flags) noexcept nogil:
    """Write every step-th row from start on, in the order of the keys."""
    cdef MDB_txn *txn = NULL
    cdef MDB_val k, v
    cdef size_t i = start
    cdef int left, rc = 0
    while i < n and rc == 0:
        rc = mdb_txn_begin(env, NULL, 0, &txn)
        if rc != 0:
            return rc
        left = BATCH
        while i < n and left > 0 and rc == 0:
            k.mv_data = <void *>rows[i].key
            k.mv_size = KEY_SIZE
            v.mv_data = <void *>&rows[i].record
            v.mv_size = sizeof(uint64_t)
            rc = mdb_put(txn, dbi, &k, &v, flags)
            i += step
            left -= 1
        if rc == 0:
            rc = mdb_txn_commit(txn)
        else:
            mdb_txn_abort(txn)
    return rc


cdef int put_all(MDB_env *env, MDB_dbi dbi, Entry *rows, size_t n, bint packed) noexcept nogil:
    """Packed pages, as a compaction leaves them; or two thirds full, as records in no order do: every second record
    first, then the others between them."""
    cdef int rc
    qsort(rows, n, sizeof(Entry), by_key)
    if packed:
        return put_rows(env, dbi, rows, n, 0, 1, MDB_APPEND)
    rc = put_rows(env, dbi, rows, n, 0, 2, MDB_APPEND)
    return put_rows(env, dbi, rows, n, 1, 2, 0) if rc == 0 else rc


cdef int fill_kind(StoreState *s, int kind, Entry *rows, uint64_t number, int64_t now, bint packed,
                   int expired) noexcept nogil:
    cdef uint64_t i, group, n = 0, promotions
    cdef int64_t seen
    cdef Envelope e
    cdef Sample text
    cdef Request q
    for i in range(number):
        group = i // GROUP
        if kind != TRIPLET and (i % GROUP or group % 10 == 1):
            continue
        sample(i, &text)
        q = request_of(text.client, text.sender, text.recipient, now)
        if normalise(&q, &s.head, &e) != NO_FAULT:
            return MDB_INVALID
        seen = now - 1000
        promotions = 1
        if kind == TRIPLET:
            key_triplet(&e, 0, s.head.secret, rows[n].key)
            if expired and i % expired == 0:
                seen = now - s.head.settings.lifetime - 86400
        elif kind == DOMAIN:
            key_domain(&e, 0, s.head.secret, rows[n].key)
        else:
            key_client(&e, s.head.secret, rows[n].key)
            promotions = 5 if group % 10 == 0 else 1
        rows[n].record = record_pack(seen, promotions)
        n += 1
    return put_all(s.passed.env, s.known[kind], rows, n, packed)


def fill(path: str, number: int, now: int, *, packed: bool = True, expired: int = 0) -> None:
    """Make requests 0 to number-1 known in the new store at path, last seen before `now` (Unix seconds).

    Of the groups each tenth has a client with five promotions (group 0, 10, ...), each tenth neither client nor domain
    (1, 11, ...), the others a known domain. expired: each so-manieth triplet is, 0 for none. Nothing may have the store
    open. Raises OSError.
    """
    cdef StoreState s
    cdef MDB_txn *txn = NULL
    cdef Entry *rows = <Entry *>malloc(<size_t>number * sizeof(Entry))
    cdef uint64_t n = number
    cdef int64_t moment = now
    cdef int rc, kind, every = expired
    cdef bint dense = packed
    cdef bytes name = os.fsencode(path)
    if rows == NULL:
        raise MemoryError
    memset(&s, 0, sizeof(s))
    s.flags = THROW_AWAY
    store_path(&s, name)
    with nogil:
        rc = passed_write(&s, &txn)
        if rc == NO_FAULT:
            mdb_txn_abort(txn)
            rc = environment_resize(&s.passed, (1 << 24) + <size_t>n * 100)
            for kind in range(3):
                if rc == 0:
                    rc = fill_kind(&s, kind, rows, n, moment, dense, every)
            if rc == 0:
                rc = mdb_env_sync(s.passed.env, 1)
        free(rows)
        store_close(&s)
    if rc != 0:
        raise OSError(f"bench: cannot fill {path}: {mdb_strerror(rc).decode()} ({rc})")


def fill_pending(path: str, number: int, now: int) -> None:
    """Record the strangers population.strangers(number) in the store at path, first seen at `now`, in pages two thirds
    full, in the partition of that time, whatever its share of the bound. Raises OSError."""
    cdef StoreState s
    cdef Envelope e
    cdef Sample text
    cdef Request q
    cdef Partitions parts
    cdef MDB_txn *txn = NULL
    cdef MDB_dbi dbi = 0
    cdef Entry *rows = <Entry *>malloc(2 * <size_t>number * sizeof(Entry))
    cdef uint64_t i, n = number
    cdef int64_t moment = now
    cdef int rc, given_up = 0
    cdef bytes name = os.fsencode(path)
    if rows == NULL:
        raise MemoryError
    memset(&s, 0, sizeof(s))
    store_path(&s, name)
    with nogil:
        rc = passed_read(&s, &txn)
        environment_read_end(&s.passed)
        if rc == NO_FAULT:
            rc = pending_open(&s, True)
        if rc == NO_FAULT:
            rc = environment_resize(&s.pending, (1 << 24) + <size_t>n * 200)
        if rc == 0:
            rc = environment_write(&s.pending, &txn)
        if rc == 0:
            parts.size = 0
            rc = partition_current(&s, txn, moment, &parts, &given_up, &dbi)
            rc = mdb_txn_commit(txn) if rc == 0 else rc
        if rc == 0:
            for i in range(n):
                sample(FIRST_STRANGER + i * GROUP, &text)
                q = request_of(text.client, text.sender, text.recipient, moment)
                normalise(&q, &s.head, &e)
                key_pair(&e, s.head.secret, rows[2 * i].key)
                rows[2 * i].record = record_pack(moment, 1)
                key_waiting(&e, 0, s.head.secret, rows[2 * i + 1].key)
                rows[2 * i + 1].record = record_pack(moment, 0)
            rc = put_all(s.pending.env, dbi, rows, 2 * n, False)
        free(rows)
        store_close(&s)
    if rc != 0:
        raise OSError(f"bench: cannot fill {path} with strangers: {rc}")


cdef inline const char *after(const char *text) noexcept nogil:
    return text + strlen(text) + 1


cdef class Workload:
    """Requests, packed one after the other."""

    cdef Request *items
    cdef readonly int size
    cdef bytes text

    def __cinit__(self, requests, now: int):
        """requests: (client, sender, recipient) as bytes. now: Unix seconds, the moment of all of them."""
        cdef const char *p
        cdef int i
        texts = [b"\0".join(one) for one in requests]
        self.text = b"\0".join(texts) + b"\0"
        self.size = len(texts)
        self.items = <Request *>malloc(self.size * sizeof(Request))
        p = self.text
        for i in range(self.size):
            self.items[i] = request_of(p, after(p), after(after(p)), now)
            p = after(after(after(p)))

    def __dealloc__(self):
        free(self.items)

    def at(self, now: int) -> None:
        """Move all of them to another moment."""
        cdef int i
        for i in range(self.size):
            self.items[i].now = self.items[i].clock = now


cdef class Loops:
    """A store, and loops over the steps of a check of it. Each returns its seconds for one pass over the workload."""

    cdef StoreState state
    cdef Workload work
    cdef unsigned char *keys
    cdef Envelope *prepared
    cdef readonly dict reasons
    # Known triplets in the store, for whoever asks.
    cdef public int known

    def __cinit__(self, path: str, *, bint flush=True):
        """flush: False for a store that no promotion flushes. A process may have a store open once only."""
        cdef MDB_txn *txn = NULL
        cdef int fault
        cdef bytes name = os.fsencode(path)
        memset(&self.state, 0, sizeof(self.state))
        self.state.flags = 0 if flush else THROW_AWAY
        store_path(&self.state, name)
        self.prepared = <Envelope *>malloc(PREPARED * sizeof(Envelope))
        fault = passed_read(&self.state, &txn)
        environment_read_end(&self.state.passed)
        if fault != NO_FAULT:
            raise OSError(f"bench: {fault_text(fault).decode()}: {path}")

    def take(self, Workload work) -> None:
        """The workload of the loops from now on; its keys are made ready."""
        cdef Envelope e
        cdef int i
        self.work = work
        free(self.keys)
        self.keys = <unsigned char *>malloc(work.size * KEY_SIZE)
        for i in range(work.size):
            if normalise(&work.items[i], &self.state.head, &e) != NO_FAULT:
                raise ValueError(f"bench: request {i}")
            key_triplet(&e, 0, self.state.head.secret, self.keys + i * KEY_SIZE)
            if i < PREPARED:
                self.prepared[i] = e

    def __dealloc__(self):
        self.close()

    def close(self) -> None:
        """Give the store back."""
        free(self.keys)
        free(self.prepared)
        self.keys = NULL
        self.prepared = NULL
        store_close(&self.state)

    def flush_strangers(self, bint flush) -> None:
        """Whether every commit of pending is flushed to the disk, which no store does."""
        if (pending_open(&self.state, True) != NO_FAULT
                or mdb_env_set_flags(self.state.pending.env, MDB_NOSYNC, not flush) != 0):
            raise OSError("bench: cannot open pending")

    def get(self) -> float:
        """A bare mdb_get of each ready key, all in one transaction."""
        cdef MDB_txn *txn = NULL
        cdef MDB_val k, v
        cdef int i, found = 0
        started = perf_counter()
        with nogil:
            passed_read(&self.state, &txn)
            for i in range(self.work.size):
                k.mv_data = self.keys + i * KEY_SIZE
                k.mv_size = KEY_SIZE
                found += mdb_get(txn, self.state.known[<int>TRIPLET], &k, &v) == 0
            environment_read_end(&self.state.passed)
        return self._all(found, started)

    def look(self) -> float:
        """The look-up of a ready key: a snapshot, the record, whether it is alive."""
        cdef MDB_txn *txn = NULL
        cdef Match m
        cdef int i, found = 0
        started = perf_counter()
        with nogil:
            for i in range(self.work.size):
                passed_read(&self.state, &txn)
                m.least = 1
                memcpy(m.key, self.keys + i * KEY_SIZE, KEY_SIZE)
                if known_get(&self.state, txn, TRIPLET, m.key, &m.record) == 0:
                    found += known_passes(&self.state.head.settings, &m, self.work.items[i].now)
                environment_read_end(&self.state.passed)
        return self._all(found, started)

    def normalise(self) -> float:
        """Client, sender and recipient to their normal form."""
        cdef Envelope e
        cdef int i, found = 0
        started = perf_counter()
        with nogil:
            for i in range(self.work.size):
                found += normalise(&self.work.items[i], &self.state.head, &e) == NO_FAULT
        return self._all(found, started)

    def hash(self) -> float:
        """The key of a triplet in its normal form; they are few and go round, so that they lie in the cache."""
        cdef unsigned char key[KEY_SIZE]
        cdef int i, few = min(self.work.size, PREPARED), found = 0
        started = perf_counter()
        with nogil:
            for i in range(self.work.size):
                key_triplet(&self.prepared[i % few], 0, self.state.head.secret, key)
                found += memcmp(key, self.keys + (i % few) * KEY_SIZE, KEY_SIZE) == 0
        return self._all(found, started)

    def decide(self) -> float:
        """The whole of it. `reasons` says afterwards how many were decided how."""
        cdef VerdictState v
        cdef long counts[DENIED + 1]
        cdef int i
        memset(counts, 0, sizeof(counts))
        started = perf_counter()
        with nogil:
            for i in range(self.work.size):
                decide(&self.state, &self.work.items[i], &v)
                counts[v.reason] += 1
        taken = perf_counter() - started
        self.reasons = {reason_name(i).decode(): counts[i] for i in range(DENIED + 1) if counts[i]}
        return taken

    def decide_for(self, seconds: float) -> float:
        """Decide round and round for at least so long; the decisions a second."""
        cdef VerdictState v
        cdef long done = 0
        cdef int i = 0, n
        started = perf_counter()
        while perf_counter() - started < seconds:
            with nogil:
                for n in range(2000):
                    decide(&self.state, &self.work.items[i], &v)
                    i += 1
                    if i == self.work.size:
                        i = 0
            done += 2000
        return done / (perf_counter() - started)

    def only_triplets(self, bint only) -> None:
        """Whether steps 6 and 7 are left out, as under allow_client_after = 0 and allow_domain_after = 0."""
        self.state.head.settings.allow_client_after = 0 if only else 5
        self.state.head.settings.allow_domain_after = 0 if only else 1

    cdef _all(self, int found, started):
        taken = perf_counter() - started
        if found != self.work.size:
            raise ValueError(f"bench: {found} of {self.work.size} were found")
        return taken


cdef class Bare:
    """An LMDB environment without anything around it: what writing costs at least."""

    cdef Environment environment
    cdef MDB_dbi table
    cdef uint64_t serial

    def __cinit__(self, path: str, *, bint flush):
        cdef MDB_txn *txn = NULL
        cdef bytes name = os.fsencode(path)
        os.makedirs(path, exist_ok=True)
        memset(&self.environment, 0, sizeof(Environment))
        if (environment_open(&self.environment, name, 0 if flush else MDB_NOSYNC, 4) != 0
                or environment_resize(&self.environment, 1 << 34) != 0
                or environment_write(&self.environment, &txn) != 0
                or mdb_dbi_open(txn, b"bare", MDB_CREATE, &self.table) != 0 or mdb_txn_commit(txn) != 0):
            raise OSError(f"bench: cannot open {path}")

    def __dealloc__(self):
        environment_close(&self.environment)

    def put(self, int transactions, int records) -> float:
        """Seconds of so many transactions of so many records each, side by side under one random half key."""
        cdef MDB_txn *txn = NULL
        cdef MDB_val k, v
        cdef unsigned char key[KEY_SIZE]
        cdef uint64_t half
        cdef int i, n, rc = 0
        started = perf_counter()
        with nogil:
            for i in range(transactions):
                self.serial += 1
                half = XXH3_64bits_withSeed(&self.serial, sizeof(uint64_t), 0)
                rc = mdb_txn_begin(self.environment.env, NULL, 0, &txn)
                for n in range(records):
                    memset(key, n, KEY_SIZE)
                    memcpy(key, &half, sizeof(uint64_t))
                    k.mv_data = key
                    k.mv_size = KEY_SIZE
                    v.mv_data = &half
                    v.mv_size = sizeof(uint64_t)
                    if rc == 0:
                        rc = mdb_put(txn, self.table, &k, &v, 0)
                if rc == 0:
                    rc = mdb_txn_commit(txn)
                if rc != 0:
                    break
        if rc != 0:
            raise OSError(f"bench: {mdb_strerror(rc).decode()}")
        return perf_counter() - started
