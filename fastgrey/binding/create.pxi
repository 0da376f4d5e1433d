# Making the files of a store.

def create_generation(path: str, number: int, secret: bytes, made: int, settings: list[int]) -> None:
    """Make an empty, flushed generation in the existing directory path."""
    cdef StoreState state
    cdef Head head
    cdef int rc
    cdef size_t i
    cdef bytes name = os.fsencode(path)
    if len(secret) != SECRET_SIZE or len(settings) != SETTINGS:
        raise ValueError("a generation wants a secret of 192 bytes and every setting")
    memset(&state, 0, sizeof(state))
    memset(&head, 0, sizeof(head))
    memcpy(head.magic, b"fastgrey", 8)
    head.version = FORMAT_VERSION
    head.order = BYTE_ORDER_MARK
    head.generation = number
    head.made = made
    memcpy(head.secret, <const char *>secret, SECRET_SIZE)
    for i in range(SETTINGS):
        (<int64_t *>&head.settings)[i] = settings[i]
    rc = generation_create(&state, name, &head)
    environment_close(&state.passed)
    if rc != 0:
        raise StoreError(f"cannot make {path}: {opening_text(rc)}")


cdef int generation_create(StoreState *s, const char *path, Head *head) noexcept nogil:
    """Leave a new generation open in s, its tables made and its head written and flushed."""
    cdef MDB_txn *txn = NULL
    cdef int kind, rc
    rc = environment_open(&s.passed, path, 0, PASSED_TABLES)
    if rc == 0:
        rc = environment_write(&s.passed, &txn)
    if rc != 0:
        return rc
    rc = mdb_dbi_open(txn, b"meta", MDB_CREATE, &s.meta)
    if rc == 0:
        rc = mdb_dbi_open(txn, b"touched", MDB_CREATE, &s.touched)
    for kind in range(4):
        if rc == 0:
            rc = mdb_dbi_open(txn, kind_name(kind), MDB_CREATE, &s.known[kind])
    if rc == 0:
        rc = head_put(s, txn, head)
    if rc != 0:
        mdb_txn_abort(txn)
        return rc
    return mdb_txn_commit(txn)


def counters_page(defer_on_error: bool) -> bytes:
    """The content of a page of counters, all zero."""
    cdef CounterPage page
    memset(&page, 0, sizeof(page))
    memcpy(page.magic, b"fgstats\0", 8)
    page.version = COUNTERS_VERSION
    page.defer_on_error = defer_on_error
    page.made = int(clock.time())
    return (<char *>&page)[:sizeof(page)] + bytes(PAGE - sizeof(page))
