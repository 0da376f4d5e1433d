# A generation by its path, in force or not, as it is at one moment.

cdef class Checksum:
    """XXH3-128 of bytes that come piece by piece."""

    cdef XXH3_state_t *state

    def __cinit__(self):
        self.state = XXH3_createState()
        if self.state == NULL or XXH3_128bits_reset(self.state) != 0:
            raise MemoryError

    def __dealloc__(self):
        XXH3_freeState(self.state)

    def update(self, const unsigned char[::1] data) -> None:
        """Add some bytes."""
        if data.shape[0]:
            XXH3_128bits_update(self.state, &data[0], data.shape[0])

    def hexdigest(self) -> str:
        """The checksum of all bytes so far, 32 hex digits, big-endian."""
        return hash_shown(XXH3_128bits_digest(self.state))


cdef str hash_shown(XXH128_hash_t hash):
    return f"{hash.high64:016x}{hash.low64:016x}"


cdef class Generation:
    """The generation in a directory, read by the program's own LMDB; `file`: a backup, of which it is the beginning.

    A damaged one may end the process. One process must not have the same environment open twice.
    """

    cdef StoreState state
    cdef MDB_txn *txn
    cdef MDB_cursor *cursor
    cdef Tally tallies[4]
    cdef int kind
    cdef bint started
    cdef int pid
    cdef readonly str path

    def __cinit__(self, path: str, bint file=False):
        cdef unsigned int flags = MDB_RDONLY
        cdef bytes name = os.fsencode(path)
        memset(&self.state, 0, sizeof(self.state))
        memset(self.tallies, 0, sizeof(self.tallies))
        self.path = path
        self.pid = getpid()
        if file:
            flags |= MDB_NOSUBDIR | MDB_NOLOCK
        rc = environment_open(&self.state.passed, name, flags, PASSED_TABLES)
        if rc == 0:
            rc = environment_read(&self.state.passed, &self.txn)
        self._check(rc)

    def __dealloc__(self):
        # In a child that a fork made, closing would act on locks and slots of the parent.
        if self.pid == getpid():
            self.close()

    def close(self):
        """Give it back."""
        if self.cursor != NULL:
            mdb_cursor_close(self.cursor)
            self.cursor = NULL
        self.txn = NULL
        environment_close(&self.state.passed)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    cdef int _check(self, int rc) except -1:
        if rc != 0:
            raise StoreError(f"cannot read {self.path}: {opening_text(rc)}")
        return 0

    def copy(self, int descriptor) -> None:
        """Write a packed copy, as it is at one moment from now on, to a file or pipe (mdb_env_copyfd2). OSError."""
        cdef int rc
        with nogil:
            rc = mdb_env_copyfd2(self.state.passed.env, descriptor, MDB_CP_COMPACT)
        if rc > 0:
            raise OSError(rc, os.strerror(rc))
        self._check(rc)

    @property
    def transaction(self) -> int:
        """The number of the last transaction that it holds."""
        return mdb_txn_id(self.txn)

    def head(self):
        """The head; StoreError where it is none of this format. Opens the tables."""
        cdef MDB_val key, value
        cdef int kind, rc
        rc = mdb_dbi_open(self.txn, b"meta", 0, &self.state.meta)
        if rc == 0:
            rc = mdb_dbi_open(self.txn, b"touched", 0, &self.state.touched)
        for kind in range(4):
            if rc == 0:
                rc = mdb_dbi_open(self.txn, kind_name(kind), 0, &self.state.known[kind])
        if rc == 0:
            head_key(&key)
            rc = mdb_get(self.txn, self.state.meta, &key, &value)
        self._check(rc)
        fault = head_check(&value)
        if fault != NO_FAULT:
            raise StoreError(f"cannot use {self.path}: {fault_text(fault).decode()}; {fault_remedy(fault).decode()}")
        memcpy(&self.state.head, value.mv_data, sizeof(Head))
        return {
            "generation": self.state.head.generation,
            "superseded": self.state.head.superseded,
            "noting": bool(self.state.head.noting),
            "made": self.state.head.made,
            "policy": self.state.head.policy,
            "rules": self.state.head.rules,
            "settings": settings_list(&self.state.head),
            "secret": self.state.head.secret[:SECRET_SIZE],
            "checksum": hash_shown(XXH3_128bits(value.mv_data, value.mv_size)),
        }

    def policy(self):
        """The compiled policy as bytes, None where there is none."""
        return policy_bytes(&self.state, self.txn)

    def records(self) -> int:
        """Number of known records."""
        cdef MDB_stat stat
        number = 0
        for kind in range(4):
            self._check(mdb_stat(self.txn, self.state.known[kind], &stat))
            number += stat.ms_entries
        return number

    def count(self, int limit, int64_t latest) -> int:
        """Go through up to limit known records more; how many were looked at, 0 when all were. Those with a time after
        `latest`, Unix seconds, are ahead."""
        cdef int rc
        cdef uint64_t before
        while self.kind <= PAIR:
            if self.cursor == NULL:
                self._check(mdb_cursor_open(self.txn, self.state.known[self.kind], &self.cursor))
                self.started = False
            before = self.tallies[self.kind].records
            with nogil:
                rc = tally_some(self.cursor, &self.started, kind_byte(self.kind), 1, latest, limit,
                                &self.tallies[self.kind])
            if rc == MDB_NOTFOUND:
                rc = 0
                mdb_cursor_close(self.cursor)
                self.cursor = NULL
                self.kind += 1
                self._check(rc)
                if self.tallies[self.kind - 1].records > before:
                    return self.tallies[self.kind - 1].records - before
                continue
            self._check(rc)
            return self.tallies[self.kind].records - before
        return 0

    def tally(self):
        """What count has gone through, by kind: records, their checksum, misshapen, empty and ahead."""
        return {kind_name(kind).decode(): tally_dict(&self.tallies[kind]) for kind in range(4)}

    def windows(self, int64_t latest):
        """The same of the windows, and with it the number of other entries beside them."""
        cdef Tally t
        cdef uint64_t others = 0
        memset(&t, 0, sizeof(t))
        self._check(tally_windows(self.txn, self.state.meta, latest, &t, &others))
        return tally_dict(&t) | {"others": others}


cdef dict tally_dict(const Tally *t):
    cdef XXH128_hash_t sum
    sum.low64, sum.high64 = t.low, t.high
    return {"records": t.records, "checksum": hash_shown(sum), "misshapen": t.misshapen, "empty": t.empty,
            "ahead": t.ahead}


cdef unsigned char kind_byte(int kind) noexcept nogil:
    """The byte of the kind in messages that are hashed (docs/format.md)."""
    return (<const unsigned char *>b"cdtp")[kind]


cdef class Comparison:
    """What a newer generation has that an older one of the same store has not, and the other way round."""

    cdef Generation newer
    cdef Generation older
    cdef Side sides[2]
    cdef Difference differences[4]
    cdef int kind
    cdef bint begun
    cdef int64_t now

    def __cinit__(self, Generation newer, Generation older, int64_t now):
        memset(self.sides, 0, sizeof(self.sides))
        memset(self.differences, 0, sizeof(self.differences))
        self.newer, self.older, self.now = newer, older, now

    cdef int _begin(self) except -1:
        self.newer._check(mdb_cursor_open(self.newer.txn, self.newer.state.known[self.kind], &self.sides[0].cursor))
        self.older._check(mdb_cursor_open(self.older.txn, self.older.state.known[self.kind], &self.sides[1].cursor))
        side_next(&self.sides[0], True)
        side_next(&self.sides[1], True)
        self.begun = True
        return 0

    cdef void _end(self) noexcept:
        for side in range(2):
            if self.sides[side].cursor != NULL:
                mdb_cursor_close(self.sides[side].cursor)
                self.sides[side].cursor = NULL
        self.begun = False

    def go_on(self, int limit) -> bool:
        """Compare up to limit records more; False when all are compared. Both heads must have been read."""
        cdef int rc
        if self.kind > PAIR:
            return False
        if not self.begun:
            self._begin()
        with nogil:
            rc = difference_some(&self.older.state, &self.sides[0], &self.sides[1], self.now, limit,
                                 &self.differences[self.kind])
        if rc == MDB_NOTFOUND:
            self._end()
            self.kind += 1
            rc = 0
        if rc != 0:
            self._end()
            self.newer._check(rc)
        return True

    def found(self):
        """By kind: records that the newer has added, that are gone from it though alive in the older, and changed."""
        return {kind_name(kind).decode(): {"added": self.differences[kind].added, "gone": self.differences[kind].gone,
                                           "changed": self.differences[kind].changed} for kind in range(4)}
