# Records in batches, for whoever looks at many: a reader that stays for minutes would pin the pages that writers need.

cdef packed struct Row:
    unsigned char key[KEY_SIZE]
    uint64_t record


cdef int walk(MDB_txn *txn, MDB_dbi dbi, const unsigned char *start, Row *rows, int room, int *size) noexcept nogil:
    """Up to room records in the order of their keys, from start on."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef int rc = mdb_cursor_open(txn, dbi, &cursor)
    size[0] = 0
    if rc != 0:
        return rc
    key.mv_data = <void *>start
    key.mv_size = KEY_SIZE
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE)
    while rc == 0 and size[0] < room:
        if key.mv_size != KEY_SIZE or value.mv_size != sizeof(uint64_t):
            rc = MDB_INVALID
            break
        memcpy(rows[size[0]].key, key.mv_data, KEY_SIZE)
        memcpy(&rows[size[0]].record, value.mv_data, sizeof(uint64_t))
        size[0] += 1
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    return 0 if rc == MDB_NOTFOUND else rc


cdef int walk_known(StoreState *s, int kind, const unsigned char *start, Row *rows, int room, int *size) noexcept nogil:
    """A fault where the generation in force cannot be read."""
    cdef MDB_txn *txn = NULL
    cdef int rc, fault = passed_read(s, &txn)
    if fault != NO_FAULT:
        return fault
    rc = walk(txn, s.known[kind], start, rows, room, size)
    environment_read_end(&s.passed)
    return NO_FAULT if rc == 0 else fail(s, CANNOT_READ, rc)


cdef int walk_pending(StoreState *s, const Partition *p, const unsigned char *start, Row *rows, int room,
                      int *size) noexcept nogil:
    """The same of a partition; nothing where it is gone."""
    cdef MDB_txn *txn = NULL
    cdef MDB_dbi dbi
    cdef int rc, fault = pending_open(s, False)
    size[0] = 0
    if fault != NO_FAULT or s.pending.env == NULL:
        return fault
    rc = environment_read(&s.pending, &txn)
    if rc == 0:
        rc = mdb_dbi_open(txn, p.name, 0, &dbi)
        if rc == 0:
            rc = walk(txn, dbi, start, rows, room, size)
        elif rc == MDB_NOTFOUND:
            rc = 0
        environment_read_end(&s.pending)
    if rc == 0:
        return NO_FAULT
    environment_close(&s.pending)
    return fail(s, CANNOT_READ, rc)


cdef int triplets_alive(StoreState *s, const unsigned char *halves, int n, int64_t now,
                        unsigned char *out) noexcept nogil:
    """out[i] is 1 where the known triplet whose key begins with the i-th half key is alive, else 0."""
    cdef MDB_txn *txn = NULL
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef unsigned char start[KEY_SIZE]
    cdef int i, rc, fault = passed_read(s, &txn)
    if fault != NO_FAULT:
        return fault
    rc = mdb_cursor_open(txn, s.known[<int>TRIPLET], &cursor)
    memset(start, 0, KEY_SIZE)
    for i in range(n):
        if rc != 0:
            break
        memcpy(start, halves + i * (KEY_SIZE // 2), KEY_SIZE // 2)
        key.mv_data = start
        key.mv_size = KEY_SIZE
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE)
        out[i] = (rc == 0 and memcmp(key.mv_data, start, KEY_SIZE // 2) == 0 and value_alive(s, &value, now))
        if rc == MDB_NOTFOUND:
            rc = 0
    if cursor != NULL:
        mdb_cursor_close(cursor)
    environment_read_end(&s.passed)
    return NO_FAULT if rc == 0 else fail(s, CANNOT_READ, rc)
