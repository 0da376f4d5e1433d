# Expectation windows: until it closes, mail to a recipient passes, from one domain or from anywhere.

cdef enum:
    WINDOW_NAME_SIZE = 7 + KEY_SIZE


cdef packed struct Window:
    int64_t opened
    int64_t until
    # 1 where it is for one sender domain and those below it.
    int64_t narrow


cdef void window_name(const Address *recipient, const unsigned char *domain, size_t size, const unsigned char *secret,
                      unsigned char *out) noexcept nogil:
    """The name of the record in meta: "window." and the key over recipient and domain, none of it for any sender."""
    cdef Material m
    m.bytes[0] = c"w"
    m.size = 1
    material_add(&m, recipient.text, recipient.size)
    material_add(&m, domain, size)
    memcpy(out, b"window.", 7)
    material_key(&m, secret, out + 7)


cdef int window_get(StoreState *s, MDB_txn *txn, unsigned char *name, Window *out) noexcept nogil:
    """The window of that name; MDB_NOTFOUND where there is none."""
    cdef MDB_val key, value
    cdef int rc
    key.mv_data = name
    key.mv_size = WINDOW_NAME_SIZE
    rc = mdb_get(txn, s.meta, &key, &value)
    if rc == 0 and value.mv_size != sizeof(Window):
        rc = MDB_NOTFOUND
    if rc == 0:
        memcpy(out, value.mv_data, sizeof(Window))
    return rc


cdef int window_first(MDB_cursor *cursor, MDB_val *key, MDB_val *value) noexcept nogil:
    """Set a cursor of meta to the first window, or to what follows them; MDB_NOTFOUND at the end."""
    meta_key(key, b"window.")
    return mdb_cursor_get(cursor, key, value, MDB_SET_RANGE)


cdef bint is_window(const MDB_val *key, const MDB_val *value) noexcept nogil:
    return (key.mv_size == WINDOW_NAME_SIZE and memcmp(key.mv_data, b"window.", 7) == 0
            and value.mv_size == sizeof(Window))


cdef int window_open(StoreState *s, MDB_txn *txn, const Envelope *e, int64_t now, unsigned char *name,
                     Window *w) noexcept nogil:
    """Step 5: 1 where a window is open for the recipient and the sender's domain, 0 where not, -1 on an error.

    name and w are those of the window that is open.
    """
    cdef const unsigned char *text = e.sender.text
    cdef size_t start = e.sender.domain
    cdef int rc
    while True:
        if start > e.sender.size:
            start = e.sender.size
        window_name(&e.recipient, text + start, e.sender.size - start, s.head.secret, name)
        rc = window_get(s, txn, name, w)
        if rc == 0 and now <= w.until:
            return 1
        if rc != 0 and rc != MDB_NOTFOUND:
            s.error = rc
            return -1
        if start == e.sender.size:
            return 0
        start = find(text, start, e.sender.size, c".") + 1
