# Room for strangers: what happens when pending is full.

cdef enum:
    # A partition that takes this share of the bound is continued in another part, so that a flood costs no more than
    # its own oldest strangers. Every part more is one more to look into.
    SHARES = 4
    # Pages of a partition given up are free only once no reader is older; so many are worth waiting for.
    FREE_PAGES_ENOUGH = 100


cdef size_t pending_reserve(size_t bound) noexcept nogil:
    """Bytes that the freeing of a partition may need for itself."""
    return (bound >> 6) + (1 << 19)


cdef size_t pending_soft(StoreState *s) noexcept nogil:
    """Bytes that strangers may fill."""
    cdef size_t bound = <size_t>s.head.settings.pending_size
    return bound - pending_reserve(bound)


cdef int free_pages(MDB_txn *txn, size_t *pages) noexcept nogil:
    """Pages on LMDB's free list, which is the database with handle 0: lists of page numbers led by their length."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef size_t n
    cdef int rc = mdb_cursor_open(txn, 0, &cursor)
    pages[0] = 0
    if rc != 0:
        return rc
    rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
    while rc == 0:
        if value.mv_size < sizeof(size_t):
            rc = MDB_CORRUPTED
            break
        memcpy(&n, value.mv_data, sizeof(size_t))
        pages[0] += n
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    return 0 if rc == MDB_NOTFOUND else rc


cdef size_t pending_share(StoreState *s) noexcept nogil:
    """Bytes of a part. All of them leave a sixteenth for the pages that are copied and freed meanwhile, so that a part
    is given up in good time: in a full map there may be no page left for the list of what becomes free."""
    cdef size_t soft = pending_soft(s)
    return (soft - soft // 16) // SHARES


cdef size_t pending_at_rest(StoreState *s) noexcept nogil:
    """Bytes that may be taken when a partition is made: all other shares, and a little for what was added last."""
    return (SHARES - 1) * pending_share(s) + pending_soft(s) // 32


cdef void gave_up(StoreState *s, int partitions, int *notes) noexcept nogil:
    if partitions:
        notes[0] |= GAVE_UP_PARTITION
        count_many(s, COUNT_GIVEN_UP, partitions)


cdef int drop_farthest(StoreState *s, int64_t now, size_t number, bint *dropped) noexcept nogil:
    """Give up a partition, unless another transaction than number was the last; MDB_MAP_FULL where there is none, or no
    page left for the list of those that become free."""
    cdef MDB_txn *txn = NULL
    cdef Partition p
    cdef int rc = environment_write(&s.pending, &txn)
    if rc != 0:
        return rc
    if mdb_txn_id(txn) != number + 1:
        # Somebody committed meanwhile, perhaps the same.
        mdb_txn_abort(txn)
        return 0
    rc = partition_farthest(txn, now, &p)
    if rc == 0:
        rc = partition_drop(txn, &p)
    if rc != 0:
        mdb_txn_abort(txn)
        return MDB_MAP_FULL if rc == MDB_NOTFOUND else rc
    rc = mdb_txn_commit(txn)
    dropped[0] = rc == 0
    return rc


cdef int give_up_oldest(StoreState *s, int64_t now, int attempt, int *notes) noexcept nogil:
    """Make room in a full map: give up the oldest partition, were it the current one. A stranger then waits once more;
    were nothing given up, no stranger could be recorded until the flood's partition expires."""
    cdef MDB_txn *txn = NULL
    cdef MDB_envinfo info
    cdef size_t pages = 0, number = 0, used
    cdef timespec pause
    cdef bint dropped = False
    cdef int rc = environment_resize(&s.pending, <size_t>s.head.settings.pending_size)
    if rc == 0:
        rc = environment_read(&s.pending, &txn)
    if rc == 0:
        # LMDB shows its free list to readers only.
        rc = free_pages(txn, &pages)
        number = mdb_txn_id(txn)
        environment_read_end(&s.pending)
    if rc != 0:
        return rc
    if pages >= FREE_PAGES_ENOUGH:
        # A reader older than the last drop still sees these pages. Readers live for microseconds, on a busy machine
        # for as long as it takes until they run again.
        pause.tv_sec = 0
        pause.tv_nsec = 4_000_000 * (attempt + 1)
        nanosleep(&pause, NULL)
        return 0
    rc = drop_farthest(s, now, number, &dropped)
    if rc == MDB_MAP_FULL:
        # A file from before the bound was lowered, full to its last page. Once there is room for the dropping itself,
        # there is for all that comes.
        mdb_env_info(s.pending.env, &info)
        used = (info.me_last_pgno + 1) * PAGE
        rc = environment_resize(&s.pending, used + pending_reserve(used))
        if rc == 0:
            rc = drop_farthest(s, now, number, &dropped)
    if dropped:
        gave_up(s, 1, notes)
    return rc


cdef int pending_room(StoreState *s, int64_t now, int attempt, int *notes) noexcept nogil:
    """After MDB_MAP_FULL: a larger map up to the bound, then the oldest partition's place."""
    cdef int rc = environment_grow(&s.pending, pending_soft(s))
    return give_up_oldest(s, now, attempt, notes) if rc == MDB_MAP_FULL else rc
