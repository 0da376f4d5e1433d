# The store: a directory with the generation in force, pending of this boot, and the counters (docs/format.md).

cdef enum StoreFlag:
    # Nothing survives the process: no flush anywhere.
    THROW_AWAY = 1


cdef struct StoreState:
    char path[PATH_MAX_SIZE]
    int flags
    char generation[GENERATION_SIZE]
    Environment passed
    Environment pending
    MDB_dbi meta
    MDB_dbi touched
    # Indexed by Kind.
    MDB_dbi known[4]
    size_t head_txn
    Head head
    CounterPage *counters
    Regexes regexes
    # Microseconds of processor time that expressions may take, 0 for no bound; SIGPROF comes at the end.
    long regex_bound
    # The cause of the last fault: an errno or LMDB code.
    int error
    # Where fastgrey serve's words go. NULL: this process decides by itself, also where records are shared.
    Told *told
    # The part of the store in use, for a message from a signal handler.
    const char *part


cdef enum Kind:
    CLIENT = 0
    DOMAIN = 1
    TRIPLET = 2
    PAIR = 3


cdef const char *kind_name(int kind) noexcept nogil:
    if kind == CLIENT:
        return b"client"
    elif kind == DOMAIN:
        return b"domain"
    elif kind == TRIPLET:
        return b"triplet"
    return b"pair"


cdef inline void count_many(StoreState *s, int event, int number) noexcept nogil:
    if s.counters != NULL:
        fastgrey_add(&s.counters.events[event], <uint64_t>number)


cdef inline void count(StoreState *s, int event) noexcept nogil:
    count_many(s, event, 1)


cdef inline void count_promotion(StoreState *s, int64_t waited) noexcept nogil:
    """A stranger came back, so many seconds after its first attempt."""
    if s.counters != NULL:
        fastgrey_add(&s.counters.events[COUNT_PROMOTED], 1)
        fastgrey_add(&s.counters.events[COUNT_WAITED], <uint64_t>waited)
        fastgrey_add(&s.counters.waits[wait_bucket(waited)], 1)


cdef inline void count_verdict(StoreState *s, const VerdictState *v, int64_t clock) noexcept nogil:
    """Count a check that was made when the clock of the machine said so, be its own time another one."""
    cdef int way = verdict_way(v.action, v.reason)
    if s.counters != NULL:
        # Before the rings are looked at: where the first touch of the page is a write, one fault does.
        fastgrey_add(&s.counters.totals[way], 1)
        rings_keep(s.counters, way, clock)


cdef inline int fail(StoreState *s, int fault, int error) noexcept nogil:
    s.error = error
    return fault


cdef int join(char *out, size_t room, const char *directory, const char *name) noexcept nogil:
    cdef size_t a = strlen(directory), b = strlen(name)
    if a + b + 2 > room:
        return -1
    memcpy(out, directory, a)
    out[a] = c"/"
    memcpy(out + a + 1, name, b + 1)
    return 0


cdef int store_path(StoreState *s, const char *path) noexcept nogil:
    """Set the path and map the counters; what follows finds out whether there is a store."""
    cdef char name[PATH_MAX_SIZE]
    # 120 bytes for the longest name below the store.
    if strlen(path) + 120 > PATH_MAX_SIZE:
        return PATH_TOO_LONG
    strcpy(s.path, path)
    join(name, sizeof(name), path, b"stats")
    s.counters = counters_map(name)
    return NO_FAULT


cdef int current_generation(StoreState *s, char *name) noexcept nogil:
    """Where the symlink current points to. Files are opened by that name: a swap between the opens of the data and
    of the lock file would pair one generation's lock with the other's data."""
    cdef char link[PATH_MAX_SIZE]
    cdef ssize_t n
    join(link, sizeof(link), s.path, b"current")
    n = readlink(link, name, GENERATION_SIZE)
    if n < 0:
        return fail(s, NO_STORE if errno == ENOENT or errno == ENOTDIR else CANNOT_OPEN, errno)
    if n >= GENERATION_SIZE or n < 8 or memcmp(name, b"passed.", 7) != 0:
        return fail(s, NOT_A_STORE, 0)
    name[n] = 0
    if find(<const unsigned char *>name, 0, n, c"/") < <size_t>n:
        return fail(s, NOT_A_STORE, 0)
    return NO_FAULT


cdef void store_close(StoreState *s) noexcept nogil:
    regexes_forget(&s.regexes)
    environment_close(&s.passed)
    environment_close(&s.pending)
    if s.counters != NULL:
        munmap(s.counters, PAGE)
        s.counters = NULL
