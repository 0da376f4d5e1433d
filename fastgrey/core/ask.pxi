# Asking fastgrey serve where records are shared: one question over its socket in the store, one answer, and then no more.

cdef enum:
    # Below the life of a hook (hook.pxi), which has to open the store first.
    ASK_MILLISECONDS = 5000


cdef int64_t ask_clock() noexcept nogil:
    cdef timespec t
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1_000_000


cdef int ask_reach(int fd, const char *path) noexcept nogil:
    """Connect to who listens at a socket of that path; an errno where nobody does, or not in time.

    The address of a socket has room for 107 bytes, and connect(2) follows a link; so the socket is opened by its name
    first.
    """
    cdef sockaddr_un address
    cdef stat_t status
    cdef Text t = text_begin(address.sun_path, sizeof(address.sun_path))
    cdef int error = 0, place = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC)
    if place < 0:
        return errno
    address.sun_family = <unsigned short>AF_UNIX
    text_add(&t, b"/proc/self/fd/")
    text_number(&t, place, 1)
    text_end(&t)
    if connect(fd, <sockaddr *>&address, sizeof(address)) != 0:
        # This long the queue of who waits to be heard was full.
        error = ETIMEDOUT if errno == EAGAIN else errno
        if fstat(place, &status) == 0 and S_ISLNK(status.st_mode):
            error = ELOOP
    close(place)
    return error


cdef int ask_receive(int fd, int64_t until, char *data, size_t *size) noexcept nogil:
    """Read up to the empty line that ends an answer; an errno where it does not come, or not in time."""
    cdef pollfd wanted
    cdef int64_t left
    cdef ssize_t n
    cdef int ready
    wanted.fd = fd
    wanted.events = <short>POLLIN
    size[0] = 0
    while size[0] < EXCHANGE_SIZE:
        left = until - ask_clock()
        # What is there already is read however late it is: this process itself may have been held up.
        ready = poll(&wanted, 1, <int>left if left > 0 else 0)
        if ready < 0 and errno == EINTR:
            continue
        if ready <= 0:
            return errno if ready < 0 else ETIMEDOUT
        n = recv(fd, data + size[0], EXCHANGE_SIZE - size[0], MSG_DONTWAIT)
        if n < 0:
            return errno
        if n == 0:
            return EPROTO if size[0] else ECONNRESET
        size[0] += n
        if size[0] > 1 and data[size[0] - 1] == c"\n" and data[size[0] - 2] == c"\n":
            return 0
    return EPROTO


cdef int ask_exchange(const char *path, Text *question, int64_t until, char *answer, size_t *size) noexcept nogil:
    """The answer to a question from who listens at that path; an errno where there is none."""
    cdef timeval bound
    cdef ssize_t sent
    cdef int error, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    if fd < 0:
        return errno
    bound.tv_sec = ASK_MILLISECONDS // 1000
    bound.tv_usec = 0
    # connect(2) waits so long for room in the queue of the listener; poll(2) cannot.
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound))
    error = ask_reach(fd, path)
    if error == 0:
        # It fits into the buffer of a new connection.
        sent = send(fd, question.data, question.size, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent != <ssize_t>question.size:
            error = errno if sent < 0 else ETIMEDOUT
    if error == 0:
        error = ask_receive(fd, until, answer, size)
    close(fd)
    return error


cdef int ask(StoreState *s, const Request *q, VerdictState *v) noexcept nogil:
    """Have fastgrey serve decide, and count what it decided. A fault where it does not."""
    cdef char path[PATH_MAX_SIZE]
    # The question, and in its place the answer.
    cdef char text[EXCHANGE_SIZE]
    cdef Text question = text_begin(text, EXCHANGE_SIZE)
    cdef int64_t until = ask_clock() + ASK_MILLISECONDS
    cdef VerdictState found = v[0]
    cdef size_t size = 0
    cdef int error
    s.part = b"serve.sock"
    join(path, sizeof(path), s.path, s.part)
    question_write(&question, q)
    error = ask_exchange(path, &question, until, text, &size)
    if error == 0 and answer_read(span(text, size), &found, s.told) != 0:
        error = EPROTO
    if error != 0:
        return fail(s, MISLED if error == ELOOP else NO_SERVER, error)
    v[0] = found
    v.told = s.told
    return NO_FAULT
