# One LMDB environment and its traps: reader slots, resized maps, full maps, cut files.

cdef enum:
    # What opening gives beside an errno or a code of LMDB, whose own are below -30700 (view.pxi).
    VIEW_FAILED = -30000


cdef struct Environment:
    MDB_env *env
    # Kept between checks: renewing it costs no slot and no lock.
    MDB_txn *reader
    bint reading
    bint writable


ctypedef void (*AssertionHandler)(MDB_env *env, const char *text) noexcept nogil

# What LMDB calls where a damaged page breaks one of its assertions. NULL: it says so on standard error and aborts. The
# executable sets it, for there is one log line a check.
cdef AssertionHandler on_broken_assertion


cdef void environment_leave(Environment *e) noexcept nogil:
    """Give the reader slot back. All that is left to do for a process that ends without closing."""
    if e.reader != NULL:
        mdb_txn_abort(e.reader)
        e.reader = NULL
        e.reading = False


cdef void environment_close(Environment *e) noexcept nogil:
    environment_leave(e)
    if e.env != NULL:
        mdb_env_close(e.env)
    memset(e, 0, sizeof(Environment))


cdef int environment_open_once(Environment *e, const char *path, unsigned int flags,
                               unsigned int tables) noexcept nogil:
    """How the executable opens a table, and how the extension, stands in straight.pxi and in view.pxi."""
    cdef mode_t mask
    cdef int rc = mdb_env_create(&e.env)
    if rc == 0:
        rc = mdb_env_set_maxreaders(e.env, READERS)
    if rc == 0:
        rc = mdb_env_set_maxdbs(e.env, tables)
    if rc == 0 and on_broken_assertion != NULL:
        rc = mdb_env_set_assert(e.env, on_broken_assertion)
    if rc == 0:
        # The group shares what LMDB may have to create, whatever mask the mail server gave the hook.
        mask = umask(SHARED_MASK)
        # MDB_NOTLS ties a reader slot to its transaction, so that a process may leave without closing.
        rc = table_open(e.env, path, flags | MDB_NOTLS, 0o660)
        umask(mask)
    if rc != 0:
        environment_close(e)
    else:
        e.writable = not flags & MDB_RDONLY
    return rc


cdef int environment_resize(Environment *e, size_t size) noexcept nogil:
    """Set the size of the map, 0 for the size that the file has by now. Where that fails the environment is closed:
    its old map is gone, and LMDB would go on through the address."""
    cdef int rc
    # The map must not move under a transaction, not even under one that is only reset.
    environment_leave(e)
    rc = mdb_env_set_mapsize(e.env, size)
    if rc != 0:
        environment_close(e)
    return rc


cdef int environment_read(Environment *e, MDB_txn **txn) noexcept nogil:
    """Begin reading. environment_read_end must follow, also before any write to the same environment."""
    cdef int rc = 0, attempt, dead = 0
    for attempt in range(TRIES):
        if e.reader != NULL:
            rc = mdb_txn_renew(e.reader)
        else:
            rc = mdb_txn_begin(e.env, NULL, MDB_RDONLY, &e.reader)
            if rc != 0:
                e.reader = NULL
        if rc == 0:
            e.reading = True
            txn[0] = e.reader
            return 0
        environment_leave(e)
        if rc == MDB_MAP_RESIZED:
            rc = environment_resize(e, 0)
        elif rc == MDB_READERS_FULL:
            rc = mdb_reader_check(e.env, &dead)
        if rc != 0:
            return rc
    return MDB_READERS_FULL


cdef void environment_read_end(Environment *e) noexcept nogil:
    if e.reading:
        mdb_txn_reset(e.reader)
        e.reading = False


cdef int environment_open(Environment *e, const char *path, unsigned int flags, unsigned int tables) noexcept nogil:
    """Open the directory path; an errno or LMDB code. No map size is given: LMDB takes it from the file.

    Who finds nobody there makes the table of readers, in which the number of the last transaction comes last. Killed
    before that, it leaves a table without it to whoever was waiting for it: LMDB then reads and writes from transaction
    0, and what was committed is gone. Once all have let go of such a table, the next one makes it anew.
    """
    cdef MDB_txn *txn = NULL
    cdef MDB_envinfo info
    cdef timespec pause
    cdef int attempt, rc
    cdef bint whole
    for attempt in range(TRIES):
        rc = environment_open_once(e, path, flags, tables)
        if rc == 0:
            rc = environment_read(e, &txn)
        if rc != 0:
            environment_close(e)
            return rc
        mdb_env_info(e.env, &info)
        whole = mdb_txn_id(txn) != 0 or info.me_last_txnid == 0
        environment_read_end(e)
        if whole:
            return 0
        environment_close(e)
        pause.tv_sec = 0
        pause.tv_nsec = 1_000_000 * (attempt + 1)
        nanosleep(&pause, NULL)
    return EAGAIN


cdef int environment_write(Environment *e, MDB_txn **txn) noexcept nogil:
    cdef int rc = 0, attempt
    environment_read_end(e)
    for attempt in range(TRIES):
        rc = mdb_txn_begin(e.env, NULL, 0, txn)
        if rc != MDB_MAP_RESIZED:
            return rc
        rc = environment_resize(e, 0)
        if rc != 0:
            return rc
    return MDB_MAP_RESIZED


cdef size_t environment_mapsize(Environment *e) noexcept nogil:
    cdef MDB_envinfo info
    mdb_env_info(e.env, &info)
    return info.me_mapsize


cdef int environment_grow(Environment *e, size_t bound) noexcept nogil:
    """Double the map up to bound bytes (0: no bound). MDB_MAP_FULL where it has that size already."""
    cdef size_t size = environment_mapsize(e)
    cdef int dead = 0
    # A killed reader pins the pages of its snapshot: free its slot before asking for more room.
    mdb_reader_check(e.env, &dead)
    if bound and size >= bound:
        return MDB_MAP_FULL
    size *= 2
    return environment_resize(e, bound if bound and size > bound else size)
