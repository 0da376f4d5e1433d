# The store's own records by kind and key, as an engine has them (case.pxi): read all at once; compared, and set where
# every one is what it was.

cdef struct Cell:
    int kind
    unsigned char key[KEY_SIZE]
    # What is there, 0 for nothing.
    uint64_t record
    # Where it is to be written: what must be there, and what shall be, 0 for nothing.
    bint writing
    uint64_t old
    uint64_t new
    Sighting seen


cdef inline bint cell_pending(const Cell *cell) noexcept nogil:
    return cell.kind > PAIR


cdef bint cells_write(const Cell *cells, int n, bint pending) noexcept nogil:
    """Is anything to be written to pending, or to the generation in force?"""
    cdef int i
    for i in range(n):
        if cells[i].writing and cell_pending(&cells[i]) == pending:
            return True
    return False


cdef bint cells_stand(const Cell *cells, int n, bint pending) noexcept nogil:
    """Is everything that is to be written there still what it was?"""
    cdef int i
    for i in range(n):
        if cells[i].writing and cell_pending(&cells[i]) == pending and cells[i].record != cells[i].old:
            return False
    return True


cdef int64_t cells_time(const Cell *cells, int n) noexcept nogil:
    """The latest time that is to be written to pending."""
    cdef int64_t when = 0
    cdef int i
    for i in range(n):
        if cells[i].writing and cell_pending(&cells[i]):
            when = later(when, record_time(cells[i].new))
    return when


cdef int cells_known(StoreState *s, MDB_txn *txn, Cell *cells, int n) noexcept nogil:
    cdef int i, rc = 0
    for i in range(n):
        if rc == 0 and not cell_pending(&cells[i]):
            rc = known_get(s, txn, cells[i].kind, cells[i].key, &cells[i].record)
    return rc


cdef int cells_sight(StoreState *s, MDB_txn *txn, Partitions *parts, Cell *cells, int n) noexcept nogil:
    # From time 0 no partition is in the past: which records still count is for the decision to say.
    cdef int i, rc = partitions_list(s, txn, 0, 0, parts)
    for i in range(n):
        if rc == 0 and cell_pending(&cells[i]):
            rc = sight(txn, parts, cells[i].key, &cells[i].seen)
            cells[i].record = cells[i].seen.record
    return rc


cdef int slots_fetch(StoreState *s, Cell *cells, int n) noexcept nogil:
    """Fill in the records; a fault where they cannot be read."""
    cdef MDB_txn *txn = NULL
    cdef Partitions parts
    cdef int rc, fault = passed_read(s, &txn)
    if fault != NO_FAULT:
        return fault
    rc = cells_known(s, txn, cells, n)
    environment_read_end(&s.passed)
    if rc != 0:
        return fail(s, CANNOT_READ, rc)
    fault = pending_open(s, False)
    if fault != NO_FAULT or s.pending.env == NULL:
        return fault
    rc = environment_read(&s.pending, &txn)
    if rc == 0:
        rc = cells_sight(s, txn, &parts, cells, n)
        environment_read_end(&s.pending)
    if rc == 0:
        return NO_FAULT
    environment_close(&s.pending)
    return fail(s, read_fault(rc), rc)


cdef int cell_drop(MDB_txn *txn, Partitions *parts, Cell *cell) noexcept nogil:
    cdef Mark m
    memcpy(m.key, cell.key, KEY_SIZE)
    return pending_drop(txn, parts, &m, &cell.seen)


cdef int cells_put_pending(StoreState *s, MDB_txn *txn, Partitions *seen, Partitions *parts, Cell *cells, int n,
                           int *given_up) noexcept nogil:
    """Write to pending what is to be written there: what does not become later stays in its partition."""
    cdef MDB_dbi dbi
    cdef Cell *cell
    cdef int i, rc = 0
    cdef bint left = False
    # Before a partition is made, for which that of the record may have to go.
    for i in range(n):
        cell = &cells[i]
        if rc != 0 or not cell.writing or not cell_pending(cell):
            continue
        if cell.new == 0:
            rc = cell_drop(txn, seen, cell)
        elif cell.seen.where >= 0 and record_time(cell.new) <= record_time(cell.record):
            rc = pending_put(txn, seen.items[cell.seen.where].dbi, cell.key, cell.new)
        else:
            left = True
    if rc == 0 and left:
        rc = partitions_list(s, txn, cells_time(cells, n), pending_horizon(s), parts)
    for i in range(n):
        cell = &cells[i]
        if rc != 0 or not cell.writing or not cell_pending(cell) or cell.new == 0:
            continue
        if cell.seen.where < 0 or record_time(cell.new) > record_time(cell.record):
            rc = partition_current(s, txn, record_time(cell.new), parts, given_up, &dbi)
            if rc == 0:
                rc = pending_put(txn, dbi, cell.key, cell.new)
    return rc


cdef int swap_pending_once(StoreState *s, Cell *cells, int n, bint *swapped, int *given_up) noexcept nogil:
    cdef MDB_txn *txn = NULL
    cdef Partitions seen, parts
    cdef int rc = environment_write(&s.pending, &txn)
    if rc != 0:
        return rc
    seen.size = 0
    parts.size = 0
    given_up[0] = 0
    rc = cells_sight(s, txn, &seen, cells, n)
    swapped[0] = rc == 0 and cells_stand(cells, n, True)
    if swapped[0]:
        rc = cells_put_pending(s, txn, &seen, &parts, cells, n, given_up)
    if rc != 0 or not swapped[0]:
        mdb_txn_abort(txn)
        return rc
    rc = mdb_txn_commit(txn)
    partitions_close(s, &seen)
    partitions_close(s, &parts)
    return rc


cdef int swap_pending(StoreState *s, Cell *cells, int n, bint *swapped) noexcept nogil:
    """Of what is to be written, what goes to pending. Where that is full for good nothing is recorded, as in a check."""
    cdef int rc = 0, attempt, given_up = 0, notes = 0
    cdef int64_t when = cells_time(cells, n)
    cdef int fault = pending_open(s, True)
    if fault != NO_FAULT:
        return fault
    s.part = b"pending"
    if environment_mapsize(&s.pending) > pending_soft(s):
        rc = environment_resize(&s.pending, pending_soft(s))
    for attempt in range(TRIES):
        if rc == 0:
            rc = swap_pending_once(s, cells, n, swapped, &given_up)
        if rc == 0:
            gave_up(s, given_up, &notes)
            return NO_FAULT
        if rc != MDB_MAP_FULL or attempt == TRIES - 1:
            break
        rc = pending_room(s, when, attempt, &notes)
    if rc == MDB_MAP_FULL:
        count(s, COUNT_NOT_RECORDED)
        swapped[0] = True
        return NO_FAULT
    environment_close(&s.pending)
    return fail(s, CANNOT_WRITE, rc)


cdef int cells_put_known(StoreState *s, MDB_txn *txn, Cell *cells, int n) noexcept nogil:
    cdef Cell *cell
    cdef int i, rc = 0
    for i in range(n):
        cell = &cells[i]
        if rc != 0 or not cell.writing or cell_pending(cell):
            continue
        if cell.new:
            rc = known_put(s, txn, cell.kind, cell.key, cell.new)
        elif cell.record:
            rc = known_drop(s, txn, cell.kind, cell.key)
    return rc


cdef int slots_swap(StoreState *s, Cell *cells, int n, bint *swapped) noexcept nogil:
    """Write all of it where every old record is still there, else nothing; a fault where that cannot be done.

    The lock of the generation is taken first and held over both: what stands there cannot change until it is flushed.
    Pending is committed before that, for it waits for no disk. A kill between the two leaves a hop counted whose
    promotion is not written; its next attempt promotes.
    """
    cdef MDB_txn *txn = NULL
    cdef int fault = NO_FAULT, rc, attempt
    cdef bint again, pending = cells_write(cells, n, True)
    swapped[0] = False
    if not cells_write(cells, n, False):
        fault = passed_read(s, &txn)
        environment_read_end(&s.passed)
        return fault if fault != NO_FAULT else swap_pending(s, cells, n, swapped)
    for attempt in range(TRIES):
        fault = passed_write(s, &txn)
        if fault != NO_FAULT:
            return fault
        rc = cells_known(s, txn, cells, n)
        if rc == 0 and not cells_stand(cells, n, False):
            # Pending may be written already, before the map was too small for the rest.
            swapped[0] = False
            mdb_txn_abort(txn)
            return NO_FAULT
        if rc == 0:
            rc = cells_put_known(s, txn, cells, n)
        if rc == 0 and pending:
            swapped[0] = False
            fault = swap_pending(s, cells, n, swapped)
            if fault != NO_FAULT or not swapped[0]:
                mdb_txn_abort(txn)
                return fault
            pending = False
        fault = passed_commit(s, txn, rc, &again)
        if not again:
            swapped[0] = fault == NO_FAULT
            return fault
    return fail(s, UNSTABLE, 0)
