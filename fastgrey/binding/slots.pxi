# Records of the store itself by kind and key, behind Python.

cdef tuple SLOT_NAMES = tuple([slot_name(i).decode() for i in range(HOPS + 1)])


cdef bytearray cells_of(slots):
    cdef bytearray room = bytearray(max(len(slots), 1) * sizeof(Cell))
    cdef Cell *cells = <Cell *><char *>room
    for i, (kind, key) in enumerate(slots):
        if len(key) != KEY_SIZE:
            raise ValueError("a key has 16 bytes")
        cells[i].kind = SLOT_NAMES.index(kind)
        memcpy(cells[i].key, <const char *><bytes>key, KEY_SIZE)
    return room


def fetch_slots(Store store, slots):
    """The records of slots, pairs of kind and key as Case.slots has them, in the store itself: 0 for each that is not
    there. StoreError."""
    cdef bytearray room = cells_of(slots)
    cdef Cell *cells = <Cell *><char *>room
    cdef int i, n = len(slots), fault
    store._usable()
    with store.lock:
        with nogil:
            fault = slots_fetch(&store.state, cells, n)
        store._raise(fault)
    return [cells[i].record for i in range(n)]


def swap_slots(Store store, slots, writes):
    """Write records to the store itself: index in slots, what must be there, what shall be there (0 for nothing); a
    fourth member is not looked at. All where every old record is still what it was, else nothing; whether it was
    written. What is known is flushed. StoreError; then it may be written or not."""
    cdef bytearray room = cells_of(slots)
    cdef Cell *cells = <Cell *><char *>room
    cdef int n = len(slots), fault
    cdef bint swapped = False
    store._usable()
    for write in writes:
        if not 0 <= write[0] < n:
            raise IndexError("no such slot")
        i = write[0]
        cells[<int>i].writing = True
        cells[<int>i].old, cells[<int>i].new = write[1], write[2]
    with store.lock:
        with nogil:
            fault = slots_swap(&store.state, cells, n, &swapped)
        store._raise(fault)
    return swapped


def store_secret(Store store):
    """The secret under which the keys of a store are made, 192 bytes. StoreError."""
    store._usable()
    with store.lock:
        store._probe()
        return store.state.head.secret[:SECRET_SIZE]
