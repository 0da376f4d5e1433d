# Compaction: copy what is alive from a snapshot into a new generation in key order, compare the two, and hand over
# under the write lock of the old one. docs/format.md has the states and what a kill leaves in each.

cdef enum:
    EVERY_NOTE = 0x7fffffff


cdef struct CopyState:
    # The next record to look at: its kind and the key of the one before it.
    int kind
    bint started
    unsigned char last[KEY_SIZE]
    uint64_t alive
    uint64_t expired


# The next note to look at, by the one before it.
cdef struct NoteState:
    bint started
    unsigned char last[KEY_SIZE + 1]
    # The number of the transaction up to which all that was noted has been brought over.
    uint64_t since
    uint64_t touched


cdef int seek_behind(MDB_cursor *cursor, bint started, const unsigned char *last, size_t size, MDB_val *key,
                     MDB_val *value) noexcept nogil:
    """Set the cursor behind the last record done. MDB_NOTFOUND at the end."""
    cdef int rc
    if not started:
        return mdb_cursor_get(cursor, key, value, MDB_FIRST)
    key.mv_data = <void *>last
    key.mv_size = size
    rc = mdb_cursor_get(cursor, key, value, MDB_SET_KEY)
    return mdb_cursor_get(cursor, key, value, MDB_NEXT) if rc == 0 else rc


cdef void copy_advance(CopyState *c, const MDB_val *key, bint alive) noexcept nogil:
    memcpy(c.last, key.mv_data, KEY_SIZE)
    c.started = True
    if alive:
        c.alive += 1
    else:
        c.expired += 1


cdef bint value_alive(StoreState *s, const MDB_val *value, int64_t now) noexcept nogil:
    cdef uint64_t record
    memcpy(&record, value.mv_data, sizeof(uint64_t))
    return is_alive(&s.head.settings, record, now)


cdef int copy_some(StoreState *s, MDB_txn *source, StoreState *target, int64_t now, int limit,
                   CopyState *c) noexcept nogil:
    """Copy up to limit records of kind c.kind, in one transaction of the target. MDB_NOTFOUND at the end of the kind.

    c moves on only when the transaction is committed, so that after MDB_MAP_FULL the same call can be made again.
    """
    cdef MDB_txn *txn = NULL
    cdef MDB_cursor *cursor = NULL
    cdef MDB_cursor *end_of_target = NULL
    cdef MDB_val key, value
    cdef CopyState done = c[0]
    cdef bint alive
    cdef int rc, end = 0
    rc = environment_write(&target.passed, &txn)
    if rc != 0:
        return rc
    rc = mdb_cursor_open(source, s.known[c.kind], &cursor)
    if rc == 0:
        rc = mdb_cursor_open(txn, target.known[c.kind], &end_of_target)
    if rc == 0:
        end = seek_behind(cursor, done.started, done.last, KEY_SIZE, &key, &value)
    while rc == 0 and end == 0 and limit > 0:
        if key.mv_size != KEY_SIZE or value.mv_size != sizeof(uint64_t):
            rc = MDB_INVALID
            break
        alive = value_alive(s, &value, now)
        if alive:
            rc = mdb_cursor_put(end_of_target, &key, &value, MDB_APPEND)
        if rc == 0:
            copy_advance(&done, &key, alive)
            limit -= 1
            end = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    if cursor != NULL:
        mdb_cursor_close(cursor)
    if end_of_target != NULL:
        mdb_cursor_close(end_of_target)
    if rc != 0:
        mdb_txn_abort(txn)
        return rc
    rc = mdb_txn_commit(txn)
    if rc == 0:
        c[0] = done
    return rc if rc != 0 else end


cdef int compare_some(StoreState *s, MDB_txn *source, StoreState *target, MDB_txn *copied, int64_t now, int limit,
                      CopyState *c) noexcept nogil:
    """Check that the target holds the next live records of the source, and nothing else between them.

    MDB_NOTFOUND at the end of the kind; MDB_INVALID where the two differ.
    """
    cdef MDB_cursor *cursor = NULL
    cdef MDB_cursor *other = NULL
    cdef MDB_val key, value, other_key, other_value
    cdef CopyState behind = c[0]
    cdef int rc, end, other_end = 0
    cdef bint alive, sought = False
    rc = mdb_cursor_open(source, s.known[c.kind], &cursor)
    if rc == 0:
        rc = mdb_cursor_open(copied, target.known[c.kind], &other)
    if rc != 0:
        mdb_cursor_close(cursor)
        return rc
    end = seek_behind(cursor, behind.started, behind.last, KEY_SIZE, &key, &value)
    while end == 0 and limit > 0:
        alive = value_alive(s, &value, now)
        if alive:
            if not sought:
                # The first live record of this round is looked up, those after it must follow one another.
                other_key = key
                other_end = mdb_cursor_get(other, &other_key, &other_value, MDB_SET_KEY)
                sought = True
            else:
                other_end = mdb_cursor_get(other, &other_key, &other_value, MDB_NEXT)
            if (other_end != 0 or other_key.mv_size != KEY_SIZE or memcmp(other_key.mv_data, key.mv_data, KEY_SIZE) != 0
                    or other_value.mv_size != value.mv_size
                    or memcmp(other_value.mv_data, value.mv_data, value.mv_size) != 0):
                rc = MDB_INVALID
                break
        copy_advance(&behind, &key, alive)
        limit -= 1
        end = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    mdb_cursor_close(other)
    c[0] = behind
    return rc if rc != 0 else end


cdef int note_read(const MDB_val *name, const MDB_val *number, uint64_t since, int *kind, MDB_val *key) noexcept nogil:
    """1 where the note is of a later transaction than since, 0 where not, MDB_INVALID where it is no note."""
    cdef uint64_t noted
    if name.mv_size != KEY_SIZE + 1 or (<unsigned char *>name.mv_data)[0] > PAIR:
        return MDB_INVALID
    kind[0] = (<unsigned char *>name.mv_data)[0]
    key.mv_data = <unsigned char *>name.mv_data + 1
    key.mv_size = KEY_SIZE
    # Whoever writes no number may have written at any time.
    if number.mv_size != sizeof(uint64_t):
        return 1
    memcpy(&noted, number.mv_data, sizeof(uint64_t))
    return noted > since


cdef int touched_copy(StoreState *s, MDB_txn *source, StoreState *target, MDB_txn *txn, int64_t now, int kind,
                      MDB_val *key) noexcept nogil:
    cdef MDB_val value
    cdef int rc = mdb_get(source, s.known[kind], key, &value)
    if rc == 0 and value_alive(s, &value, now):
        return mdb_put(txn, target.known[kind], key, &value, 0)
    if rc != 0 and rc != MDB_NOTFOUND:
        return rc
    rc = mdb_del(txn, target.known[kind], key, NULL)
    return 0 if rc == MDB_NOTFOUND else rc


cdef int touched_compare(StoreState *s, MDB_txn *source, StoreState *target, MDB_txn *copied, int64_t now, int kind,
                         MDB_val *key) noexcept nogil:
    """MDB_INVALID where the target has not what it should have."""
    cdef MDB_val value, other
    cdef int rc = mdb_get(source, s.known[kind], key, &value)
    cdef int found = mdb_get(copied, target.known[kind], key, &other)
    if rc != 0 and rc != MDB_NOTFOUND:
        return rc
    if found != 0 and found != MDB_NOTFOUND:
        return found
    if rc == MDB_NOTFOUND or not value_alive(s, &value, now):
        return 0 if found == MDB_NOTFOUND else MDB_INVALID
    if found != 0 or other.mv_size != value.mv_size or memcmp(other.mv_data, value.mv_data, value.mv_size) != 0:
        return MDB_INVALID
    return 0


cdef int touched_some(StoreState *s, MDB_txn *source, StoreState *target, MDB_txn *txn, bint comparing, int64_t now,
                      int limit, NoteState *n) noexcept nogil:
    """Bring over, or compare, up to limit records more that were noted after n.since. MDB_NOTFOUND at the end."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val name, number, key
    cdef int kind = 0, end, counts
    cdef int rc = mdb_cursor_open(source, s.touched, &cursor)
    if rc != 0:
        return rc
    end = seek_behind(cursor, n.started, n.last, KEY_SIZE + 1, &name, &number)
    while rc == 0 and end == 0 and limit > 0:
        counts = note_read(&name, &number, n.since, &kind, &key)
        if counts < 0:
            rc = counts
            break
        if counts and comparing:
            rc = touched_compare(s, source, target, txn, now, kind, &key)
        elif counts:
            rc = touched_copy(s, source, target, txn, now, kind, &key)
        if counts:
            n.touched += 1
            limit -= 1
        memcpy(n.last, name.mv_data, KEY_SIZE + 1)
        n.started = True
        if rc == 0:
            end = mdb_cursor_get(cursor, &name, &number, MDB_NEXT)
    mdb_cursor_close(cursor)
    return rc if rc != 0 else end


cdef int copy_policy(StoreState *s, MDB_txn *source, StoreState *target, MDB_txn *txn) noexcept nogil:
    cdef MDB_val key, value
    cdef int rc
    policy_key(&key)
    rc = mdb_get(source, s.meta, &key, &value)
    if rc == 0:
        rc = mdb_put(txn, target.meta, &key, &value, 0)
    return 0 if rc == MDB_NOTFOUND else rc


cdef int copy_windows(StoreState *s, MDB_txn *source, StoreState *target, MDB_txn *txn, int64_t now,
                      int64_t *until, uint64_t *closed) noexcept nogil:
    """Bring over the windows that are open, and set until to the time when the last of them closes, else 0; closed
    counts the others."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef Window w
    cdef int rc = mdb_cursor_open(source, s.meta, &cursor)
    until[0] = 0
    closed[0] = 0
    if rc != 0:
        return rc
    rc = window_first(cursor, &key, &value)
    while rc == 0 and is_window(&key, &value):
        memcpy(&w, value.mv_data, sizeof(Window))
        if now <= w.until:
            until[0] = later(until[0], w.until)
            rc = mdb_put(txn, target.meta, &key, &value, 0)
        else:
            closed[0] += 1
        if rc == 0:
            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    return 0 if rc == MDB_NOTFOUND else rc


cdef int value_compare(StoreState *target, MDB_txn *copied, MDB_val *key, const MDB_val *value) noexcept nogil:
    """MDB_INVALID where meta of the target has not this value."""
    cdef MDB_val other
    cdef int rc = mdb_get(copied, target.meta, key, &other)
    if rc != 0:
        return MDB_INVALID if rc == MDB_NOTFOUND else rc
    if other.mv_size != value.mv_size or memcmp(other.mv_data, value.mv_data, value.mv_size) != 0:
        return MDB_INVALID
    return 0


cdef int meta_compare(StoreState *s, MDB_txn *source, StoreState *target, MDB_txn *copied, int64_t now) noexcept nogil:
    """MDB_INVALID where the target has not the source's policy and open windows, or more than these and its head."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef MDB_stat stat
    cdef Window w
    cdef size_t expected = 1
    cdef int rc
    policy_key(&key)
    rc = mdb_get(source, s.meta, &key, &value)
    if rc == 0:
        expected += 1
        rc = value_compare(target, copied, &key, &value)
    if rc == 0 or rc == MDB_NOTFOUND:
        rc = mdb_cursor_open(source, s.meta, &cursor)
    if rc != 0:
        return rc
    rc = window_first(cursor, &key, &value)
    while rc == 0 and is_window(&key, &value):
        memcpy(&w, value.mv_data, sizeof(Window))
        if now <= w.until:
            expected += 1
            rc = value_compare(target, copied, &key, &value)
        if rc == 0:
            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    if rc == 0 or rc == MDB_NOTFOUND:
        rc = mdb_stat(copied, target.meta, &stat)
    return MDB_INVALID if rc == 0 and stat.ms_entries != expected else rc


cdef int head_put(StoreState *s, MDB_txn *txn, Head *head) noexcept nogil:
    cdef MDB_val key, value
    head.sum = head_sum(head)
    head_key(&key)
    value.mv_data = head
    value.mv_size = sizeof(Head)
    return mdb_put(txn, s.meta, &key, &value, 0)
