# What was earned: looking up, refreshing and promoting known records.

cdef int known_get(StoreState *s, MDB_txn *txn, int kind, unsigned char *key, uint64_t *record) noexcept nogil:
    """The record, 0 where there is none (no known record is 0: its count is at least 1)."""
    cdef MDB_val k, v
    cdef int rc
    k.mv_data = key
    k.mv_size = KEY_SIZE
    rc = mdb_get(txn, s.known[kind], &k, &v)
    record[0] = 0
    if rc == 0 and v.mv_size == sizeof(uint64_t):
        memcpy(record, v.mv_data, sizeof(uint64_t))
    return 0 if rc == MDB_NOTFOUND else rc


cdef int known_note(StoreState *s, MDB_txn *txn, int kind, const unsigned char *key) noexcept nogil:
    """While a compaction copies, note a key that was written or removed, so that it follows."""
    cdef MDB_val k, v
    cdef unsigned char name[KEY_SIZE + 1]
    cdef uint64_t number
    if not s.head.noting:
        return 0
    name[0] = <unsigned char>kind
    memcpy(name + 1, key, KEY_SIZE)
    k.mv_data = name
    k.mv_size = KEY_SIZE + 1
    # By it the compaction tells what it has brought over already.
    number = mdb_txn_id(txn)
    v.mv_data = &number
    v.mv_size = sizeof(uint64_t)
    return mdb_put(txn, s.touched, &k, &v, 0)


cdef int known_put(StoreState *s, MDB_txn *txn, int kind, unsigned char *key, uint64_t record) noexcept nogil:
    cdef MDB_val k, v
    cdef int rc
    k.mv_data = key
    k.mv_size = KEY_SIZE
    v.mv_data = &record
    v.mv_size = sizeof(uint64_t)
    rc = mdb_put(txn, s.known[kind], &k, &v, 0)
    return known_note(s, txn, kind, key) if rc == 0 else rc


cdef int known_match(StoreState *s, MDB_txn *txn, const Envelope *e, int64_t now, Match *m) noexcept nogil:
    """Steps 6 to 9: the first known record that lets the request pass. 1, 0 or a negative error."""
    cdef int step, rc
    for step in range(KNOWN_STEPS):
        if not known_wanted(&s.head, e, step, m):
            continue
        rc = known_get(s, txn, m.kind, m.key, &m.record)
        if rc != 0:
            s.error = rc
            return -1
        if known_passes(&s.head.settings, m, now):
            return 1
    return 0


cdef int refresh(StoreState *s, Match *m, int64_t now) noexcept nogil:
    """Set the last-seen time of a known record to now."""
    cdef MDB_txn *txn = NULL
    cdef uint64_t record
    cdef int fault, rc, attempt
    cdef bint again
    for attempt in range(TRIES):
        fault = passed_write(s, &txn)
        if fault != NO_FAULT:
            return fault
        rc = known_get(s, txn, m.kind, m.key, &record)
        # What was removed meanwhile stays removed; what another check has just refreshed is worth no second flush.
        if rc == 0 and (record == 0 or not refresh_due(&s.head.settings, record, now)):
            mdb_txn_abort(txn)
            return NO_FAULT
        if rc == 0:
            rc = known_put(s, txn, m.kind, m.key, refreshed(record, now))
        fault = passed_commit(s, txn, rc, &again)
        if not again:
            if fault == NO_FAULT:
                count(s, COUNT_REFRESHED)
            return fault
    return fail(s, UNSTABLE, 0)


cdef int promote_one(StoreState *s, MDB_txn *txn, int kind, unsigned char *key, int64_t now) noexcept nogil:
    cdef uint64_t record
    cdef int rc = known_get(s, txn, kind, key, &record)
    return known_put(s, txn, kind, key, promoted(&s.head.settings, record, now)) if rc == 0 else rc


cdef int promote_all(StoreState *s, MDB_txn *txn, const Envelope *e, int64_t now, bint pool) noexcept nogil:
    """Step 11."""
    cdef unsigned char key[KEY_SIZE]
    cdef int rc = 0, step, kind
    for step in range(PROMOTION_STEPS):
        if rc == 0 and promotion_wanted(&s.head, e, pool, step, &kind, key):
            rc = promote_one(s, txn, kind, key, now)
    return rc


cdef int promote(StoreState *s, const Envelope *e, int64_t now, int64_t first, int *reason) noexcept nogil:
    """Make the request known, that was first seen at first. Where another check has made it known meanwhile, count
    nothing and take its reason."""
    cdef MDB_txn *txn = NULL
    cdef Match m
    cdef int fault, rc, attempt, found
    cdef bint again
    for attempt in range(TRIES):
        fault = passed_write(s, &txn)
        if fault != NO_FAULT:
            return fault
        found = known_match(s, txn, e, now, &m)
        if found:
            mdb_txn_abort(txn)
            if found < 0:
                return CANNOT_READ
            reason[0] = m.reason
            return NO_FAULT
        rc = promote_all(s, txn, e, now, reason[0] == POOL)
        fault = passed_commit(s, txn, rc, &again)
        if not again:
            if fault == NO_FAULT:
                count_promotion(s, elapsed(now, first))
            return fault
    return fail(s, UNSTABLE, 0)
