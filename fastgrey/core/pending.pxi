# What strangers left: first-seen times, in time partitions, in a directory named after this boot.
#
# Nothing here is ever flushed, so a power cut may leave garbage; after it the boot id is another one, and with it
# the directory. A partition is a named database "1.START.LENGTH" (the format version, then Unix seconds); it holds
# the records first written in that span of time.

cdef enum:
    PARTITION_MIN = 3600
    # At most looked at. More than three are alive only while the clock stands before times already recorded: in a
    # replay of unordered envelopes. A handle of each costs every check, so a hook keeps to fewer.
    PARTITIONS_MAX = 60
    PARTITIONS_USUAL = 12
    # Horizons that an expired partition stays in a replay, for a clock that steps back.
    REPLAY_SLACK = 50
    PARTITION_NAME_SIZE = 48
    # Pages of a partition given up are free only once no reader is older; so many are worth waiting for.
    FREE_PAGES_ENOUGH = 256


cdef struct Partition:
    MDB_dbi dbi
    int64_t start
    int64_t length
    char name[PARTITION_NAME_SIZE]


# The partitions that may hold live records, the newest first.
cdef struct Partitions:
    int size
    Partition items[PARTITIONS_MAX]


cdef struct Sighting:
    uint64_t record
    # Index in Partitions, -1 where there is no record.
    int where


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
    if n < 5 or p[0] != c"1" or p[1] != c".":
        return -1
    dot = find(p, 2, n, c".")
    if dot == n or read_number(p + 2, dot - 2, &out.start) != 0:
        return -1
    if read_number(p + dot + 1, n - dot - 1, &out.length) != 0:
        return -1
    return partition_name_copy(name, out)


cdef void partition_name(int64_t start, int64_t length, char *out) noexcept nogil:
    cdef Text t = text_begin(out, PARTITION_NAME_SIZE)
    text_add(&t, b"1.")
    # Thirteen digits keep the order of the names the order of the times.
    text_number(&t, start, 13)
    text_add(&t, b".")
    text_number(&t, length, 1)
    text_end(&t)


cdef int partition_of(StoreState *s, int64_t now, Partition *out) noexcept nogil:
    """The partition that a record first written now belongs to."""
    out.length = later(pending_horizon(s), PARTITION_MIN)
    out.start = now - now % out.length
    partition_name(out.start, out.length, out.name)
    return 0


cdef bint partition_expired(const Partition *p, int64_t now, int64_t horizon) noexcept nogil:
    return p.start + p.length + horizon <= now


cdef int boot_directory(StoreState *s, char *out) noexcept nogil:
    """STORE/pending.BOOT; the boot id keeps a file that was not flushed from being read after a power cut."""
    cdef char name[64]
    cdef ssize_t n = -1
    cdef int fd = open(b"/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
    memcpy(name, b"pending.", 8)
    if fd >= 0:
        n = read(fd, name + 8, 36)
        close(fd)
    if n != 36:
        return fail(s, NO_BOOT_ID, errno if fd < 0 else 0)
    name[44] = 0
    join(out, PATH_MAX_SIZE, s.path, name)
    return NO_FAULT


cdef int pending_open(StoreState *s) noexcept nogil:
    cdef char path[PATH_MAX_SIZE]
    cdef int fault, rc
    cdef mode_t mask
    s.part = b"pending"
    fault = boot_directory(s, path)
    if fault != NO_FAULT:
        return fault
    rc = environment_open(&s.pending, path, MDB_NOSYNC, partitions_limit(s) + 2)
    if rc == ENOENT:
        # The group shares what the hook makes, whatever mask the mail server gave it.
        mask = umask(0o007)
        if mkdir(path, 0o770) != 0 and errno != EEXIST:
            rc = errno
        else:
            rc = environment_open(&s.pending, path, MDB_NOSYNC, partitions_limit(s) + 2)
        umask(mask)
    return NO_FAULT if rc == 0 else fail(s, open_fault(rc), rc)


cdef int partitions_list(StoreState *s, MDB_txn *txn, int64_t now, int64_t horizon, Partitions *out) noexcept nogil:
    """Open those that may hold live records. A clock that stepped back finds its records in later ones."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_dbi names
    cdef MDB_val key, value
    cdef Partition *p
    cdef int rc
    out.size = 0
    rc = mdb_dbi_open(txn, NULL, 0, &names)
    if rc == 0:
        rc = mdb_cursor_open(txn, names, &cursor)
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


cdef int sight(MDB_txn *txn, Partitions *parts, unsigned char *key, Sighting *out) noexcept nogil:
    """The newest record of key."""
    cdef MDB_val k, v
    cdef int i, rc
    out.where = -1
    out.record = 0
    for i in range(parts.size):
        k.mv_data = key
        k.mv_size = KEY_SIZE
        rc = mdb_get(txn, parts.items[i].dbi, &k, &v)
        if rc == 0 and v.mv_size == sizeof(uint64_t):
            memcpy(&out.record, v.mv_data, sizeof(uint64_t))
            out.where = i
            return 0
        if rc != 0 and rc != MDB_NOTFOUND:
            return rc
    return 0


cdef struct Pending:
    # Earliest first-seen time of the request's keys, -1 where it is new.
    int64_t first
    # The pair, as it stands after this attempt; hops is 0 where pairs are not looked at.
    int64_t pair_first
    uint64_t hops


cdef int pending_look(StoreState *s, MDB_txn *txn, const Envelope *e, int64_t now, Partitions *parts, Sighting *pair,
                      Pending *out) noexcept nogil:
    """Step 10 up to what has to be written."""
    cdef unsigned char key[KEY_SIZE]
    cdef Sighting seen
    cdef int64_t first
    cdef int place, rc
    out.first = -1
    out.hops = 0
    pair.where = -1
    rc = partitions_list(s, txn, now, pending_horizon(s), parts)
    for place in range(e.places):
        if rc != 0:
            return rc
        key_waiting(e, place, s.head.secret, key)
        rc = sight(txn, parts, key, &seen)
        if rc == 0 and seen.where >= 0:
            first = record_time(seen.record)
            if elapsed(now, first) <= s.head.settings.retry_window and (out.first < 0 or first < out.first):
                out.first = first
    if rc != 0 or out.first >= 0 or s.head.settings.pool_hops <= 0 or e.sender.size == 0:
        return rc
    key_pair(e, s.head.secret, key)
    rc = sight(txn, parts, key, pair)
    if rc != 0:
        return rc
    if pair.where >= 0 and elapsed(now, record_time(pair.record)) <= s.head.settings.pool_window:
        out.pair_first = record_time(pair.record)
        out.hops = record_count(pair.record) + 1
    else:
        pair.where = -1
        out.pair_first = now
        out.hops = 1
    return 0


cdef bint pool_passes(StoreState *s, const Pending *p, int64_t now) noexcept nogil:
    return (p.hops > 0 and <int64_t>p.hops >= s.head.settings.pool_hops
            and elapsed(now, p.pair_first) >= s.head.settings.delay)


cdef int pending_put(MDB_txn *txn, MDB_dbi dbi, unsigned char *key, uint64_t record) noexcept nogil:
    cdef MDB_val k, v
    k.mv_data = key
    k.mv_size = KEY_SIZE
    v.mv_data = &record
    v.mv_size = sizeof(uint64_t)
    return mdb_put(txn, dbi, &k, &v, 0)


cdef int partitions_drop(MDB_txn *txn, int64_t now, int64_t horizon, int *dropped) noexcept nogil:
    """Drop the partitions that expired, and what no version of this format names."""
    cdef MDB_cursor *cursor = NULL
    cdef MDB_dbi names, dbi
    cdef MDB_val key, value
    cdef Partition p
    cdef int rc
    while True:
        rc = mdb_dbi_open(txn, NULL, 0, &names)
        if rc == 0:
            rc = mdb_cursor_open(txn, names, &cursor)
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
        rc = mdb_dbi_open(txn, p.name, 0, &dbi)
        if rc == 0:
            rc = mdb_drop(txn, dbi, 1)
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


cdef int pending_write(StoreState *s, MDB_txn *txn, const Envelope *e, int64_t now, Partitions *parts, Sighting *pair,
                       Pending *p) noexcept nogil:
    """Write what step 10 says of a request that is not found: the pair, and unless the pool passes, the triplets."""
    cdef unsigned char key[KEY_SIZE]
    cdef MDB_dbi current
    cdef int place, rc
    rc = partition_current(s, txn, now, parts, &current)
    if rc == 0 and p.hops > 0:
        key_pair(e, s.head.secret, key)
        rc = pending_put(txn, parts.items[pair.where].dbi if pair.where >= 0 else current, key,
                         record_pack(p.pair_first, p.hops))
    if pool_passes(s, p, now):
        return rc
    for place in range(e.places):
        if rc == 0:
            key_waiting(e, place, s.head.secret, key)
            rc = pending_put(txn, current, key, record_pack(now, 1))
    return rc


cdef size_t pending_soft(StoreState *s) noexcept nogil:
    """Bytes that strangers may fill. The rest of the bound is for the freeing of a partition, which needs pages too."""
    cdef size_t bound = <size_t>s.head.settings.pending_size
    return bound - (bound >> 6) - (1 << 19)


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
        memcpy(&n, value.mv_data, sizeof(size_t))
        pages[0] += n
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    return 0 if rc == MDB_NOTFOUND else rc


cdef int drop_oldest(MDB_txn *txn) noexcept nogil:
    cdef MDB_cursor *cursor = NULL
    cdef MDB_dbi names, dbi
    cdef MDB_val key, value
    cdef Partition p
    cdef int rc = mdb_dbi_open(txn, NULL, 0, &names)
    if rc == 0:
        rc = mdb_cursor_open(txn, names, &cursor)
    if rc != 0:
        return rc
    rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
    if rc == 0:
        rc = partition_parse(&key, &p)
    mdb_cursor_close(cursor)
    if rc == 0:
        rc = mdb_dbi_open(txn, p.name, 0, &dbi)
    return mdb_drop(txn, dbi, 1) if rc == 0 else rc


cdef int give_up_oldest(StoreState *s, int attempt, int *notes) noexcept nogil:
    """Make room in a full map: give up the oldest partition, were it the current one. A stranger then waits once more;
    were nothing given up, no stranger could be recorded until the flood's partition expires."""
    cdef MDB_txn *txn = NULL
    cdef size_t pages = 0, number = 0
    cdef timespec pause
    cdef int rc = environment_resize(&s.pending, <size_t>s.head.settings.pending_size)
    if rc == 0:
        rc = environment_read(&s.pending, &txn)
    if rc == 0:
        # LMDB shows its free list to readers only.
        rc = free_pages(txn, &pages)
        number = mdb_txn_id(txn)
        environment_read_end(&s.pending)
    if rc != 0 or pages >= FREE_PAGES_ENOUGH:
        # A reader older than the last drop still sees these pages. Readers live for microseconds, on a busy machine
        # for as long as it takes until they run again.
        pause.tv_sec = 0
        pause.tv_nsec = 4_000_000 * (attempt + 1)
        nanosleep(&pause, NULL)
        return rc
    rc = environment_write(&s.pending, &txn)
    if rc != 0:
        return rc
    if mdb_txn_id(txn) != number + 1:
        # Somebody committed meanwhile, perhaps the same.
        mdb_txn_abort(txn)
        return 0
    rc = drop_oldest(txn)
    if rc != 0:
        mdb_txn_abort(txn)
        return rc
    rc = mdb_txn_commit(txn)
    if rc == 0:
        notes[0] |= GAVE_UP_PARTITION
        count(s, COUNT_GIVEN_UP)
    return rc


cdef int pending_room(StoreState *s, int attempt, int *notes) noexcept nogil:
    """After MDB_MAP_FULL: a larger map up to the bound, then the oldest partition's place."""
    cdef int rc = environment_grow(&s.pending, pending_soft(s))
    return give_up_oldest(s, attempt, notes) if rc == MDB_MAP_FULL else rc


cdef int pending_find(StoreState *s, const Envelope *e, int64_t now, Pending *out) noexcept nogil:
    """Look, and write nothing. Most retries end here."""
    cdef MDB_txn *txn = NULL
    cdef Partitions parts
    cdef Sighting pair
    cdef int rc, fault
    s.part = b"pending"
    if s.pending.env == NULL:
        fault = pending_open(s)
        if fault != NO_FAULT:
            return fault
    rc = environment_read(&s.pending, &txn)
    if rc == 0:
        rc = pending_look(s, txn, e, now, &parts, &pair, out)
        environment_read_end(&s.pending)
    return NO_FAULT if rc == 0 else fail(s, CANNOT_READ, rc)


cdef int pending_record(StoreState *s, const Envelope *e, int64_t now, Pending *out, int *notes) noexcept nogil:
    """Record a new request under the write lock, unless another check has just done so: then out.first is its."""
    cdef MDB_txn *txn = NULL
    cdef Partitions parts
    cdef Sighting pair
    cdef int rc = 0, attempt
    s.part = b"pending"
    if environment_mapsize(&s.pending) > pending_soft(s):
        rc = environment_resize(&s.pending, pending_soft(s))
    for attempt in range(TRIES):
        if rc == 0:
            rc = environment_write(&s.pending, &txn)
        if rc != 0:
            break
        parts.size = 0
        rc = pending_look(s, txn, e, now, &parts, &pair, out)
        if rc == 0 and out.first >= 0:
            mdb_txn_abort(txn)
            return NO_FAULT
        if rc == 0:
            rc = pending_write(s, txn, e, now, &parts, &pair, out)
        if rc == 0:
            rc = mdb_txn_commit(txn)
            partitions_close(s, &parts)
        else:
            mdb_txn_abort(txn)
        if rc != MDB_MAP_FULL:
            break
        rc = pending_room(s, attempt, notes)
        if rc != 0:
            break
    if rc == 0:
        return NO_FAULT
    if rc == MDB_MAP_FULL:
        notes[0] |= NOT_RECORDED
        count(s, COUNT_NOT_RECORDED)
        return NO_FAULT
    environment_close(&s.pending)
    return fail(s, CANNOT_WRITE, rc)
