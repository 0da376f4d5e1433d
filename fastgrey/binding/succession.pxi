# A ready generation takes the place of the one in force, other than by compaction: it was copied from an earlier one or
# came out of a backup.

def supersede(Store store, uint64_t number, swap) -> None:
    """Under the write lock of the generation in force call swap(), which puts another one in its place, and mark it
    superseded by number. What swap raises leaves it in force."""
    cdef StoreState *s = &store.state
    cdef MDB_txn *txn = NULL
    cdef Head head
    cdef int rc, fault
    store._usable()
    with store.lock:
        with nogil:
            fault = passed_write(s, &txn)
        store._raise(fault)
        try:
            swap()
        except BaseException:
            mdb_txn_abort(txn)
            raise
        # Writers go by the link; the mark is for those who only read. One that cannot be written takes nothing back.
        head = s.head
        head.superseded = number
        head.noting = 0
        rc = mdb_drop(txn, s.touched, 0)
        if rc == 0:
            rc = head_put(s, txn, &head)
        if rc == 0:
            mdb_txn_commit(txn)
        else:
            mdb_txn_abort(txn)
        environment_close(&s.passed)


def locked(path: str, work) -> None:
    """Call work() under the write lock of the generation in the directory path. StoreError where that cannot be had."""
    cdef Environment e
    cdef MDB_txn *txn = NULL
    cdef bytes name = os.fsencode(path)
    cdef int rc
    memset(&e, 0, sizeof(e))
    rc = environment_open(&e, name, 0, PASSED_TABLES)
    if rc == 0:
        rc = environment_write(&e, &txn)
    if rc != 0:
        environment_close(&e)
        raise StoreError(f"cannot lock {path}: {opening_text(rc)}")
    try:
        work()
    finally:
        mdb_txn_abort(txn)
        environment_close(&e)


def follow_settings(Store store) -> None:
    """Bring the page of counters, which has a copy of on_error, into line with the settings in force."""
    store._usable()
    with store.lock:
        store._probe()
        counters_follow(&store.state, &store.state.head)


def adopt(path: str, uint64_t number, uint64_t policy) -> None:
    """Make the generation in the directory path, a copy that nobody else uses, ready to be the one with this number.

    policy: the number that its policy gets, where it has one. Flushes it. StoreError where that cannot be done.
    """
    cdef StoreState state
    cdef StoreState *s = &state
    cdef MDB_txn *txn = NULL
    cdef MDB_val key, value
    cdef Head head
    cdef bytearray record
    cdef bytes name = os.fsencode(path)
    cdef int rc = 0, fault = NO_FAULT, attempt
    cdef bint again = True
    memset(s, 0, sizeof(StoreState))
    rc = environment_open(&s.passed, name, 0, PASSED_TABLES)
    if rc == 0:
        rc = passed_tables(s)
    for attempt in range(TRIES):
        if rc == 0:
            rc = environment_write(&s.passed, &txn)
        if rc != 0:
            break
        fault = head_read(s, txn)
        # Read afresh in the next attempt.
        s.head_txn = 0
        if fault != NO_FAULT:
            mdb_txn_abort(txn)
            break
        head = s.head
        head.generation = number
        head.superseded = head.noting = 0
        rc = mdb_drop(txn, s.touched, 0)
        policy_key(&key)
        if rc == 0 and head.policy:
            head.policy = policy
            rc = mdb_get(txn, s.meta, &key, &value)
            if rc == 0:
                record = bytearray((<const char *>value.mv_data)[:value.mv_size])
                (<PolicyHead *><char *>record).number = policy
                value.mv_data = <char *>record
                rc = mdb_put(txn, s.meta, &key, &value, 0)
        if rc == 0:
            rc = head_put(s, txn, &head)
        fault = passed_commit(s, txn, rc, &again)
        rc = s.error if fault != NO_FAULT else 0
        if not again:
            break
    if rc == 0 and fault == NO_FAULT and again:
        rc = MDB_MAP_FULL
    text = cause_text(s, fault, s.error) if fault != NO_FAULT else opening_text(rc)
    environment_close(&s.passed)
    if rc != 0 or fault != NO_FAULT:
        raise StoreError(f"cannot write {path}: {text}")
