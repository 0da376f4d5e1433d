# Sizes shared by the files of the core. They are enum constants because a module-level variable would stay 0 in
# the executable, which never runs Python's module initialisation.

cdef enum:
    ADDRESS_MAX = 1000
    NAME_MAX = 1000
    KEY_SIZE = 16
    # What of a key a log line has.
    SHORT_KEY = 6
    SECRET_SIZE = 192
    PATH_MAX_SIZE = 512
    GENERATION_SIZE = 32
    PAGE = 4096

    # The lock file is sparse, so slots nobody uses cost address space only.
    READERS = 8192

    # Files of the store are for its user and group.
    SHARED_MASK = 0o007

    # FILE:LINE of a rule in a log line.
    PLACE_SIZE = 240

    # What fastgrey serve says beside a verdict: the cause of an error, and notes.
    CAUSE_SIZE = 1024
    NOTES_SIZE = 512

    # Handles of named databases; LMDB allocates for every one.
    PASSED_TABLES = 8

    # A write that meets a full map, a resized map or a swapped generation starts over, this often at most.
    TRIES = 16


cdef struct Span:
    const unsigned char *data
    size_t size


cdef inline Span span(const void *data, size_t size) noexcept nogil:
    cdef Span s
    s.data = <const unsigned char *>data
    s.size = size
    return s


cdef inline bint span_is(Span s, const char *text) noexcept nogil:
    return s.size == strlen(text) and memcmp(s.data, text, s.size) == 0
