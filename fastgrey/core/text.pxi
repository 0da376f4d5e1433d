# Text in a buffer of fixed size. What does not fit is left off; a log line must never cost memory or a crash.

cdef struct Text:
    char *data
    size_t size
    size_t room


cdef Text text_begin(char *data, size_t room) noexcept nogil:
    cdef Text t
    t.data = data
    t.size = 0
    t.room = room
    return t


cdef void text_end(Text *t) noexcept nogil:
    """Terminate with NUL; the buffer keeps a byte for it."""
    t.data[t.size] = 0


cdef inline void text_char(Text *t, char c) noexcept nogil:
    if t.size + 1 < t.room:
        t.data[t.size] = c
        t.size += 1


cdef void text_add(Text *t, const char *s) noexcept nogil:
    while s[0]:
        text_char(t, s[0])
        s += 1


cdef void text_span(Text *t, Span s) noexcept nogil:
    """The bytes as they are."""
    cdef size_t i
    for i in range(s.size):
        text_char(t, <char>s.data[i])


cdef void text_number(Text *t, int64_t value, int digits) noexcept nogil:
    """A number of at least so many digits."""
    cdef char reverse[24]
    cdef int n = 0
    if value < 0:
        text_char(t, c"-")
        value = -value
    while n < 20 and (value or n < digits):
        reverse[n] = <char>(c"0" + value % 10)
        value = value // 10
        n += 1
    while n:
        n -= 1
        text_char(t, reverse[n])


cdef void text_hex_byte(Text *t, unsigned char c) noexcept nogil:
    cdef const char *digits = b"0123456789abcdef"
    text_char(t, digits[c >> 4])
    text_char(t, digits[c & 15])


cdef void text_hex(Text *t, const unsigned char *p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        text_hex_byte(t, p[i])


cdef void text_escaped(Text *t, Span s, size_t limit) noexcept nogil:
    """The bytes, with blanks, backslashes, control characters and non-ASCII as \\xHH, cut at limit bytes."""
    cdef size_t i
    cdef unsigned char c
    for i in range(s.size if s.size < limit else limit):
        c = s.data[i]
        if c <= 32 or c >= 127 or c == c"\\":
            text_add(t, b"\\x")
            text_hex_byte(t, c)
        else:
            text_char(t, <char>c)
    if s.size > limit:
        text_add(t, b"...")
