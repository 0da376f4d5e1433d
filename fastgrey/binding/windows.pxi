# Expectation windows: opening, listing and closing them.

cdef int window_parts(str recipient, domain, const unsigned char *secret, unsigned char *name) except -1:
    """The name of the record for a recipient and a sender domain, None for any; ValueError for what is neither."""
    cdef Address to, sender
    cdef bytes text = as_bytes(recipient, "recipient")
    if normalise_address(bytes_span(text), False, &to) != 0:
        raise ValueError(fault_text(BAD_RECIPIENT).decode())
    sender.size = sender.domain = 0
    if domain is not None:
        text = b"@" + as_bytes(domain, "domain").removeprefix(b"@")
        if normalise_address(bytes_span(text), True, &sender) != 0 or sender.domain == sender.size:
            raise ValueError("the sender domain is empty, longer than 1000 bytes, or holds NUL, CR or LF")
    window_name(&to, sender.text + sender.domain, sender.size - sender.domain, secret, name)
    return 0


cdef dict window_facts(const unsigned char *name, const Window *w):
    return {"key": (<const unsigned char *>name)[7:WINDOW_NAME_SIZE].hex(), "opened": w.opened, "until": w.until,
            "narrow": bool(w.narrow)}


def find_window(Store store, str recipient, str domain=None) -> dict | None:
    """The record of the window for a recipient and a sender domain, closed by time or not; None where there is none."""
    cdef unsigned char name[WINDOW_NAME_SIZE]
    cdef MDB_txn *txn = NULL
    cdef Window w
    cdef int rc
    store._usable()
    with store.lock:
        store._raise(passed_read(&store.state, &txn))
        try:
            window_parts(recipient, domain, store.state.head.secret, name)
            rc = window_get(&store.state, txn, name, &w)
        finally:
            environment_read_end(&store.state.passed)
        return window_facts(name, &w) if rc == 0 else None


def open_window(Store store, str recipient, domain, int64_t opened, int64_t until) -> dict:
    """Open a window, or set when an open one closes; its facts. ValueError for parts that are no addresses."""
    cdef unsigned char name[WINDOW_NAME_SIZE]
    cdef Window w
    store._usable()
    with store.lock:
        window_parts(recipient, domain, store.state.head.secret, name)
        w.opened = opened
        w.until = until
        w.narrow = domain is not None
        window_write(store, name, &w)
        return window_facts(name, &w)


def close_window(Store store, str key) -> bool:
    """Close the window with this key (32 hex digits); whether there was one."""
    cdef unsigned char name[WINDOW_NAME_SIZE]
    cdef bytes digits = bytes.fromhex(key)
    store._usable()
    memcpy(name, b"window.", 7)
    memcpy(name + 7, <const char *>digits, KEY_SIZE)
    with store.lock:
        return window_write(store, name, NULL) == 0


cdef int window_write(Store store, unsigned char *name, const Window *w) except -1:
    """Put the record, or without one delete it; 1 where there was none to delete."""
    cdef StoreState *s = &store.state
    cdef MDB_txn *txn = NULL
    cdef MDB_val key, value
    cdef Head head
    cdef int rc, fault, attempt
    cdef bint again = True
    for attempt in range(TRIES):
        store._raise(passed_write(s, &txn))
        key.mv_data = name
        key.mv_size = WINDOW_NAME_SIZE
        if w == NULL:
            rc = mdb_del(txn, s.meta, &key, NULL)
            if rc == MDB_NOTFOUND:
                mdb_txn_abort(txn)
                return 1
        else:
            value.mv_data = <void *>w
            value.mv_size = sizeof(Window)
            rc = mdb_put(txn, s.meta, &key, &value, 0)
            head = s.head
            head.windows_until = later(head.windows_until, w.until)
            if rc == 0:
                rc = head_put(s, txn, &head)
        fault = passed_commit(s, txn, rc, &again)
        if not again:
            store._raise(fault)
            return 0
    return 0


def windows(Store store) -> list[dict]:
    """All windows, the next to close first; those that time has closed are still there until the next compaction."""
    cdef MDB_txn *txn = NULL
    cdef MDB_cursor *cursor = NULL
    cdef MDB_val key, value
    cdef int rc
    found = []
    store._usable()
    with store.lock:
        store._raise(passed_read(&store.state, &txn))
        rc = mdb_cursor_open(txn, store.state.meta, &cursor)
        if rc == 0:
            rc = window_first(cursor, &key, &value)
            while rc == 0 and is_window(&key, &value):
                found.append(window_facts(<const unsigned char *>key.mv_data, <const Window *>value.mv_data))
                rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
            mdb_cursor_close(cursor)
        environment_read_end(&store.state.passed)
        return sorted(found, key=lambda window: window["until"])
