# Log lines on their way to standard error, which may be slow: nobody waits for it.

cdef enum:
    LOG_SIZE = 1 << 18
    # What a pipe takes in one piece, and what is asked for before a blocking descriptor is written to (PIPE_BUF).
    LOG_PIECE = 4096


cdef struct LogQueue:
    char lines[LOG_SIZE]
    size_t size
    # Lines for which there was no room.
    uint64_t lost
    int fd
    # Bits of LogForm.
    int form
    # A descriptor that others share cannot be made to not block; it is asked first.
    bint blocks


cdef void log_add(LogQueue *l, const Text *t) noexcept nogil:
    """Take a line; one that was cut still ends as a line."""
    if l.size + t.size > LOG_SIZE:
        l.lost += 1
        return
    memcpy(l.lines + l.size, t.data, t.size)
    l.size += t.size
    l.lines[l.size - 1] = c"\n"


cdef void log_said(LogQueue *l, const char *event, const Text *said) noexcept nogil:
    """Take a line of the server's own."""
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    log_event(&t, event, said, l.form, True)
    log_add(l, &t)


cdef bint log_can(LogQueue *l) noexcept nogil:
    cdef pollfd asked
    if not l.blocks:
        return True
    asked.fd = l.fd
    asked.events = POLLOUT
    # An error is what a full pipe has that nobody reads any more; writing says so without waiting.
    return poll(&asked, 1, 0) == 1 and (asked.revents & (POLLOUT | POLLERR)) != 0


cdef size_t log_piece(const LogQueue *l, size_t start) noexcept nogil:
    """Whole lines from start on, as many as go in one piece."""
    cdef size_t end = start + LOG_PIECE
    if end >= l.size:
        return l.size - start
    while end > start and l.lines[end - 1] != c"\n":
        end -= 1
    return end - start


cdef void log_flush(LogQueue *l) noexcept nogil:
    """Write what can be written now."""
    cdef char line[LINE_SIZE]
    cdef Text t
    cdef size_t start = 0, piece
    cdef ssize_t written
    while start < l.size and log_can(l):
        piece = log_piece(l, start)
        written = write(l.fd, l.lines + start, piece)
        if written < 0:
            if errno != EAGAIN and errno != EINTR:
                # Nobody reads any more: there is nobody to tell.
                start = l.size
            break
        start += written
        if <size_t>written < piece:
            break
    l.size -= start
    memmove(l.lines, l.lines + start, l.size)
    if l.lost and l.size < LOG_SIZE // 2:
        t = text_begin(line, LINE_SIZE)
        text_number(&t, <int64_t>l.lost, 1)
        text_add(&t, b" lines of the log were lost: whoever reads standard error is slower than they come")
        l.lost = 0
        log_said(l, b"lost", &t)
