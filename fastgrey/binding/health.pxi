# What doctor looks at inside an open store: who reads it, and times that have not come yet.

cdef extern from "sys/timex.h" nogil:
    cdef struct timex:
        unsigned int modes
        int status
    int STA_UNSYNC
    int adjtimex(timex *kernel)


def clock_synchronised() -> bool | None:
    """Whether the kernel has the clock as synchronised (adjtimex(2)); None where it does not say."""
    cdef timex kernel
    memset(&kernel, 0, sizeof(kernel))
    if adjtimex(&kernel) < 0:
        return None
    return not kernel.status & STA_UNSYNC


cdef int health_read(Store store, bint pending, MDB_txn **txn) except -1:
    """Begin reading a part of the store; False where there is no such part."""
    cdef int rc
    if not pending:
        store._raise(passed_read(&store.state, txn))
        return True
    store._probe()
    store._raise(pending_open(&store.state, False))
    if store.state.pending.env == NULL:
        return False
    rc = environment_read(&store.state.pending, txn)
    if rc != 0:
        store._raise(fail(&store.state, CANNOT_READ, rc))
    return True


cdef int reader_told(const char *line, void *found) noexcept with gil:
    (<list>found).append(line.decode("ascii", "replace"))
    return 0


def reader_table(Store store, bint pending):
    """Reader slots of passed or pending, stale ones freed before: 'slots' there are, 'highest' number in use at once,
    'freed' just now, number of the 'last' transaction, and 'readers', each with its process id and the transaction that
    it reads (None between two reads). None where there is no pending."""
    cdef MDB_txn *txn = NULL
    cdef Environment *e = &store.state.pending if pending else &store.state.passed
    cdef MDB_envinfo info
    cdef int dead = 0
    lines = []
    store._usable()
    with store.lock:
        if not health_read(store, pending, &txn):
            return None
        environment_read_end(e)
        mdb_reader_check(e.env, &dead)
        mdb_env_info(e.env, &info)
        mdb_reader_list(e.env, reader_told, <void *>lines)
    # A line a slot in use, pid, thread and transaction, under a line of titles.
    fields = [line.split() for line in lines]
    return {
        "slots": info.me_maxreaders,
        "highest": info.me_numreaders,
        "freed": dead,
        "last": info.me_last_txnid,
        "readers": [(int(field[0]), None if field[2] == "-" else int(field[2])) for field in fields
                    if len(field) == 3 and field[0].isdigit()],
    }


cdef int after_in_table(MDB_txn *txn, MDB_dbi dbi, int64_t when, size_t limit, size_t *looked,
                        size_t *after) noexcept nogil:
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef uint64_t record
    cdef size_t number = 0
    cdef int rc = mdb_cursor_open(txn, dbi, &cursor)
    if rc != 0:
        return rc
    rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
    while rc == 0 and number < limit:
        if value.mv_size != sizeof(uint64_t):
            rc = MDB_INVALID
            break
        memcpy(&record, value.mv_data, sizeof(uint64_t))
        after[0] += record_time(record) > when
        number += 1
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
    mdb_cursor_close(cursor)
    looked[0] += number
    return 0 if rc == MDB_NOTFOUND else rc


def count_after(Store store, bint pending, now: int, size_t limit) -> tuple[int, int]:
    """Of the first limit records of each table of passed or pending: how many were looked at, and how many of them have
    a time later than the Unix time now. Keys are hashes, so the first are a fair sample."""
    cdef MDB_txn *txn = NULL
    cdef Partitions parts
    cdef int64_t when = now
    cdef size_t looked = 0, after = 0
    cdef int i, rc = 0
    store._usable()
    with store.lock:
        if not health_read(store, pending, &txn):
            return 0, 0
        if pending:
            # From time 0 no partition is in the past.
            rc = partitions_list(&store.state, txn, 0, 0, &parts)
            for i in range(parts.size if rc == 0 else 0):
                if rc == 0:
                    rc = after_in_table(txn, parts.items[i].dbi, when, limit, &looked, &after)
        else:
            for i in range(4):
                if rc == 0:
                    rc = after_in_table(txn, store.state.known[i], when, limit, &looked, &after)
        environment_read_end(&store.state.pending if pending else &store.state.passed)
        if rc != 0:
            store._raise(fail(&store.state, NOT_A_STORE if rc == MDB_INVALID else CANNOT_READ, rc))
    return looked, after
