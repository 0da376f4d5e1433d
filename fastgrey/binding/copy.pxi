# One compaction as an object, a step a call, so that Python can show progress between them.

cdef class Copy:
    """One compaction: from the generation in force of a store into a new one in an existing empty directory."""

    cdef Store store
    cdef StoreState target
    cdef MDB_txn *source
    cdef MDB_txn *copied
    cdef CopyState state
    cdef int64_t now
    # Live records of the kinds that are done.
    cdef uint64_t alive_before
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
        self._check(environment_write(&self.target.passed, &txn), "write the new generation")
        rc = copy_policy(s, self.source, &self.target, txn)
        if rc == 0:
            rc = mdb_txn_commit(txn)
        else:
            mdb_txn_abort(txn)
        self._check(rc, "copy the policy")
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
        return self._go_on(limit, False)

    def rewind(self) -> tuple[int, int]:
        """Flush the copy and begin to compare it; the numbers of live and of expired records."""
        cdef int rc
        numbers = self.state.alive, self.state.expired
        with nogil:
            rc = mdb_env_sync(self.target.passed.env, 1)
        self._check(rc, "flush the new generation")
        self._check(mdb_txn_begin(self.target.passed.env, NULL, MDB_RDONLY, &self.copied), "read the new generation")
        memset(&self.state, 0, sizeof(self.state))
        self.alive_before = 0
        return numbers

    def compare(self, int limit) -> int:
        """Compare up to limit more records; how many were looked at, 0 when all are done and the counts agree too."""
        return self._go_on(limit, True)

    cdef object _go_on(self, int limit, bint comparing):
        cdef int rc
        cdef uint64_t seen
        while self.state.kind <= PAIR:
            seen = self.state.alive + self.state.expired
            with nogil:
                if comparing:
                    rc = compare_some(&self.store.state, self.source, &self.target, self.copied, self.now, limit,
                                      &self.state)
                else:
                    rc = copy_some(&self.store.state, self.source, &self.target, self.now, limit, &self.state)
                if rc == MDB_MAP_FULL:
                    rc = environment_grow(&self.target.passed, 0)
            if rc == MDB_NOTFOUND:
                if comparing:
                    self._check_number()
                self.state.kind += 1
                self.state.started = False
                self.alive_before = self.state.alive
            else:
                self._check(rc, "verify the new generation" if comparing else "copy")
            if self.state.alive + self.state.expired > seen:
                return self.state.alive + self.state.expired - seen
        return 0

    cdef int _check_number(self) except -1:
        """The new generation has of this kind as many records as the old one has live ones, and so no other."""
        cdef MDB_stat stat
        mdb_stat(self.copied, self.target.known[self.state.kind], &stat)
        return self._check(0 if stat.ms_entries == self.state.alive - self.alive_before else MDB_INVALID,
                           "verify the new generation")

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
                        rc = copy_windows(s, txn, &self.target, copy, self.now, &head.windows_until)
                    if rc == 0 and head.policy != self.target.head.policy:
                        rc = copy_policy(s, txn, &self.target, copy)
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
