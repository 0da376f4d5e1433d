# One compaction as an object, a step a call, so that Python can show progress between them.

cdef class Copy:
    """One compaction: from the generation in force of a store into a new one in an existing empty directory."""

    cdef Store store
    cdef StoreState target
    cdef MDB_txn *source
    cdef MDB_txn *copied
    cdef CopyState state
    cdef NoteState notes
    cdef int64_t now
    # Live records of the kinds that are done.
    cdef uint64_t alive_before
    cdef readonly int generation
    # Windows of the old generation that had closed; known from finish() on.
    cdef readonly uint64_t windows_closed
    # Seconds for which finish() held the write lock of the old generation.
    cdef readonly double locked

    def __cinit__(self, Store store, path: str, int generation, int64_t now):
        memset(&self.target, 0, sizeof(self.target))
        memset(&self.state, 0, sizeof(self.state))
        memset(&self.notes, 0, sizeof(self.notes))
        self.source = NULL
        self.copied = NULL
        self.store = store
        self.now = now
        self.generation = generation
        store._usable()
        try:
            self._begin(os.fsencode(path))
        except BaseException:
            self.abandon()
            raise

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

    cdef int _check_same(self, int rc) except -1:
        """The same for a comparison."""
        if rc == MDB_INVALID:
            raise VerificationError(f"the new generation in {self.store.path} is not what it was copied from; the "
                                    "generation in force is unchanged; look for failing memory or a failing disk")
        return self._check(rc, "verify the new generation")

    def abandon(self) -> None:
        """Give it up: writers take no more notes. What cannot be written is left to the next compaction."""
        cdef StoreState *s = &self.store.state
        cdef MDB_txn *txn = NULL
        cdef Head head
        cdef bint again
        cdef int rc
        self._end()
        if passed_write(s, &txn) != NO_FAULT:
            return
        head = s.head
        head.noting = 0
        rc = mdb_drop(txn, s.touched, 0)
        if rc == 0:
            rc = head_put(s, txn, &head)
        passed_commit(s, txn, rc, &again)

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

    def flush(self) -> None:
        """Flush what was copied so far: the less there is at once, the shorter a promotion's flush waits for it."""
        cdef int rc
        with nogil:
            rc = mdb_env_sync(self.target.passed.env, 1)
        self._check(rc, "flush the new generation")

    def rewind(self) -> tuple[int, int]:
        """Flush the copy and begin to compare it; the numbers of live and of expired records."""
        numbers = self.state.alive, self.state.expired
        self.flush()
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
            elif comparing:
                self._check_same(rc)
            else:
                self._check(rc, "copy")
            if self.state.alive + self.state.expired > seen:
                return self.state.alive + self.state.expired - seen
        return 0

    cdef int _check_number(self) except -1:
        """The new generation has of this kind as many records as the old one has live ones, and so no other."""
        cdef MDB_stat stat
        mdb_stat(self.copied, self.target.known[self.state.kind], &stat)
        return self._check_same(0 if stat.ms_entries == self.state.alive - self.alive_before else MDB_INVALID)

    cdef int _release(self) except -1:
        """End the snapshots: a map may have to move to another size, and nothing may be reading it then."""
        mdb_txn_abort(self.copied)
        mdb_txn_abort(self.source)
        self.copied = self.source = NULL
        return 0

    def catch_up(self, int limit) -> int:
        """Bring over what was touched since the snapshot or the last call, flush and compare it; hooks go on.

        limit: records in one transaction. Returns how many records there were.
        """
        cdef StoreState *s = &self.store.state
        cdef MDB_txn *txn = NULL
        cdef NoteState begun
        cdef uint64_t touched
        cdef int rc = 0
        self._release()
        self._check(environment_read(&s.passed, &txn), "read what was written meanwhile")
        try:
            self.notes.started = False
            begun = self.notes
            while rc != MDB_NOTFOUND:
                with nogil:
                    rc = self._bring(txn, limit)
                self._check(0 if rc == MDB_NOTFOUND else rc, "copy what was written meanwhile")
            touched = self.notes.touched
            if touched > begun.touched:
                self.flush()
                self._check_touched(txn, begun)
            self.notes.touched = touched
            self.notes.since = mdb_txn_id(txn)
            return touched - begun.touched
        finally:
            environment_read_end(&s.passed)

    cdef int _bring(self, MDB_txn *source, int limit) noexcept nogil:
        """Bring over up to limit touched records in one transaction of the target. MDB_NOTFOUND when all are."""
        cdef MDB_txn *copy = NULL
        cdef NoteState notes = self.notes
        cdef int rc = environment_write(&self.target.passed, &copy), end
        if rc != 0:
            return rc
        end = touched_some(&self.store.state, source, &self.target, copy, False, self.now, limit, &notes)
        if end != 0 and end != MDB_NOTFOUND:
            mdb_txn_abort(copy)
            rc = end
        else:
            rc = mdb_txn_commit(copy)
        if rc == MDB_MAP_FULL:
            # Once more from where it began.
            return environment_grow(&self.target.passed, 0)
        if rc == 0:
            self.notes = notes
        return rc if rc != 0 else end

    cdef int _check_touched(self, MDB_txn *source, NoteState notes) except -1:
        """Compare what was noted after notes.since with what the target has by now."""
        cdef MDB_txn *copied = NULL
        cdef int rc
        self._check(environment_read(&self.target.passed, &copied), "read the new generation")
        notes.started = False
        with nogil:
            rc = touched_some(&self.store.state, source, &self.target, copied, True, self.now, EVERY_NOTE, &notes)
        environment_read_end(&self.target.passed)
        return self._check_same(0 if rc == MDB_NOTFOUND else rc)

    cdef int _check_meta(self, MDB_txn *source) except -1:
        """Compare policy and windows with what the target has by now."""
        cdef MDB_txn *copied = NULL
        cdef int rc
        self._check(environment_read(&self.target.passed, &copied), "read the new generation")
        rc = meta_compare(&self.store.state, source, &self.target, copied, self.now)
        environment_read_end(&self.target.passed)
        return self._check_same(rc)

    def finish(self, swap) -> int:
        """Under the write lock of the old generation: bring over what was touched, flush, compare, call swap(), mark
        the old one superseded. The number of records touched since the snapshot."""
        cdef StoreState *s = &self.store.state
        cdef MDB_txn *txn = NULL
        cdef MDB_txn *copy = NULL
        cdef Head head
        cdef NoteState begun
        cdef int rc, fault
        self._release()
        with nogil:
            fault = passed_write(s, &txn)
        self.store._raise(fault)
        self.locked = -clock.monotonic()
        try:
            self.notes.started = False
            begun = self.notes
            head = s.head
            head.generation = self.generation
            head.noting = 0
            while True:
                self.notes = begun
                self._check(environment_write(&self.target.passed, &copy), "write the new generation")
                with nogil:
                    rc = touched_some(s, txn, &self.target, copy, False, self.now, EVERY_NOTE, &self.notes)
                    if rc == MDB_NOTFOUND:
                        rc = copy_windows(s, txn, &self.target, copy, self.now, &head.windows_until,
                                          &self.windows_closed)
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
            self._check_touched(txn, begun)
            self._check_meta(txn)
            # Held until the link is flushed: what a hook promotes in the new generation before that, a power cut would
            # take back with the link.
            self._check(environment_write(&self.target.passed, &copy), "lock the new generation")
            try:
                swap()
            finally:
                mdb_txn_abort(copy)
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
        self.locked += clock.monotonic()
        self._end()
        environment_close(&s.passed)
        return self.notes.touched


def pages_in_use(Store store) -> tuple[int, int]:
    """Pages of the file of the generation in force, and how many of them are free. StoreError."""
    cdef MDB_txn *txn = NULL
    cdef MDB_envinfo info
    cdef size_t free = 0
    cdef int rc
    store._usable()
    with store.lock:
        store._raise(passed_read(&store.state, &txn))
        mdb_env_info(store.state.passed.env, &info)
        rc = free_pages(txn, &free)
        environment_read_end(&store.state.passed)
        store._raise(NO_FAULT if rc == 0 else fail(&store.state, CANNOT_READ, rc))
    return info.me_last_pgno + 1, free


def partitions_expired(Store store, int64_t now) -> list[dict[str, int]]:
    """The partitions of pending that drop_expired would drop at the Unix time now, as in store.partitions()."""
    cdef Partition p
    found = []
    # That also reads the settings anew.
    for part in store.partitions():
        p.start, p.length = part["start"], part["length"]
        if partition_expired(&p, now, pending_horizon(&store.state)):
            found.append(part)
    return found
