# What a generation holds, counted and summed up: numbers, checksums, and records that no hook writes.

cdef struct Tally:
    uint64_t records
    # The XXH3-128 of each record, added modulo 2**128: the order in which they are looked at does not matter.
    uint64_t low
    uint64_t high
    # Keys or values of another size, counts of 0, times after a given one.
    uint64_t misshapen
    uint64_t empty
    uint64_t ahead


cdef enum:
    # One byte for the kind, and the longest name and value in meta that is summed up: those of a window.
    TALLY_SIZE = 1 + WINDOW_NAME_SIZE + 24


cdef void tally_add(Tally *t, unsigned char kind, const MDB_val *key, const MDB_val *value) noexcept nogil:
    cdef unsigned char message[TALLY_SIZE]
    cdef XXH128_hash_t hash
    cdef size_t size = 1 + key.mv_size + value.mv_size
    t.records += 1
    if size > TALLY_SIZE:
        t.misshapen += 1
        return
    message[0] = kind
    memcpy(message + 1, key.mv_data, key.mv_size)
    memcpy(message + 1 + key.mv_size, value.mv_data, value.mv_size)
    hash = XXH3_128bits(message, size)
    t.low += hash.low64
    t.high += hash.high64 + (t.low < hash.low64)


cdef int tally_some(MDB_cursor *cursor, bint *started, unsigned char kind, uint64_t least, int64_t latest, int limit,
                    Tally *t) noexcept nogil:
    """Add up to limit records more, behind where the cursor stands. MDB_NOTFOUND at the end.

    least: the smallest count that a record may have. latest: Unix seconds that none may have passed.
    """
    cdef MDB_val key, value
    cdef uint64_t record
    cdef int rc = 0
    while limit > 0:
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT if started[0] else MDB_FIRST)
        if rc != 0:
            return rc
        started[0] = True
        limit -= 1
        tally_add(t, kind, &key, &value)
        if key.mv_size != KEY_SIZE or value.mv_size != sizeof(uint64_t):
            t.misshapen += 1
            continue
        memcpy(&record, value.mv_data, sizeof(uint64_t))
        t.empty += record_count(record) < least
        t.ahead += record_time(record) > latest
    return 0


cdef int tally_windows(MDB_txn *txn, MDB_dbi meta, int64_t latest, Tally *t, uint64_t *others) noexcept nogil:
    """Add the windows; others counts what is in meta under a name that this format does not have."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef Window w
    cdef int rc = mdb_cursor_open(txn, meta, &cursor)
    if rc != 0:
        return rc
    rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
    while rc == 0:
        if is_window(&key, &value):
            tally_add(t, c"w", &key, &value)
            memcpy(&w, value.mv_data, sizeof(Window))
            t.empty += w.until < w.opened
            t.ahead += w.opened > latest
        elif not (key.mv_size == 4 and memcmp(key.mv_data, b"head", 4) == 0
                  or key.mv_size == 6 and memcmp(key.mv_data, b"policy", 6) == 0):
            others[0] += 1
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    return 0 if rc == MDB_NOTFOUND else rc
