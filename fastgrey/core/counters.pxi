# One shared page of counters. Hooks add to it atomically and never wait for one another.

cdef enum:
    COUNTERS_VERSION = 2
    COUNTERS_HEADER = 16
    # The ways a decision can end: what accepts by its reason, RELAY to ERROR, and a stranger that is deferred by NEW
    # and EARLY; then these.
    WAY_DEFER_ERROR = 14
    WAY_REJECT = 15
    WAY_COUNT = 16
    # Events.
    COUNT_PROMOTED = 0
    COUNT_REFRESHED = 1
    COUNT_NOT_REFRESHED = 2
    COUNT_NOT_RECORDED = 3
    COUNT_GIVEN_UP = 4
    COUNT_STRANGERS = 5
    # Seconds, the sum of what the histogram of waits holds.
    COUNT_WAITED = 6
    EVENT_COUNT = 16
    WAIT_COUNT = 25
    # Snapshots a ring holds, and the seconds from one to the next. A ring reaches one interval further back than the
    # minute, the hour, the day that is asked for.
    MINUTE_SLOTS = 8
    MINUTE_INTERVAL = 10
    HOUR_SLOTS = 13
    HOUR_INTERVAL = 300
    DAY_SLOTS = 25
    DAY_INTERVAL = 3600

cdef extern from *:
    """
    /* Seconds; the last bucket of the histogram has no bound. */
    static const int64_t fastgrey_wait_bounds[] = {
        60, 120, 180, 240, 300, 360, 420, 480, 600, 900, 1200, 1800, 2700, 3600, 5400, 7200, 10800, 14400, 21600,
        28800, 43200, 64800, 86400, 172800};
    """
    const int64_t *wait_bounds "fastgrey_wait_bounds"


cdef struct Snapshot:
    # When it was taken, in Unix seconds. Below zero: the same, negated, of a snapshot that is not complete.
    int64_t stamp
    uint32_t totals[WAY_COUNT]


cdef struct CounterPage:
    char magic[8]
    uint32_t version
    # The setting on_error again: it must be known when the rest of the store cannot be read.
    uint32_t defer_on_error
    uint64_t totals[WAY_COUNT]
    uint64_t events[EVENT_COUNT]
    uint64_t waits[WAIT_COUNT]
    Snapshot minute[MINUTE_SLOTS]
    Snapshot hour[HOUR_SLOTS]
    Snapshot day[DAY_SLOTS]
    # When counting began, in Unix seconds.
    int64_t made


cdef CounterPage *counters_map(const char *path) noexcept nogil:
    """Map the page; NULL where it is missing or unusable, and then nothing is counted."""
    cdef char header[COUNTERS_HEADER]
    cdef uint32_t version = 0
    cdef void *page = MAP_FAILED
    cdef int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC)
    if fd < 0:
        return NULL
    # Read, not looked at through the map: the first touch of a mapped page is then the write of a counter, and one
    # fault does for both. A file that has a header has the whole page behind it, be it only as zeros.
    if pread(fd, header, COUNTERS_HEADER, 0) == COUNTERS_HEADER and memcmp(header, b"fgstats\0", 8) == 0:
        memcpy(&version, header + 8, sizeof(version))
    if version == COUNTERS_VERSION:
        page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    close(fd)
    return NULL if page == MAP_FAILED else <CounterPage *>page


cdef inline int verdict_way(int action, int reason) noexcept nogil:
    """The index of a verdict among the totals."""
    if action == REJECT:
        return WAY_REJECT
    return WAY_DEFER_ERROR if action == DEFER and reason == ERROR else reason


cdef inline int wait_bucket(int64_t seconds) noexcept nogil:
    """The index of a wait in the histogram: the first bound that is not below it."""
    cdef int i = 0
    while i < WAIT_COUNT - 1 and seconds > wait_bounds[i]:
        i += 1
    return i
