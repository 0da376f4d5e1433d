# Faults on purpose: one of each kind that a sanitizer or an invariant has to find, so that no build goes about blind.

cdef extern from *:
    """
    static volatile int planted_sink;
    static void planted_read(const unsigned char *data, size_t size) { planted_sink = data[size]; }
    static void planted_add(int number) { planted_sink = 0x7fffffff + number; }
    """
    void planted_read(const unsigned char *data, size_t size) nogil
    void planted_add(int number) nogil


cdef void fuzz_planted(Input *i) noexcept nogil:
    cdef Span s = take_rest(i)
    if s.size < 3 or s.data[0] != c"!":
        return
    if s.data[1] == c"a":
        planted_read(s.data, s.size)
    elif s.data[1] == c"u":
        planted_add(s.data[2])
    elif s.data[1] == c"i":
        require(False, b"this was planted")
