# The connections of a worker as an object, and the work of its scribe.

cdef tuple TONGUE_NAMES = ("postfix", "hook", "plain")
# Upper bounds of the histogram of how long decisions take, in nanoseconds; one bucket more is for what is above them.
TOOK_BOUNDS = tuple([took_bounds[i] for i in range(TOOK_COUNT - 1)])
cdef tuple OUTCOME_NAMES = ("accept", "defer", "reject", "skip")


cdef int fill_text(char *out, size_t room, bytes text) except -1:
    if len(text) > room:
        raise ValueError(f"a text of {len(text)} bytes, longer than {room}")
    memcpy(out, <const char *>text, len(text))
    out[len(text)] = 0
    return 0


cdef class Connections:
    """Connections that are answered from a store, which nobody else may use while serve runs.

    most: connections at once. defer_text: before and after the seconds to wait; the second part None where they are not
    told. trace: name of the trace header, empty for none. elsewhere: no request is decided here, asked() gives them.
    log: descriptor for the log; log_blocks: whether writing to it may block; log_form: bits of LogForm.
    """

    cdef Store store
    cdef Server *server

    def __cinit__(self, Store store, *, uint32_t most, tuple defer_text, bytes reject_text, bytes trace, bytes version,
                  bint first_recipient, bint elsewhere, int log, bint log_blocks, int log_form=0):
        cdef Server *d
        cdef uint32_t place
        store._usable()
        self.store = store
        d = self.server = <Server *>calloc(1, sizeof(Server))
        if d == NULL:
            raise MemoryError
        d.epoll = d.scribe = -1
        d.peers = <Peer *>calloc(most, sizeof(Peer))
        d.asked = <uint32_t *>calloc(most, sizeof(uint32_t))
        if d.peers == NULL or d.asked == NULL:
            raise MemoryError
        for place in range(most):
            d.peers[place].fd = -1
            d.peers[place].next_vacant = place + 1
        d.store = &store.state
        d.most = most
        d.elsewhere = elsewhere
        d.first_recipient = first_recipient
        d.log.fd = log
        d.log.blocks = log_blocks
        d.log.form = log_form
        fill_text(d.wording.defer, SAID_TEXT, defer_text[0])
        d.wording.says_seconds = defer_text[1] is not None
        fill_text(d.wording.defer_end, SAID_TEXT, defer_text[1] or b"")
        fill_text(d.wording.reject, SAID_TEXT, reject_text)
        fill_text(d.wording.trace, HEADER_NAME_MAX, trace)
        fill_text(d.wording.version, HEADER_NAME_MAX, version)
        d.epoll = epoll_create1(EPOLL_CLOEXEC)
        if d.epoll < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        if self.server != NULL:
            self.close()
            free(self.server.peers)
            free(self.server.asked)
            free(self.server)

    def close(self):
        """Close every connection, as it is."""
        cdef uint32_t place
        for place in range(self.server.most if self.server.peers != NULL else 0):
            if self.server.peers[place].fd >= 0:
                peer_close(self.server, place)
        if self.server.scribe >= 0:
            close(self.server.scribe)
        if self.server.epoll >= 0:
            close(self.server.epoll)
        self.server.scribe = self.server.epoll = -1

    def fileno(self):
        """A descriptor that is readable when there is something to do."""
        return self.server.epoll

    def watch(self, int descriptor):
        """Let serve return when this descriptor is readable."""
        if server_watch(self.server, descriptor, LOOP_PLACE, 0, EPOLL_CTL_ADD, EPOLLIN) != 0:
            raise OSError(errno, os.strerror(errno))

    def add(self, int descriptor, bint own=False):
        """Take a connection over, descriptor and all; False where there are as many as there may be. own: it came over
        the store's own socket, and may say when it is."""
        cdef int error = peer_open(self.server, descriptor, own)
        if error and error != EAGAIN:
            raise OSError(error, os.strerror(error))
        return error == 0

    def serve(self, seconds):
        """Answer requests for so many seconds, None for ever, or until somebody else is wanted: a descriptor is
        readable that is watched, asked() has something, or the scribe is gone."""
        cdef int64_t milliseconds = -1 if seconds is None else <int64_t>min(seconds * 1000 + 0.999, 1e9)
        cdef locale_t before
        self.store._usable()
        with nogil:
            before = uselocale(plain_locale)
            server_run(self.server, milliseconds)
            uselocale(before)

    def asked(self):
        """Requests to be decided elsewhere, since the last call: a ticket each, and the arguments of a Case."""
        cdef Server *d = self.server
        cdef Asked a
        cdef Request q
        cdef Peer *p
        cdef size_t looked
        found = []
        for i in range(d.asked_count):
            p = &d.peers[d.asked[i]]
            p.listed = False
            if p.fd < 0 or not p.waiting:
                continue
            looked = 0
            asked_take(p.data, p.size, &looked, &a)
            asked_request(&a, d.clock, &q)
            found.append((<uint64_t>p.ticket << 32 | d.asked[i], {
                "client": q.client.data[:q.client.size], "sender": q.sender.data[:q.sender.size],
                "recipient": q.recipient.data[:q.recipient.size],
                "client_name": q.name.data[:q.name.size] if q.name.data != NULL else None,
                "name_trusted": None if q.name_trusted < 0 else bool(q.name_trusted), "dry_run": bool(q.dry),
                "now": q.now if q.now != q.clock else None,
            }))
        d.asked_count = 0
        return found

    def answer(self, uint64_t ticket, Case case):
        """Reply to a request that was decided elsewhere; its connection may be gone, or it was answered already
        because it waited for too long."""
        cdef uint32_t place = <uint32_t>ticket
        cdef Peer *p
        if not case.decided:
            raise ValueError("the case is not decided")
        if place >= self.server.most:
            raise ValueError("no ticket of these connections")
        p = &self.server.peers[place]
        if p.fd >= 0 and p.ticket == <uint32_t>(ticket >> 32) and p.waiting:
            with self.store.lock:
                server_times(self.server)
                peer_decided(self.server, place, &case.result)

    def begin_scribe(self, int descriptor):
        """Let the process at the other end of this socket decide what ends in a flush. What waits is asked again."""
        with self.store.lock:
            scribe_begin(self.server, descriptor)

    def scribe_gone(self):
        """Whether the scribe went away since the last call."""
        gone = bool(self.server.scribe_gone)
        self.server.scribe_gone = False
        return gone

    def expire(self, double idle, double half, double patience):
        """Close connections of which nothing came for idle seconds, or half a request, or which do not read; answer
        what has waited for longer than patience as on_error says."""
        self.store._usable()
        with self.store.lock:
            server_expire(self.server, <int64_t>(idle * 1000), <int64_t>(half * 1000), <int64_t>(patience * 1000))

    def drain(self, bint idle):
        """Close every connection once it is answered; with idle, those now of which nothing has come."""
        self.store._usable()
        self.server.draining = True
        if not idle:
            return
        with self.store.lock:
            server_drain(self.server)

    def say(self, bytes line):
        """Put a line of the server's own into its log."""
        cdef char copy[LINE_SIZE]
        cdef Text t = text_begin(copy, LINE_SIZE)
        text_add(&t, line)
        text_char(&t, c"\n")
        log_add(&self.server.log, &t)

    def flush(self):
        """Write what can be written of the log without waiting; whether that is all of it."""
        server_flush(self.server)
        return self.server.log.size == 0

    @property
    def count(self):
        """Connections that are open."""
        return self.server.count

    @property
    def most(self):
        """Connections that may be open."""
        return self.server.most

    @property
    def waiting(self):
        """Requests that somebody else decides just now."""
        return self.server.waiting

    def tally(self):
        """What became of requests, by how they came and how they were answered; broken ones; connections that were closed
        because they were too slow; decisions that on_error made, how long decisions took, by TOOK_BOUNDS, and in all, in
        nanoseconds."""
        cdef Server *d = self.server
        return {
            "requests": {(tongue, outcome): d.requests[i * <int>OUTCOMES + j] for i, tongue in enumerate(TONGUE_NAMES)
                         for j, outcome in enumerate(OUTCOME_NAMES)},
            "broken": d.broken, "timeouts": d.timeouts, "failed": d.failed,
            "took": [d.took[i] for i in range(TOOK_COUNT)], "took_sum": d.took_sum,
        }


def run_errands(Store store, int descriptor):
    """Decide what comes over this socket, one request after the other, until its other end is closed."""
    cdef unsigned char *message
    cdef locale_t before
    cdef int error
    store._usable()
    message = <unsigned char *>calloc(1, ERRAND_MAX)
    if message == NULL:
        raise MemoryError
    with nogil:
        before = uselocale(plain_locale)
        error = errands_run(&store.state, descriptor, message)
        uselocale(before)
    free(message)
    if error:
        raise OSError(error, os.strerror(error))
