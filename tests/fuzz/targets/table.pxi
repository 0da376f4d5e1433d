# A whole store with damaged pages: which request, whether it writes nothing, at which double hour; then damages, each a
# byte for the file, four for the place in it, one for the size, and the bytes. FUZZ_STORE names a store that is whole
# (tests/fuzz/whole_store.py); each input gets a copy of its own.

cdef extern from "stdlib.h" nogil:
    char *mkdtemp(char *name)
    int atexit(void (*function)() noexcept nogil)

cdef extern from "unistd.h" nogil:
    int symlink(const char *target, const char *name)
    int unlink(const char *name)
    int ftruncate(int fd, long size)
    ssize_t pwrite(int fd, const void *data, size_t size, long offset)
    int O_TRUNC, O_WRONLY
    int close_range(unsigned int first, unsigned int last, int flags)

cdef extern from "lmdb_guard.h" nogil:
    void guard_abort_writing() noexcept nogil
    void guard_forget() noexcept nogil

cdef enum:
    # Data files of passed and of pending, and the page of counters.
    TABLE_FILES = 3
    COUNTERS_FILE = 2
    IMAGE_MAX = 1 << 20
    DAMAGE_MAX = 32


cdef struct Table:
    bint ready
    unsigned char *image[TABLE_FILES]
    unsigned char *damaged
    size_t size[TABLE_FILES]
    char place[PATH_MAX_SIZE]
    char data[TABLE_FILES][PATH_MAX_SIZE]
    char locks[TABLE_FILES][PATH_MAX_SIZE]
    # A number that no descriptor of the fuzzer's own has.
    int descriptors
    StoreState store
    Request request
    VerdictState verdict

cdef Table table


cdef size_t read_whole(const char *path, unsigned char *data, size_t room) noexcept nogil:
    cdef int fd = open(path, O_RDONLY | O_CLOEXEC)
    cdef ssize_t size
    require(fd >= 0, b"FUZZ_STORE names a store")
    size = pread(fd, data, room, 0)
    require(0 < size < <ssize_t>room, b"which is small")
    close(fd)
    return <size_t>size


cdef void table_file(int which, const char *whole, const char *name) noexcept nogil:
    """Read the data file of an environment of the whole store, and make its place in the copy."""
    cdef char path[PATH_MAX_SIZE]
    cdef char folder[PATH_MAX_SIZE]
    join(folder, PATH_MAX_SIZE, whole, name)
    join(path, PATH_MAX_SIZE, folder, b"data.mdb")
    table.image[which] = <unsigned char *>malloc(IMAGE_MAX)
    table.size[which] = read_whole(path, table.image[which], IMAGE_MAX)
    join(folder, PATH_MAX_SIZE, table.place, name)
    mkdir(folder, 0o770)
    join(table.data[which], PATH_MAX_SIZE, folder, b"data.mdb")
    join(table.locks[which], PATH_MAX_SIZE, folder, b"lock.mdb")


cdef void table_ready() noexcept nogil:
    cdef char path[PATH_MAX_SIZE]
    cdef char boot[PATH_MAX_SIZE]
    cdef const char *whole = getenv(b"FUZZ_STORE")
    cdef const char *work = getenv(b"TMPDIR")
    cdef StoreState scratch
    if table.ready:
        return
    table.ready = True
    require(whole != NULL, b"FUZZ_STORE is set")
    join(table.place, PATH_MAX_SIZE - 200, work if work != NULL else <const char *>b"/tmp", b"fuzzed-XXXXXX")
    require(mkdtemp(table.place) != NULL, b"TMPDIR is there")
    table_file(0, whole, b"passed.000001")
    memset(&scratch, 0, sizeof(scratch))
    boot_directory(&scratch, boot)
    table_file(1, whole, boot + 1)
    join(path, PATH_MAX_SIZE, whole, b"stats")
    table.image[COUNTERS_FILE] = <unsigned char *>malloc(IMAGE_MAX)
    table.size[COUNTERS_FILE] = read_whole(path, table.image[COUNTERS_FILE], IMAGE_MAX)
    join(table.data[COUNTERS_FILE], PATH_MAX_SIZE, table.place, b"stats")
    table.damaged = <unsigned char *>malloc(IMAGE_MAX)
    join(path, PATH_MAX_SIZE, table.place, b"current")
    symlink(b"passed.000001", path)
    table.descriptors = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
    atexit(guard_report)


cdef void table_write(int which, Input damages) noexcept nogil:
    """The file anew, with the damages that are meant for it."""
    cdef int fd
    cdef unsigned char file
    cdef uint32_t place
    cdef size_t k, size
    memcpy(table.damaged, table.image[which], table.size[which])
    while damages.size:
        file = take_byte(&damages)
        place = take_byte(&damages)
        for k in range(3):
            place = place << 8 | take_byte(&damages)
        size = take_byte(&damages) % (DAMAGE_MAX + 1)
        place %= <uint32_t>table.size[which]
        for k in range(size):
            if file % TABLE_FILES == which and place + k < table.size[which]:
                table.damaged[place + k] = take_byte(&damages)
            else:
                take_byte(&damages)
    if which != COUNTERS_FILE:
        unlink(table.locks[which])
    fd = open(table.data[which], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o660)
    require(fd >= 0 and pwrite(fd, table.damaged, table.size[which], 0) == <ssize_t>table.size[which],
            b"there is room for a copy")
    close(fd)


cdef void table_request(Request *q, unsigned char which) noexcept nogil:
    """One that the whole store knows in the way its number says, or a stranger (tests/fuzz/whole_store.py)."""
    cdef const char *client = b"192.0.2.7"
    cdef const char *sender = b"triplet@known.example"
    cdef const char *recipient = b"b@example.net"
    if which == 1:
        client = b"198.51.100.5"
        sender = b"x@else.example"
    elif which == 2:
        sender = b"other@domain.example"
    elif which == 3:
        client = b"203.0.113.9"
        sender = b"pair@pool.example"
    elif which == 4:
        sender = b"waits@new.example"
    elif which == 5:
        client = b"2001:db8::1"
        sender = b"stranger@new.example"
    elif which == 6:
        sender = b"spam@denied.example"
    elif which == 7:
        recipient = b"expects@example.net"
    memset(q, 0, sizeof(Request))
    q.name_trusted = -1
    q.client = span(client, strlen(client))
    q.name = span(b"mx.pool.example", 15)
    q.sender = span(sender, strlen(sender))
    q.recipient = span(recipient, strlen(recipient))


cdef void table_decide() noexcept nogil:
    decide(&table.store, &table.request, &table.verdict)


cdef void table_close() noexcept nogil:
    store_close(&table.store)


cdef void verdict_holds(const VerdictState *v) noexcept nogil:
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    require(ACCEPT <= v.action <= REJECT and RELAY <= v.reason <= DENIED, b"a verdict is one of those that there are")
    require(v.fault == NO_FAULT or v.reason == ERROR or v.reason == LEARN, b"a fault is an error")
    require(v.action != DEFER or 0 <= v.wait <= SETTING_MAX, b"a wait can be waited for")
    log_line(&t, &table.store, &table.request, v)
    line[t.size - 1] = c"\n"
    line_holds(line, t.size, LINE_SIZE)


cdef void fuzz_table(Input *i) noexcept nogil:
    cdef unsigned char which = take_byte(i), how = take_byte(i)
    cdef int64_t now = 1700000000 + take_byte(i) * 7200
    cdef bint lost
    cdef int attempt, file
    guard_begin()
    table_ready()
    for file in range(TABLE_FILES):
        table_write(file, i[0])
    memset(&table.store, 0, sizeof(StoreState))
    require(store_path(&table.store, table.place) == NO_FAULT, b"a path that is short enough")
    # A decision, and one after the delay, which may make it known.
    for attempt in range(2):
        table_request(&table.request, which % 8)
        table.request.dry = how & 1
        table.request.now = now + 600 * attempt
        table.request.clock = table.request.now
        if guarded(table_decide) != 0:
            break
        verdict_holds(&table.verdict)
    lost = guarded(guard_abort_writing) != 0
    lost = guarded(table_close) != 0 or lost
    if lost:
        # LMDB cannot close what is that damaged.
        guard_forget()
        close_range(table.descriptors + 1, 4095, 0)
    guard_end()
