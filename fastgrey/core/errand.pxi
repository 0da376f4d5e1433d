# What a worker of the server has its scribe do: decisions that end in a flush. The two are on one socket that keeps
# messages apart (SOCK_SEQPACKET), and both were made of this file.

cdef enum:
    # Whom nobody waits for.
    NOBODY = 0x7FFFFFFF
    ERRAND_MAX = ASKED_MAX + 128


# The four texts follow, one behind the other.
cdef struct Errand:
    uint32_t place
    uint32_t ticket
    int64_t now
    int64_t clock
    int name_trusted
    int left
    uint32_t sizes[4]


cdef struct ErrandDone:
    uint32_t place
    uint32_t ticket
    # The part of the store that a fault was about, for its text.
    bint in_pending
    VerdictState verdict


cdef size_t errand_write(unsigned char *out, uint32_t place, uint32_t ticket, const Request *q,
                         int left) noexcept nogil:
    """Into ERRAND_MAX bytes; the size."""
    cdef Errand *e = <Errand *>out
    cdef Span texts[4]
    cdef size_t size = sizeof(Errand)
    cdef int i
    texts[0], texts[1], texts[2], texts[3] = q.client, q.name, q.sender, q.recipient
    e.place, e.ticket, e.now, e.clock = place, ticket, q.now, q.clock
    e.name_trusted, e.left = q.name_trusted, left
    for i in range(4):
        e.sizes[i] = <uint32_t>texts[i].size
        if texts[i].size:
            memcpy(out + size, texts[i].data, texts[i].size)
        size += texts[i].size
    return size


cdef bint errand_read(const unsigned char *data, size_t size, Request *q) noexcept nogil:
    cdef const Errand *e = <const Errand *>data
    cdef Span texts[4]
    cdef size_t start = sizeof(Errand)
    cdef int i
    memset(q, 0, sizeof(Request))
    if size < sizeof(Errand):
        return False
    for i in range(4):
        if e.sizes[i] > size - start:
            return False
        texts[i] = span(data + start, e.sizes[i])
        start += e.sizes[i]
    q.client, q.name, q.sender, q.recipient = texts[0], texts[1], texts[2], texts[3]
    q.now, q.clock, q.name_trusted = e.now, e.clock, e.name_trusted
    return True


cdef void errand_do(StoreState *s, const Errand *e, const Request *q, ErrandDone *done) noexcept nogil:
    cdef Envelope scratch
    cdef bint decided
    memset(done, 0, sizeof(ErrandDone))
    done.place, done.ticket = e.place, e.ticket
    if e.left == REFRESH_LEFT:
        # Counted and answered already. What became of the record meanwhile, this looks at once more.
        s.error = 0
        decide_known(s, q, &scratch, &done.verdict, &decided)
        return
    decide(s, q, &done.verdict)
    done.in_pending = s.part != NULL and strcmp(s.part, b"pending") == 0


cdef int errands_run(StoreState *s, int fd, unsigned char *message) noexcept nogil:
    """Do them one after the other, with ERRAND_MAX bytes for a message, until the worker is gone: 0, or an errno."""
    cdef ErrandDone done
    cdef Request q
    cdef ssize_t size
    while True:
        size = recv(fd, message, ERRAND_MAX, 0)
        if size < 0 and errno == EINTR:
            continue
        if size <= 0:
            return errno if size < 0 else 0
        if not errand_read(message, size, &q):
            return EINVAL
        errand_do(s, <const Errand *>message, &q, &done)
        if done.place != NOBODY and send(fd, &done, sizeof(done), MSG_NOSIGNAL) < 0:
            return errno
