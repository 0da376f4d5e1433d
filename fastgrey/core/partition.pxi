# Time partitions of pending: named databases "2.START.LENGTH" (the format version, then Unix seconds), each with the
# records first written in that span of time. Expiry drops one whole.

cdef enum:
    PARTITION_MIN = 3600
    # At most looked at. More than three are alive only while the clock stands before times already recorded: in a
    # replay of unordered envelopes. A handle of each costs every check, so a hook keeps to fewer.
    PARTITIONS_MAX = 60
    PARTITIONS_USUAL = 12
    # Horizons that an expired partition stays in a replay, for a clock that steps back.
    REPLAY_SLACK = 50
    PARTITION_NAME_SIZE = 48


cdef struct Partition:
    MDB_dbi dbi
    int64_t start
    int64_t length
    char name[PARTITION_NAME_SIZE]


# The partitions that may hold live records, the newest first.
cdef struct Partitions:
    int size
    Partition items[PARTITIONS_MAX]


cdef int partitions_limit(StoreState *s) noexcept nogil:
    return PARTITIONS_MAX if s.flags & THROW_AWAY else PARTITIONS_USUAL


cdef int64_t pending_horizon(StoreState *s) noexcept nogil:
    """Age in seconds past which no record of pending counts."""
    return later(s.head.settings.retry_window, s.head.settings.pool_window)


cdef int read_number(const unsigned char *p, size_t n, int64_t *out) noexcept nogil:
    cdef size_t i
    if n == 0 or n > 15:
        return -1
    out[0] = 0
    for i in range(n):
        if not is_digit(p[i]):
            return -1
        out[0] = out[0] * 10 + (p[i] - c"0")
    return 0


cdef int partition_name_copy(const MDB_val *name, Partition *out) noexcept nogil:
    if name.mv_size >= PARTITION_NAME_SIZE:
        return MDB_INVALID
    memcpy(out.name, name.mv_data, name.mv_size)
    out.name[name.mv_size] = 0
    return 0


cdef int partition_parse(const MDB_val *name, Partition *out) noexcept nogil:
    """-1 where the name is not one of this format version's."""
    cdef const unsigned char *p = <const unsigned char *>name.mv_data
    cdef size_t n = name.mv_size, dot
    if n < 5 or p[0] != c"2" or p[1] != c".":
        return -1
    dot = find(p, 2, n, c".")
    if dot == n or read_number(p + 2, dot - 2, &out.start) != 0:
        return -1
    if read_number(p + dot + 1, n - dot - 1, &out.length) != 0:
        return -1
    return partition_name_copy(name, out)


cdef void partition_name(int64_t start, int64_t length, char *out) noexcept nogil:
    cdef Text t = text_begin(out, PARTITION_NAME_SIZE)
    text_add(&t, b"2.")
    # Thirteen digits keep the order of the names the order of the times.
    text_number(&t, start, 13)
    text_add(&t, b".")
    text_number(&t, length, 1)
    text_end(&t)


cdef void partition_of(StoreState *s, int64_t now, Partition *out) noexcept nogil:
    """The partition that a record first written now belongs to."""
    out.length = later(pending_horizon(s), PARTITION_MIN)
    out.start = now - now % out.length
    partition_name(out.start, out.length, out.name)


cdef bint partition_expired(const Partition *p, int64_t now, int64_t horizon) noexcept nogil:
    return p.start + p.length + horizon <= now


cdef int partition_names(MDB_txn *txn, MDB_cursor **cursor) noexcept nogil:
    """A cursor over the named databases, in the order of their times."""
    cdef MDB_dbi names
    cdef int rc = mdb_dbi_open(txn, NULL, 0, &names)
    return mdb_cursor_open(txn, names, cursor) if rc == 0 else rc


cdef int partition_drop(MDB_txn *txn, const Partition *p) noexcept nogil:
    cdef MDB_dbi dbi
    cdef int rc = mdb_dbi_open(txn, p.name, 0, &dbi)
    return mdb_drop(txn, dbi, 1) if rc == 0 else rc


cdef int partitions_list(StoreState *s, MDB_txn *txn, int64_t now, int64_t horizon, Partitions *out) noexcept nogil:
    """Open those that may hold live records. A clock that stepped back finds its records in later ones."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef Partition *p
    cdef int rc = partition_names(txn, &cursor)
    out.size = 0
    if rc != 0:
        return rc
    rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST)
    while rc == 0 and out.size < partitions_limit(s):
        p = &out.items[out.size]
        if partition_parse(&key, p) == 0 and not partition_expired(p, now, horizon):
            rc = mdb_dbi_open(txn, p.name, 0, &p.dbi)
            if rc != 0:
                break
            out.size += 1
        rc = mdb_cursor_get(cursor, &key, &value, MDB_PREV)
    mdb_cursor_close(cursor)
    return 0 if rc == MDB_NOTFOUND else rc


cdef int partitions_drop(MDB_txn *txn, int64_t now, int64_t horizon, int *dropped) noexcept nogil:
    """Drop the partitions that expired, and what no version of this format names."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef Partition p
    cdef int rc
    while True:
        rc = partition_names(txn, &cursor)
        if rc != 0:
            return rc
        rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
        while rc == 0 and partition_parse(&key, &p) == 0 and not partition_expired(&p, now, horizon):
            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
        if rc == 0 and partition_parse(&key, &p) != 0:
            rc = partition_name_copy(&key, &p)
        mdb_cursor_close(cursor)
        if rc != 0:
            return 0 if rc == MDB_NOTFOUND else rc
        rc = partition_drop(txn, &p)
        if rc != 0:
            return rc
        dropped[0] += 1


cdef void partitions_close(StoreState *s, Partitions *parts) noexcept nogil:
    """Forget the handles that a commit keeps: another process may drop a partition, and a handle to a dropped one
    writes to wherever its pages are by then."""
    cdef int i
    for i in range(parts.size):
        mdb_dbi_close(s.pending.env, parts.items[i].dbi)


cdef int partition_current(StoreState *s, MDB_txn *txn, int64_t now, Partitions *parts, MDB_dbi *dbi) noexcept nogil:
    """The partition to write to, made where it is missing. Who makes one also drops what expired a horizon ago."""
    cdef Partition p
    cdef int i, rc, dropped = 0
    cdef int64_t horizon = pending_horizon(s)
    partition_of(s, now, &p)
    for i in range(parts.size):
        if parts.items[i].start == p.start and parts.items[i].length == p.length:
            dbi[0] = parts.items[i].dbi
            return 0
    rc = partitions_drop(txn, now - horizon * (REPLAY_SLACK if s.flags & THROW_AWAY else 1), horizon, &dropped)
    if rc != 0:
        return rc
    rc = mdb_dbi_open(txn, p.name, MDB_CREATE, dbi)
    if rc == 0 and parts.size < PARTITIONS_MAX:
        p.dbi = dbi[0]
        parts.items[parts.size] = p
        parts.size += 1
    return rc
