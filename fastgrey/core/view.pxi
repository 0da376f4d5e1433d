# How the extension opens a table: the files that it has looked at, whatever their names stand for a moment later.
#
# Commands run as root in a directory that the hook's user may write to. LMDB opens data.mdb and lock.mdb by name,
# follows links, and makes a lock file out of whatever it is led to. So it gets the names of a directory of this process
# alone, which lead through /proc/self/fd to the very files that were opened and found to be the store's own.

cdef enum:
    VIEW_SIZE = 64
    VIEW_PLACES = 3


cdef struct View:
    # Opened for their place only (O_PATH): closing them drops no lock that this process holds on the same file.
    int directory
    int data
    int lock
    char path[VIEW_SIZE]


cdef int view_pin(int directory, const stat_t *around, const char *name, bint create, mode_t mode,
                  int *out) noexcept nogil:
    """Open a file of the directory for its place, made where it is missing and may be; an errno.

    Not followed is a link (ELOOP), nor a second name of what may be another's file (EMLINK). A name can vanish between
    opening and looking; the group of a file cannot be made the store's by whoever does not own it. So root also asks
    for that (EACCES).
    """
    cdef stat_t status
    cdef int fd = -1, attempt
    for attempt in range(TRIES):
        fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)
        if fd >= 0 or errno != ENOENT or not create:
            break
        fd = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)
        if fd < 0 and errno != EEXIST:
            break
        if fd >= 0:
            close(fd)
        fd = -1
    if fd < 0:
        return errno
    out[0] = fd
    if fstat(fd, &status) != 0:
        return errno
    if S_ISLNK(status.st_mode):
        return ELOOP
    if S_ISDIR(status.st_mode):
        return EISDIR
    if not S_ISREG(status.st_mode):
        return EINVAL
    if status.st_nlink != 1:
        # Without a name it went while it was looked for.
        return EMLINK if status.st_nlink else ENOENT
    return EACCES if status.st_gid != around.st_gid and geteuid() == 0 else 0


cdef int view_own(const char *path, const stat_t *status) noexcept nogil:
    """Whether the group of this directory may be asked for; an errno. Members make directories, too, with any group
    that they are in: then it has to be that of the store, which is asked by name, for a directory can be moved."""
    cdef char above[PATH_MAX_SIZE]
    cdef stat_t around
    cdef size_t n = strlen(path)
    if geteuid() != 0 or status.st_uid == 0:
        return 0
    while n and path[n - 1] != c"/":
        n -= 1
    if n + 2 > sizeof(above):
        return ENAMETOOLONG
    memcpy(above, path, n)
    strcpy(above + n, b".")
    if fstatat(AT_FDCWD, above, &around, 0) != 0:
        return errno
    return EACCES if status.st_gid != around.st_gid else 0


cdef int view_link(View *v, const char *name, int fd, const char *below) noexcept nogil:
    """A name in the view that leads to what is open as fd, or to a name below it."""
    cdef char target[VIEW_SIZE]
    cdef char link[VIEW_SIZE + 16]
    cdef Text t = text_begin(target, sizeof(target))
    text_add(&t, b"/proc/self/fd/")
    text_number(&t, fd, 1)
    text_add(&t, below)
    text_end(&t)
    join(link, sizeof(link), v.path, name)
    return 0 if symlink(target, link) == 0 else errno


cdef const char *view_place(int number) noexcept nogil:
    """Where a view may be made, in this order: memory first. fastgrey/views.py knows them, too."""
    if number == 0:
        return b"/dev/shm"
    return b"/tmp" if number == 1 else b"/var/tmp"


cdef void view_unmake(View *v) noexcept nogil:
    cdef char link[VIEW_SIZE + 16]
    if v.path[0]:
        join(link, sizeof(link), v.path, b"data.mdb")
        unlink(link)
        join(link, sizeof(link), v.path, b"lock.mdb")
        unlink(link)
        rmdir(v.path)
    v.path[0] = 0


cdef int view_make(View *v) noexcept nogil:
    """A directory for this process alone, with both names in it; VIEW_FAILED where no place has room for one."""
    cdef int number, rc
    for number in range(VIEW_PLACES):
        join(v.path, sizeof(v.path), view_place(number), b"fastgrey.XXXXXX")
        if mkdtemp(v.path) == NULL:
            v.path[0] = 0
            continue
        rc = view_link(v, b"data.mdb", v.data, b"")
        if rc == 0 and v.lock >= 0:
            rc = view_link(v, b"lock.mdb", v.lock, b"")
        elif rc == 0:
            rc = view_link(v, b"lock.mdb", v.directory, b"/lock.mdb")
        if rc == 0:
            return 0
        view_unmake(v)
    return VIEW_FAILED


cdef int view_fill(View *v, const char *path, unsigned int flags, mode_t mode) noexcept nogil:
    cdef bint reads = flags & MDB_RDONLY
    cdef stat_t status
    cdef int rc
    v.directory = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC)
    if v.directory < 0 or fstat(v.directory, &status) != 0:
        return errno
    if not S_ISDIR(status.st_mode):
        return ELOOP if S_ISLNK(status.st_mode) else ENOTDIR
    rc = view_own(path, &status)
    if rc == 0:
        rc = view_pin(v.directory, &status, b"data.mdb", not reads, mode, &v.data)
    if rc == 0:
        rc = view_pin(v.directory, &status, b"lock.mdb", True, mode, &v.lock)
        if rc == EROFS and reads:
            # LMDB reads such a table without a lock, where it finds out by itself.
            rc = 0
    return view_make(v) if rc == 0 else rc


cdef void view_remove(View *v) noexcept nogil:
    view_unmake(v)
    # Closing what was never opened does nothing.
    close(v.directory)
    close(v.data)
    close(v.lock)


cdef int table_open(MDB_env *env, const char *path, unsigned int flags, mode_t mode) noexcept nogil:
    cdef View v
    cdef int rc
    # One file alone is a backup, which stands where whoever asks wants it, or the copy of one.
    if flags & MDB_NOSUBDIR:
        return mdb_env_open(env, path, flags, mode)
    v.directory = v.data = v.lock = -1
    v.path[0] = 0
    rc = view_fill(&v, path, flags, mode)
    if rc == 0:
        rc = mdb_env_open(env, v.path, flags, mode)
    view_remove(&v)
    return rc
