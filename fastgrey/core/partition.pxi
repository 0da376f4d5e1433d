# Time partitions of pending: named databases "2.START.LENGTH" (the format version, then Unix seconds), each with the
# records first written in that span of time, and "2.START.LENGTH.PART" where those are many. Expiry drops one whole.

cdef enum:
    PARTITION_MIN = 3600
    # There are no more. A flood makes four parts, and time alone three; more are alive only while the clock stands
    # before times already recorded, as in a replay of unordered envelopes. A handle of each costs every check, so a
    # hook keeps to fewer.
    PARTITIONS_MAX = 60
    PARTITIONS_USUAL = 12
    # Horizons that an expired partition stays in a replay, for a clock that steps back.
    REPLAY_SLACK = 50
    PARTITION_NAME_SIZE = 48


cdef struct Partition:
    MDB_dbi dbi
    int64_t start
    int64_t length
    # Counted from 0, which the name leaves out.
    int64_t part
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
    cdef size_t n = name.mv_size, dot, end
    if n < 5 or p[0] != c"2" or p[1] != c".":
        return -1
    dot = find(p, 2, n, c".")
    if dot == n or read_number(p + 2, dot - 2, &out.start) != 0:
        return -1
    end = find(p, dot + 1, n, c".")
    if read_number(p + dot + 1, end - dot - 1, &out.length) != 0:
        return -1
    out.part = 0
    if end < n and read_number(p + end + 1, n - end - 1, &out.part) != 0:
        return -1
    return partition_name_copy(name, out)


cdef void partition_name(Partition *p) noexcept nogil:
    cdef Text t = text_begin(p.name, PARTITION_NAME_SIZE)
    text_add(&t, b"2.")
    # Thirteen digits keep the order of the names the order of the times, six that of the parts.
    text_number(&t, p.start, 13)
    text_add(&t, b".")
    text_number(&t, p.length, 1)
    if p.part:
        text_add(&t, b".")
        text_number(&t, p.part, 6)
    text_end(&t)


cdef void partition_of(StoreState *s, int64_t now, Partition *out) noexcept nogil:
    """The partition that a record first written now belongs to, or the first part of it."""
    out.length = later(pending_horizon(s), PARTITION_MIN)
    out.start = now - now % out.length
    out.part = 0


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


cdef int partitions_settled(MDB_txn *txn, int64_t now, int64_t *when) noexcept nogil:
    """When the last span but one ended among those that began by now; before 1970 where there are not so many.

    What had expired by then is past, whatever the clock says: a clock that leaps ahead begins one span, in which
    it may leap back, and only the next one puts the present among the past.
    """
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef Partition p
    cdef int64_t newest = -1
    cdef int rc = partition_names(txn, &cursor)
    when[0] = -1
    if rc != 0:
        return rc
    rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST)
    while rc == 0 and when[0] < 0:
        if partition_parse(&key, &p) == 0 and p.start <= now:
            if newest < 0:
                newest = p.start
            elif p.start < newest:
                when[0] = p.start + p.length
        rc = mdb_cursor_get(cursor, &key, &value, MDB_PREV)
    mdb_cursor_close(cursor)
    return 0 if rc == MDB_NOTFOUND else rc


cdef int partition_farthest(MDB_txn *txn, int64_t now, Partition *out) noexcept nogil:
    """The partition that began farthest from now, of its parts the first; MDB_NOTFOUND where there is none.

    That is the oldest, unless the clock was set back: then one from a year ahead would outlive all of the present.
    """
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef Partition p
    cdef int64_t far, farthest = -1
    cdef int rc = partition_names(txn, &cursor)
    if rc != 0:
        return rc
    rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
    while rc == 0:
        if partition_parse(&key, &p) == 0:
            far = now - p.start if p.start <= now else p.start - now
            if far > farthest:
                farthest = far
                out[0] = p
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    return 0 if rc == MDB_NOTFOUND and farthest >= 0 else rc


cdef size_t partition_bytes(MDB_txn *txn, const Partition *p) noexcept nogil:
    """Bytes that an open partition takes."""
    cdef MDB_stat stat
    if mdb_stat(txn, p.dbi, &stat) != 0:
        return 0
    return (stat.ms_branch_pages + stat.ms_leaf_pages) * stat.ms_psize


cdef void partitions_close(StoreState *s, Partitions *parts) noexcept nogil:
    """Forget the handles that a commit keeps: another process may drop a partition, and a handle to a dropped one
    writes to wherever its pages are by then."""
    cdef int i
    for i in range(parts.size):
        mdb_dbi_close(s.pending.env, parts.items[i].dbi)
