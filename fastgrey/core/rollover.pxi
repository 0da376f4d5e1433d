# The partition that is written to: of the present span of time, and of its parts the last.

cdef int give_up_for(StoreState *s, MDB_txn *txn, int64_t now, Partitions *parts, int *given_up) noexcept nogil:
    """Before a partition is made: no more of them than can be looked into, and room for this one. For that, the last
    one stays, though it may be large where the bound was lowered."""
    cdef MDB_stat stat
    cdef MDB_dbi names
    cdef Partition p
    cdef size_t taken = 0
    cdef int i, rc = mdb_dbi_open(txn, NULL, 0, &names)
    for i in range(parts.size):
        taken += partition_bytes(txn, &parts.items[i])
    while rc == 0:
        rc = mdb_stat(txn, names, &stat)
        if rc != 0 or <int>stat.ms_entries < partitions_limit(s) and (taken <= pending_at_rest(s) or parts.size < 2):
            break
        rc = partition_farthest(txn, now, &p)
        if rc != 0:
            break
        for i in range(parts.size):
            if strcmp(parts.items[i].name, p.name) == 0:
                taken -= partition_bytes(txn, &parts.items[i])
                parts.size -= 1
                memmove(&parts.items[i], &parts.items[i + 1], (parts.size - i) * sizeof(Partition))
                break
        rc = partition_drop(txn, &p)
        given_up[0] += 1
    return rc


cdef int partition_make(StoreState *s, MDB_txn *txn, int64_t now, Partition *p, Partitions *parts,
                        int *given_up) noexcept nogil:
    """Who makes a partition also drops what is past."""
    cdef int rc, dropped = 0
    cdef int64_t settled, past, horizon = pending_horizon(s)
    rc = partitions_settled(txn, now, &settled)
    past = now - horizon * (REPLAY_SLACK if s.flags & THROW_AWAY else 1)
    if rc == 0:
        rc = partitions_drop(txn, settled if settled < past else past, horizon, &dropped)
    if rc == 0:
        rc = give_up_for(s, txn, now, parts, given_up)
    partition_name(p)
    if rc == 0:
        rc = mdb_dbi_open(txn, p.name, MDB_CREATE, &p.dbi)
    if rc == 0 and parts.size < PARTITIONS_MAX:
        # Before the others of its span, of which the last part comes first.
        memmove(&parts.items[1], &parts.items[0], parts.size * sizeof(Partition))
        parts.items[0] = p[0]
        parts.size += 1
    return rc


cdef int partition_current(StoreState *s, MDB_txn *txn, int64_t now, Partitions *parts, int *given_up,
                           MDB_dbi *dbi) noexcept nogil:
    """The partition to write to, made where it is missing or has its share of the bound. Others may be given up for it,
    and then are in parts no more."""
    cdef Partition p
    cdef int i, rc
    partition_of(s, now, &p)
    for i in range(parts.size):
        # The newest first: this is the last part.
        if parts.items[i].start == p.start and parts.items[i].length == p.length:
            if partition_bytes(txn, &parts.items[i]) < pending_share(s):
                dbi[0] = parts.items[i].dbi
                return 0
            p.part = parts.items[i].part + 1
            break
    rc = partition_make(s, txn, now, &p, parts, given_up)
    dbi[0] = p.dbi
    return rc
