# The header field that tells, in the message, why it passed.

cdef enum:
    HEADER_NAME_MAX = 60


cdef bint is_header_name(const char *name) noexcept nogil:
    """RFC 5322 section 3.6.8: printable ASCII but for the colon."""
    cdef size_t n = 0
    while 33 <= name[n] < 127 and name[n] != c":":
        n += 1
    return name[n] == 0 and 0 < n <= HEADER_NAME_MAX


cdef void trace_field(Text *t, const char *name, const char *version, const VerdictState *v) noexcept nogil:
    text_add(t, name)
    if v.reason == RETRY or v.reason == POOL:
        text_add(t, b": delayed ")
        text_number(t, v.waited, 1)
        text_add(t, b" seconds by fastgrey-")
    else:
        text_add(t, b": passed by fastgrey-")
    text_add(t, version)
    text_add(t, b" (")
    text_add(t, reason_name(v.reason))
    text_char(t, c")")
