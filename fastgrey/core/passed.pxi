# The generation in force: opening it, reading and writing it, whatever compaction does meanwhile.

cdef enum:
    LMDB_MAGIC = 0xBEEFC0DE


cdef int passed_tables(StoreState *s) noexcept nogil:
    cdef MDB_txn *txn = NULL
    cdef int kind, rc
    rc = environment_read(&s.passed, &txn)
    if rc != 0:
        return rc
    rc = mdb_dbi_open(txn, b"meta", 0, &s.meta)
    if rc == 0:
        rc = mdb_dbi_open(txn, b"touched", 0, &s.touched)
    for kind in range(4):
        if rc == 0:
            rc = mdb_dbi_open(txn, kind_name(kind), 0, &s.known[kind])
    # Committing is what makes the handles outlive this transaction.
    s.passed.reader = NULL
    s.passed.reading = False
    if rc != 0:
        mdb_txn_abort(txn)
        return rc
    return mdb_txn_commit(txn)


cdef int open_fault(int rc) noexcept nogil:
    if rc == ELOOP or rc == EMLINK:
        return MISLED
    if rc == VIEW_FAILED:
        return NO_VIEW
    if rc == MDB_VERSION_MISMATCH:
        return OTHER_VERSION
    # EBADF: LMDB tried to give an empty file its first pages through a descriptor for reading.
    if rc == MDB_INVALID or rc == MDB_NOTFOUND or rc == EBADF or rc == MDB_CORRUPTED or rc == MDB_PAGE_NOTFOUND:
        return NOT_A_STORE
    return TOO_MANY_READERS if rc == MDB_READERS_FULL else CANNOT_OPEN


cdef int open_error(int rc) noexcept nogil:
    """What there is to say beside that fault."""
    return 0 if rc == VIEW_FAILED else rc


cdef int read_fault(int rc) noexcept nogil:
    return TOO_MANY_READERS if rc == MDB_READERS_FULL else CANNOT_READ


cdef bint of_other_machine(const char *directory) noexcept nogil:
    """Does the table, which LMDB does not take for one, begin as that of another byte order or word size would? LMDB's
    number stands behind the head of a page, which a 32-bit machine makes four bytes shorter."""
    cdef char path[PATH_MAX_SIZE]
    cdef char start[20]
    cdef uint32_t number, turned
    cdef int place, fd, own = 16 if sizeof(void *) == 8 else 12
    cdef bint found = False
    if join(path, sizeof(path), directory, b"data.mdb") != 0:
        return False
    fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
    if fd < 0:
        return False
    if pread(fd, start, sizeof(start), 0) == sizeof(start):
        for place in range(12, 17, 4):
            memcpy(&number, start + place, sizeof(number))
            turned = ((number & 0xFF) << 24) | ((number & 0xFF00) << 8) | ((number >> 8) & 0xFF00) | (number >> 24)
            found = found or turned == <uint32_t>LMDB_MAGIC or number == <uint32_t>LMDB_MAGIC and place != own
    close(fd)
    return found


cdef int passed_open(StoreState *s, bint writable) noexcept nogil:
    """Open the generation in force, for reading only where that will do: LMDB allocates 3 MB for a writer."""
    cdef char path[PATH_MAX_SIZE]
    cdef unsigned int flags = 0 if writable else MDB_RDONLY
    cdef int fault = NO_FAULT, rc = 0, attempt
    if s.flags & THROW_AWAY:
        flags = MDB_NOSYNC
    s.part = b"passed"
    for attempt in range(TRIES):
        environment_close(&s.passed)
        s.head_txn = 0
        fault = current_generation(s, s.generation)
        if fault != NO_FAULT:
            return fault
        join(path, sizeof(path), s.path, s.generation)
        rc = environment_open(&s.passed, path, flags, PASSED_TABLES)
        # A generation that vanished between the two steps was replaced: look again.
        if rc != ENOENT:
            break
    if rc == 0:
        rc = passed_tables(s)
    if rc == MDB_INVALID and of_other_machine(path):
        return fail(s, OTHER_MACHINE, 0)
    if rc != 0:
        return fail(s, open_fault(rc), open_error(rc))
    return NO_FAULT


cdef int head_read(StoreState *s, MDB_txn *txn) noexcept nogil:
    """Bring s.head up to date; a look at the transaction's number where nothing was committed since."""
    cdef MDB_val key, value
    cdef size_t number = mdb_txn_id(txn)
    cdef int rc, fault
    if number == s.head_txn:
        return NO_FAULT
    head_key(&key)
    rc = mdb_get(txn, s.meta, &key, &value)
    if rc != 0:
        return fail(s, NOT_A_STORE if rc == MDB_NOTFOUND else CANNOT_READ, rc)
    fault = head_check(&value)
    if fault != NO_FAULT:
        return fail(s, fault, 0)
    memcpy(&s.head, value.mv_data, sizeof(Head))
    s.head_txn = number
    return NO_FAULT


cdef int passed_read(StoreState *s, MDB_txn **txn) noexcept nogil:
    """Begin reading the generation in force, opening it where need be."""
    cdef int fault, rc, attempt
    s.part = b"passed"
    for attempt in range(TRIES):
        if s.passed.env == NULL:
            fault = passed_open(s, False)
            if fault != NO_FAULT:
                return fault
        rc = environment_read(&s.passed, txn)
        if rc != 0:
            return fail(s, read_fault(rc), rc)
        fault = head_read(s, txn[0])
        if fault != NO_FAULT:
            environment_read_end(&s.passed)
            return fault
        if not s.head.superseded:
            return NO_FAULT
        environment_close(&s.passed)
    return fail(s, UNSTABLE, 0)


cdef int passed_write(StoreState *s, MDB_txn **txn) noexcept nogil:
    """Begin a write transaction on the generation in force.

    Compaction swaps the symlink while it holds the write lock of the old generation. So whoever holds that lock and
    still reads its own name from the symlink writes to the generation in force, whatever was killed when.
    """
    cdef char name[GENERATION_SIZE]
    cdef int fault, rc, attempt
    s.part = b"passed"
    for attempt in range(TRIES):
        environment_read_end(&s.passed)
        if s.passed.env == NULL or not s.passed.writable:
            fault = passed_open(s, True)
            if fault != NO_FAULT:
                return fault
        rc = environment_write(&s.passed, txn)
        if rc != 0:
            return fail(s, CANNOT_WRITE, rc)
        # The number of a write transaction is one that no commit has yet: the head is read afresh.
        s.head_txn = 0
        fault = head_read(s, txn[0])
        s.head_txn = 0
        if fault == NO_FAULT:
            fault = current_generation(s, name)
        if fault != NO_FAULT:
            mdb_txn_abort(txn[0])
            return fault
        if not s.head.superseded and strcmp(name, s.generation) == 0:
            return NO_FAULT
        mdb_txn_abort(txn[0])
        environment_close(&s.passed)
    return fail(s, UNSTABLE, 0)


cdef int passed_commit(StoreState *s, MDB_txn *txn, int rc, bint *again) noexcept nogil:
    """Commit where rc is 0, else give the transaction up. again is set where a larger map may help."""
    again[0] = False
    if rc == 0:
        rc = mdb_txn_commit(txn)
    else:
        mdb_txn_abort(txn)
    if rc == MDB_MAP_FULL:
        rc = environment_grow(&s.passed, 0)
        again[0] = rc == 0
    if rc == 0:
        return NO_FAULT
    # After a failed write of its meta page LMDB refuses all further work until it is opened anew.
    environment_close(&s.passed)
    return fail(s, CANNOT_WRITE, rc)
