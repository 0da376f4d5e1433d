# One shared page of counters. Hooks add to it atomically and never wait for one another.

cdef enum:
    COUNTERS_VERSION = 1
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
    cdef stat_t status
    cdef void *page
    cdef int fd = open(path, O_RDWR | O_CLOEXEC)
    if fd < 0:
        return NULL
    page = NULL
    if fstat(fd, &status) == 0 and status.st_size >= PAGE:
        page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if page == MAP_FAILED:
            page = NULL
    close(fd)
    if page != NULL and (memcmp(page, b"fgstats\0", 8) != 0 or (<CounterPage *>page).version != COUNTERS_VERSION):
        munmap(page, PAGE)
        page = NULL
    return <CounterPage *>page
