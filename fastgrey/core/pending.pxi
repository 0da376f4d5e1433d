# What strangers left: first-seen times and hops, in a directory named after this boot.
#
# Nothing here is ever flushed, so a power cut may leave garbage; after it the boot id is another one, and with it
# the directory.

cdef struct Sighting:
    uint64_t record
    # Index in Partitions, -1 where there is no record.
    int where


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


cdef int pending_open(StoreState *s, bint create) noexcept nogil:
    """Open pending of this boot. Where there is none and it is not to be made, s.pending.env stays NULL."""
    cdef char path[PATH_MAX_SIZE]
    cdef int fault, rc
    cdef mode_t mask
    s.part = b"pending"
    if s.pending.env != NULL:
        return NO_FAULT
    fault = boot_directory(s, path)
    if fault != NO_FAULT:
        return fault
    rc = environment_open(&s.pending, path, MDB_NOSYNC, partitions_limit(s) + 2)
    if rc == ENOENT:
        if not create:
            return NO_FAULT
        mask = umask(SHARED_MASK)
        rc = 0 if mkdir(path, 0o770) == 0 or errno == EEXIST else errno
        umask(mask)
        if rc == 0:
            rc = environment_open(&s.pending, path, MDB_NOSYNC, partitions_limit(s) + 2)
    return NO_FAULT if rc == 0 else fail(s, open_fault(rc), open_error(rc))


cdef int sight(MDB_txn *txn, Partitions *parts, unsigned char *key, Sighting *out) noexcept nogil:
    """The latest record of key. Partitions of different lengths overlap, so theirs is not in the newest one of need."""
    cdef MDB_val k, v
    cdef uint64_t record
    cdef int i, rc
    out.where = -1
    out.record = 0
    for i in range(parts.size):
        if out.where >= 0 and parts.items[i].start + parts.items[i].length <= record_time(out.record):
            continue
        k.mv_data = key
        k.mv_size = KEY_SIZE
        rc = mdb_get(txn, parts.items[i].dbi, &k, &v)
        if rc == 0 and v.mv_size == sizeof(uint64_t):
            memcpy(&record, v.mv_data, sizeof(uint64_t))
            if out.where < 0 or record_time(record) > record_time(out.record):
                out.record = record
                out.where = i
        elif rc != 0 and rc != MDB_NOTFOUND:
            return rc
    return 0


cdef int pending_look(StoreState *s, MDB_txn *txn, const Envelope *e, int64_t now, Partitions *parts, Sighting *pair,
                      Pending *out) noexcept nogil:
    """Step 10 up to what has to be written."""
    cdef unsigned char key[KEY_SIZE]
    cdef Sighting seen
    cdef int place, rc
    pending_begin(out)
    pair.where = -1
    rc = partitions_list(s, txn, now, pending_horizon(s), parts)
    for place in range(e.places):
        if rc != 0:
            return rc
        key_waiting(e, place, s.head.secret, key)
        rc = sight(txn, parts, key, &seen)
        if rc == 0 and seen.where >= 0:
            waiting_seen(&s.head.settings, seen.record, now, out)
    if rc != 0 or out.first >= 0 or not makes_pairs(&s.head.settings, e):
        return rc
    key_pair(e, s.head.secret, key)
    rc = sight(txn, parts, key, pair)
    if rc == 0 and not pair_goes_on(&s.head.settings, pair.record, now, out):
        pair.where = -1
    return rc


cdef int pending_put(MDB_txn *txn, MDB_dbi dbi, unsigned char *key, uint64_t record) noexcept nogil:
    cdef MDB_val k, v
    k.mv_data = key
    k.mv_size = KEY_SIZE
    v.mv_data = &record
    v.mv_size = sizeof(uint64_t)
    return mdb_put(txn, dbi, &k, &v, 0)


cdef int pending_write(StoreState *s, MDB_txn *txn, const Envelope *e, int64_t now, Partitions *parts, Sighting *pair,
                       Pending *p, int *given_up) noexcept nogil:
    """Write what step 10 says of a request that is not found: the pair, and unless the pool passes, the triplets."""
    cdef unsigned char key[KEY_SIZE]
    cdef uint64_t hop = record_pack(p.pair_first, p.hops)
    cdef MDB_dbi current
    cdef int place, rc = 0
    if p.hops > 0:
        key_pair(e, s.head.secret, key)
        # Before a partition is made, for which that of the pair may have to go.
        if pair.where >= 0:
            rc = pending_put(txn, parts.items[pair.where].dbi, key, hop)
    if rc == 0:
        rc = partition_current(s, txn, now, parts, given_up, &current)
    if rc == 0 and p.hops > 0 and pair.where < 0:
        rc = pending_put(txn, current, key, hop)
    if pool_passes(&s.head.settings, p, now):
        return rc
    for place in range(e.places):
        if rc == 0:
            key_waiting(e, place, s.head.secret, key)
            # A pair has a hop at least; 0 tells the triplet from it.
            rc = pending_put(txn, current, key, record_pack(now, 0))
    return rc


cdef int pending_find(StoreState *s, const Envelope *e, int64_t now, bint create, Pending *out) noexcept nogil:
    """Look, and write nothing, but for making pending where create is set. Most retries end here."""
    cdef MDB_txn *txn = NULL
    cdef Partitions parts
    cdef Sighting pair
    cdef int rc, fault
    fault = pending_open(s, create)
    if fault != NO_FAULT:
        return fault
    if s.pending.env == NULL:
        pending_begin(out)
        if makes_pairs(&s.head.settings, e):
            pair_goes_on(&s.head.settings, 0, now, out)
        return NO_FAULT
    rc = environment_read(&s.pending, &txn)
    if rc == 0:
        rc = pending_look(s, txn, e, now, &parts, &pair, out)
        environment_read_end(&s.pending)
    if rc == 0:
        return NO_FAULT
    environment_close(&s.pending)
    return fail(s, read_fault(rc), rc)


cdef int pending_record(StoreState *s, const Envelope *e, int64_t now, Pending *out, int *notes) noexcept nogil:
    """Record a new request under the write lock, unless another check has just done so: then out.first is its."""
    cdef MDB_txn *txn = NULL
    cdef Partitions parts
    cdef Sighting pair
    cdef int rc = 0, attempt, given_up
    s.part = b"pending"
    if environment_mapsize(&s.pending) > pending_soft(s):
        rc = environment_resize(&s.pending, pending_soft(s))
    for attempt in range(TRIES):
        if rc == 0:
            rc = environment_write(&s.pending, &txn)
        if rc != 0:
            break
        parts.size = 0
        given_up = 0
        rc = pending_look(s, txn, e, now, &parts, &pair, out)
        if rc == 0 and out.first >= 0:
            mdb_txn_abort(txn)
            return NO_FAULT
        if rc == 0:
            rc = pending_write(s, txn, e, now, &parts, &pair, out, &given_up)
        if rc == 0:
            rc = mdb_txn_commit(txn)
            partitions_close(s, &parts)
        else:
            mdb_txn_abort(txn)
        if rc == 0:
            gave_up(s, given_up, notes)
            if not pool_passes(&s.head.settings, out, now):
                count(s, COUNT_STRANGERS)
        # The last attempt stays what it is: what pending_room says after it would pass for a record.
        if rc != MDB_MAP_FULL or attempt == TRIES - 1:
            break
        rc = pending_room(s, now, attempt, notes)
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
