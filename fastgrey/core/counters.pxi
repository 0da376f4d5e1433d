# One shared page of counters. Hooks add to it atomically and never wait for one another.

cdef enum:
    COUNTERS_VERSION = 1
    COUNTERS_HEADER = 16
    # action * REASONS + reason, then these.
    COUNT_PROMOTED = 48
    COUNT_REFRESHED = 49
    COUNT_NOT_REFRESHED = 50
    COUNT_NOT_RECORDED = 51
    COUNT_GIVEN_UP = 52
    COUNTERS = 64


cdef packed struct CounterPage:
    char magic[8]
    uint32_t version
    # The setting on_error again: it must be known when the rest of the store cannot be read.
    uint32_t defer_on_error
    unsigned long slots[COUNTERS]


cdef CounterPage *counters_map(const char *path) noexcept nogil:
    """Map the page; NULL where it is missing or unusable, and then nothing is counted."""
    cdef char header[COUNTERS_HEADER]
    cdef void *page = MAP_FAILED
    cdef int fd = open(path, O_RDWR | O_CLOEXEC)
    if fd < 0:
        return NULL
    # Read, not looked at through the map: the first touch of a mapped page is then the write of a counter, and one
    # fault does for both. A file that has a header has the whole page behind it, be it only as zeros.
    if (pread(fd, header, COUNTERS_HEADER, 0) == COUNTERS_HEADER and memcmp(header, b"fgstats\0", 8) == 0
            and (<CounterPage *>header).version == COUNTERS_VERSION):
        page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    close(fd)
    return NULL if page == MAP_FAILED else <CounterPage *>page
