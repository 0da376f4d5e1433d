# What one generation has and an earlier one has not: two tables gone through side by side, in the order of their keys.

cdef struct Difference:
    # Records that only the newer or only the older has; those of the older that expired are not counted.
    uint64_t added
    uint64_t gone
    # Records that both have, and that say something else.
    uint64_t changed


cdef struct Side:
    MDB_cursor *cursor
    MDB_val key
    MDB_val value
    # MDB_NOTFOUND at the end.
    int rc


cdef void side_next(Side *side, bint first) noexcept nogil:
    side.rc = mdb_cursor_get(side.cursor, &side.key, &side.value, MDB_FIRST if first else MDB_NEXT)
    if side.rc == 0 and (side.key.mv_size != KEY_SIZE or side.value.mv_size != sizeof(uint64_t)):
        side.rc = MDB_INVALID


cdef int difference_some(StoreState *s, Side *newer, Side *older, int64_t now, int limit,
                         Difference *d) noexcept nogil:
    """Go through up to limit records more. MDB_NOTFOUND at the end of both. s has the lifetime."""
    cdef int order
    while limit > 0:
        if newer.rc != 0 and newer.rc != MDB_NOTFOUND:
            return newer.rc
        if older.rc != 0:
            if older.rc != MDB_NOTFOUND or newer.rc != 0:
                return older.rc
            order = -1
        elif newer.rc != 0:
            order = 1
        else:
            order = memcmp(newer.key.mv_data, older.key.mv_data, KEY_SIZE)
        if order < 0:
            d.added += 1
        elif order > 0:
            d.gone += value_alive(s, &older.value, now)
        else:
            d.changed += memcmp(newer.value.mv_data, older.value.mv_data, sizeof(uint64_t)) != 0
        if order <= 0:
            side_next(newer, False)
        if order >= 0:
            side_next(older, False)
        limit -= 1
    return 0
