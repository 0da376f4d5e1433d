# An input of the fuzzer, taken apart, and what must hold of what the core made of it.

cdef enum:
    OWNED_MAX = 64


cdef struct Input:
    const unsigned char *data
    size_t size

# Blocks of exactly the size asked for: the address sanitizer sees a read of the byte behind them.
cdef struct Owned:
    void *blocks[OWNED_MAX]
    int size

cdef Owned owned


cdef void require(bint holds, const char *what) noexcept nogil:
    if not holds:
        write(2, b"violated: ", 10)
        write(2, what, strlen(what))
        write(2, b"\n", 1)
        abort()


cdef void *own(size_t size) noexcept nogil:
    require(owned.size < OWNED_MAX, b"the target takes few enough blocks")
    owned.blocks[owned.size] = malloc(size)
    owned.size += 1
    return owned.blocks[owned.size - 1]


cdef void release() noexcept nogil:
    while owned.size:
        owned.size -= 1
        free(owned.blocks[owned.size])


cdef unsigned char take_byte(Input *i) noexcept nogil:
    """The next byte; 0 at the end."""
    cdef unsigned char first = i.data[0] if i.size else 0
    if i.size:
        i.data += 1
        i.size -= 1
    return first


cdef int64_t take_number(Input *i) noexcept nogil:
    """The next 8 bytes, or what there is of them."""
    cdef uint64_t number = 0
    cdef int k
    for k in range(8):
        number |= <uint64_t>take_byte(i) << (8 * k)
    return <int64_t>number


cdef Span take_bytes(Input *i, size_t size) noexcept nogil:
    """A copy of as many bytes, or of what there is."""
    cdef void *copy
    if size > i.size:
        size = i.size
    copy = own(size)
    memcpy(copy, i.data, size)
    i.data += size
    i.size -= size
    return span(copy, size)


cdef Span take_rest(Input *i) noexcept nogil:
    return take_bytes(i, i.size)


cdef Span take_field(Input *i) noexcept nogil:
    """A copy of what comes before the next NUL, which is dropped."""
    cdef Span field = take_bytes(i, find(i.data, 0, i.size, 0))
    take_byte(i)
    return field


cdef char *take_string(Input *i) noexcept nogil:
    """The same with a NUL behind it."""
    cdef size_t size = find(i.data, 0, i.size, 0)
    cdef char *copy = <char *>own(size + 1)
    memcpy(copy, i.data, size)
    copy[size] = 0
    i.data += size
    i.size -= size
    take_byte(i)
    return copy


cdef bint is_same(Span a, Span b) noexcept nogil:
    return a.size == b.size and memcmp(a.data, b.data, a.size) == 0


cdef bint is_upper(unsigned char c) noexcept nogil:
    return c"A" <= c <= c"Z"
