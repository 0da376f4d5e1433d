# What a person changes by hand: records removed, and records made known without a retry.

cdef enum:
    # One request determines six known records: client, two domains, two triplets, pair.
    MARKS_MAX = 8

cdef enum Change:
    LOOK = 0
    FORGET = 1
    PASS = 2


# One record to change, and what it was and is.
cdef struct Mark:
    int kind
    unsigned char key[KEY_SIZE]
    # Promotions that it is to have at least; 0 for one more than it has.
    uint64_t least
    bint found
    uint64_t before
    uint64_t after


cdef void mark_passed(StoreState *s, Mark *m, int64_t now) noexcept nogil:
    cdef uint64_t had = record_count(m.before) if is_alive(&s.head.settings, m.before, now) else 0
    m.after = promoted(&s.head.settings, m.before, now)
    if m.least:
        m.after = record_pack(record_time(m.after), had if had > m.least else m.least)


cdef int known_look(StoreState *s, MDB_txn *txn, Mark *marks, int n, int64_t now) noexcept nogil:
    """Fill in what the known records of the marks are, and what they would be when passed."""
    cdef int i, rc = 0
    for i in range(n):
        if rc == 0:
            rc = known_get(s, txn, marks[i].kind, marks[i].key, &marks[i].before)
            marks[i].found = marks[i].before != 0
            mark_passed(s, &marks[i], now)
    return rc


cdef int known_drop(StoreState *s, MDB_txn *txn, int kind, unsigned char *key) noexcept nogil:
    cdef MDB_val k
    cdef int rc
    k.mv_data = key
    k.mv_size = KEY_SIZE
    rc = mdb_del(txn, s.known[kind], &k, NULL)
    return known_note(s, txn, kind, key) if rc == 0 else rc


cdef int known_change(StoreState *s, MDB_txn *txn, Mark *marks, int n, int change, bint *written) noexcept nogil:
    cdef int i, rc = 0
    for i in range(n):
        if rc == 0 and change == PASS:
            rc = known_put(s, txn, marks[i].kind, marks[i].key, marks[i].after)
            written[0] = True
        elif rc == 0 and change == FORGET and marks[i].found:
            rc = known_drop(s, txn, marks[i].kind, marks[i].key)
            written[0] = True
    return rc


cdef int known_amend(StoreState *s, Mark *marks, int n, int change, int64_t now) noexcept nogil:
    """Change all the known records in one durable transaction, or none; a fault where that cannot be done."""
    cdef MDB_txn *txn = NULL
    cdef int fault, rc, attempt
    cdef bint again, written
    for attempt in range(TRIES):
        fault = passed_read(s, &txn) if change == LOOK else passed_write(s, &txn)
        if fault != NO_FAULT:
            return fault
        # Under the write lock: a promotion that came first is counted, and one that comes later finds what is written.
        rc = known_look(s, txn, marks, n, now)
        if change == LOOK:
            environment_read_end(&s.passed)
            return NO_FAULT if rc == 0 else fail(s, CANNOT_READ, rc)
        written = False
        if rc == 0:
            rc = known_change(s, txn, marks, n, change, &written)
        if rc == 0 and not written:
            mdb_txn_abort(txn)
            return NO_FAULT
        fault = passed_commit(s, txn, rc, &again)
        if not again:
            return fault
    return fail(s, UNSTABLE, 0)


cdef int pending_drop(MDB_txn *txn, Partitions *parts, Mark *m, Sighting *seen) noexcept nogil:
    """Remove the record from every partition that has one."""
    cdef MDB_val k
    cdef int rc = 0
    while rc == 0 and seen.where >= 0:
        k.mv_data = m.key
        k.mv_size = KEY_SIZE
        rc = mdb_del(txn, parts.items[seen.where].dbi, &k, NULL)
        if rc == 0:
            rc = sight(txn, parts, m.key, seen)
    return rc


cdef int pending_change(StoreState *s, MDB_txn *txn, Partitions *parts, Mark *marks, int n, int change,
                        bint *written) noexcept nogil:
    cdef Sighting seen
    cdef int i
    # From time 0 no partition is in the past.
    cdef int rc = partitions_list(s, txn, 0, 0, parts)
    for i in range(n):
        if rc != 0:
            break
        rc = sight(txn, parts, marks[i].key, &seen)
        marks[i].found = seen.where >= 0
        marks[i].before = seen.record
        if rc == 0 and change == FORGET and marks[i].found:
            rc = pending_drop(txn, parts, &marks[i], &seen)
            written[0] = True
    return rc


cdef int pending_amend(StoreState *s, Mark *marks, int n, int change) noexcept nogil:
    """Look at or remove records of pending, in one transaction; a fault where that cannot be done."""
    cdef MDB_txn *txn = NULL
    cdef Partitions parts
    cdef int rc, attempt, fault = pending_open(s, False)
    cdef bint written
    if fault != NO_FAULT or s.pending.env == NULL:
        return fault
    for attempt in range(TRIES):
        rc = environment_read(&s.pending, &txn) if change == LOOK else environment_write(&s.pending, &txn)
        if rc != 0:
            break
        parts.size = 0
        written = False
        rc = pending_change(s, txn, &parts, marks, n, change, &written)
        if change == LOOK:
            environment_read_end(&s.pending)
        elif rc != 0 or not written:
            mdb_txn_abort(txn)
        else:
            rc = mdb_txn_commit(txn)
            partitions_close(s, &parts)
        if rc != MDB_MAP_FULL:
            break
        # The part of the bound that strangers leave free is for removing.
        rc = environment_grow(&s.pending, <size_t>s.head.settings.pending_size)
        if rc != 0:
            break
    if rc == 0:
        return NO_FAULT
    environment_close(&s.pending)
    return fail(s, CANNOT_READ if change == LOOK else CANNOT_WRITE, rc)
