# The connections of a worker of the server: bytes in, decisions, bytes out, with as few system calls as there are.
#
# One request of a connection is under way at a time, and nothing is read from it meanwhile: so neither a client that
# sends and never reads nor one that sends half a request costs more than its two buffers.

cdef enum:
    INBOX_SIZE = ASKED_MAX
    OUTBOX_SIZE = 1 << 16
    EVENTS = 64
    # Places of what is no connection.
    SCRIBE_PLACE = 0x7FFFFFF0
    LOOP_PLACE = 0x7FFFFFF1
    # Milliseconds after which lines of the log are written, be they few.
    LOG_PATIENCE = 20
    # A request on which the scribe died so often is not given to a third one.
    ERRAND_TRIES = 2

# What became of requests, for statistics.
cdef enum Outcome:
    # 0 to 2 are Action; a request that there is nothing to decide about.
    SKIPPED = 3
    OUTCOMES = 4


# What is remembered of the message whose recipients come one by one.
cdef struct Message:
    # Of its instance, 0 for none.
    uint64_t hash
    bint traced
    bint decided
    int action
    int reason
    int64_t wait
    int fault


cdef enum:
    TOOK_COUNT = 15

cdef extern from *:
    """
    /* Nanoseconds; the last bucket of the histogram has no bound. */
    static const int64_t fastgrey_took_bounds[] = {
        100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000, 250000000,
        500000000, 1000000000, 2500000000};
    """
    const int64_t *took_bounds "fastgrey_took_bounds"


cdef struct Peer:
    # -1 where the place is vacant.
    int fd
    # Tells whoever had the place before from who has it now.
    uint32_t number
    # Came over the store's own socket.
    bint own
    uint32_t next_vacant
    # What came and is not answered yet; while an answer is waited for, it begins with that request.
    unsigned char *data
    size_t size
    size_t looked
    # Replies that could not be sent yet.
    char *out
    size_t out_size
    unsigned int watched
    # Somebody else decides; nobody was found yet that does.
    bint waiting
    bint unsent
    # Tells the request that waits from others of the same connection: one that waited for too long is answered without
    # its decision, which comes all the same.
    uint32_t ticket
    # The place is among those whose requests are to be decided elsewhere (asked), be it with one that is over.
    bint listed
    int tries
    # On the clock that never steps, in milliseconds: the last reply; the first byte of what is not answered.
    int64_t since
    int64_t began
    # In nanoseconds: when it was begun to decide the request.
    int64_t asked_at
    Message message


cdef struct Server:
    StoreState *store
    Wording wording
    LogQueue log
    int epoll
    # The worker's scribe, -1 while there is none.
    int scribe
    bint scribe_gone
    # Others decide all of it (an engine), not this store.
    bint elsewhere
    bint first_recipient
    # No connection is kept once it is answered.
    bint draining
    Peer *peers
    uint32_t most
    uint32_t count
    uint32_t vacant
    uint32_t waiting
    uint32_t unsent
    # The last one that was given.
    uint32_t tickets
    # Milliseconds of the clock that never steps, seconds of the other one; of the last writing of the log.
    int64_t now
    int64_t clock
    int64_t flushed
    # Places whose requests are to be decided elsewhere.
    uint32_t *asked
    uint32_t asked_count
    # By Tongue and Outcome.
    uint64_t requests[12]
    uint64_t broken
    uint64_t timeouts
    # Decisions by how long they took, the sum of that in nanoseconds, and those that on_error made.
    uint64_t took[TOOK_COUNT]
    uint64_t took_sum
    uint64_t failed
    unsigned char inbox[INBOX_SIZE]
    char outbox[OUTBOX_SIZE]
    unsigned char errand[ERRAND_MAX]


cdef void server_times(Server *d) noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    d.now = <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1000000
    clock_gettime(CLOCK_REALTIME, &t)
    d.clock = t.tv_sec


cdef inline int64_t nanoseconds() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef void decision_counted(Server *d, const Peer *p, const VerdictState *v) noexcept nogil:
    cdef int64_t took = later(nanoseconds() - p.asked_at, 0)
    cdef int i = 0
    while i < TOOK_COUNT - 1 and took > took_bounds[i]:
        i += 1
    d.took[i] += 1
    d.took_sum += took
    d.failed += v.reason == ERROR


cdef int server_watch(Server *d, int fd, uint32_t place, uint32_t number, int operation,
                      unsigned int events) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = <uint64_t>number << 32 | place
    return epoll_ctl(d.epoll, operation, fd, &event)


cdef void peer_watch(Server *d, uint32_t place, unsigned int events) noexcept nogil:
    cdef Peer *p = &d.peers[place]
    if p.watched != events:
        p.watched = events
        server_watch(d, p.fd, place, p.number, EPOLL_CTL_MOD, events)


cdef int peer_open(Server *d, int fd, bint own) noexcept nogil:
    """Take a connection; an errno where there is no room for it."""
    cdef uint32_t place = d.vacant
    cdef Peer *p
    if d.count == d.most:
        return EAGAIN
    p = &d.peers[place]
    if server_watch(d, fd, place, p.number, EPOLL_CTL_ADD, EPOLLIN) != 0:
        return errno
    server_times(d)
    p.fd = fd
    p.own = own
    p.watched = EPOLLIN
    p.since = d.now
    p.began = 0
    d.vacant = p.next_vacant
    d.count += 1
    return 0


cdef void peer_settle(Server *d, Peer *p) noexcept nogil:
    """Nobody decides for it any more."""
    if p.waiting:
        d.waiting -= 1
    if p.unsent:
        d.unsent -= 1
    p.waiting = p.unsent = False
    p.tries = 0


cdef void peer_close(Server *d, uint32_t place) noexcept nogil:
    cdef Peer *p = &d.peers[place]
    cdef uint32_t number = p.number + 1
    cdef bint listed = p.listed
    peer_settle(d, p)
    close(p.fd)
    free(p.data)
    free(p.out)
    memset(p, 0, sizeof(Peer))
    p.fd = -1
    p.number = number
    p.listed = listed
    p.next_vacant = d.vacant
    d.vacant = place
    d.count -= 1


cdef bint peer_keep(Peer *p, const unsigned char *data, size_t size) noexcept nogil:
    """Keep what is not answered yet, which may be what is kept already; False where there is no memory."""
    cdef unsigned char *copy = NULL
    if size and p.data != NULL and p.data <= data <= p.data + p.size:
        memmove(p.data, data, size)
        p.size = size
        return True
    if size:
        copy = <unsigned char *>malloc(size)
        if copy == NULL:
            return False
        memcpy(copy, data, size)
    free(p.data)
    p.data = copy
    p.size = size
    return True


cdef bint peer_send(Server *d, uint32_t place, const char *data, size_t size) noexcept nogil:
    """Send, or keep what cannot be sent now; False where the connection is gone."""
    cdef Peer *p = &d.peers[place]
    cdef char *longer
    cdef ssize_t sent = 0
    p.since = d.now
    if p.out == NULL:
        sent = send(p.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent == <ssize_t>size:
            return True
        if sent < 0 and errno != EAGAIN and errno != EINTR:
            peer_close(d, place)
            return False
        if sent < 0:
            sent = 0
    longer = <char *>realloc(p.out, p.out_size + size - sent)
    if longer == NULL:
        peer_close(d, place)
        return False
    memcpy(longer + p.out_size, data + sent, size - sent)
    p.out = longer
    p.out_size += size - sent
    peer_watch(d, place, EPOLLOUT)
    return True


cdef inline void request_counted(Server *d, int tongue, int outcome) noexcept nogil:
    d.requests[tongue * <int>OUTCOMES + outcome] += 1


cdef void request_decided(Server *d, Peer *p, const Asked *a, const Request *q, const VerdictState *v,
                          Text *t) noexcept nogil:
    """Log, remember, reply."""
    cdef char line[LINE_SIZE]
    cdef Text logged = text_begin(line, LINE_SIZE)
    cdef bint trace = (a.tongue == POSTFIX and v.action == ACCEPT and (v.reason == RETRY or v.reason == POOL)
                       and d.wording.trace[0] != 0 and p.message.hash != 0 and not p.message.traced)
    if not q.dry:
        log_decision(&logged, d.store, q, v, d.log.form)
        log_add(&d.log, &logged)
    if a.tongue == POSTFIX:
        p.message.traced = p.message.traced or trace
        p.message.decided = True
        p.message.action, p.message.reason, p.message.wait, p.message.fault = v.action, v.reason, v.wait, v.fault
    request_counted(d, a.tongue, v.action)
    decision_counted(d, p, v)
    policy_reply(t, d.store, &d.wording, a.tongue, v, trace)


cdef bint message_answers(Server *d, Peer *p, const Asked *a, Text *t) noexcept nogil:
    """What there is nothing to decide about: sessions that may relay, other states than that of a recipient, and where
    it was asked for, recipients after the first."""
    cdef VerdictState v
    cdef uint64_t hash = 0
    if a.tongue != POSTFIX:
        return False
    if not span_is(a.state, b"RCPT") or a.sasl_username.size:
        request_counted(d, POSTFIX, SKIPPED)
        text_add(t, b"action=DUNNO\n\n")
        return True
    if a.instance.size:
        hash = XXH3_64bits_withSeed(a.instance.data, a.instance.size, 0) | 1
    if hash != p.message.hash:
        memset(&p.message, 0, sizeof(Message))
        p.message.hash = hash
    if not d.first_recipient or hash == 0 or not p.message.decided:
        return False
    memset(&v, 0, sizeof(v))
    answer(&v, p.message.action, p.message.reason, p.message.wait)
    v.fault = p.message.fault
    request_counted(d, POSTFIX, v.action)
    policy_reply(t, d.store, &d.wording, POSTFIX, &v, False)
    return True


cdef int request_answer(Server *d, uint32_t place, const Asked *a, Text *t) noexcept nogil:
    """1 where it was answered, 0 where somebody else has to decide; or what is broken about it."""
    cdef Peer *p = &d.peers[place]
    cdef Request q
    cdef VerdictState v
    cdef int broken
    if message_answers(d, p, a, t):
        return 1
    broken = asked_request(a, d.clock, &q)
    if broken:
        return broken
    # Whoever says when it is can pass without waiting: that is for who can write the store.
    if q.now != d.clock and not p.own:
        return OTHERS_TIME
    p.asked_at = nanoseconds()
    if d.elsewhere:
        return 0
    q.quick = True
    decide(d.store, &q, &v)
    if v.left == PROMOTION_LEFT:
        return 0
    if v.left == REFRESH_LEFT and d.scribe >= 0:
        # Where it gets lost, the next check finds it due.
        send(d.scribe, d.errand, errand_write(d.errand, NOBODY, 0, &q, REFRESH_LEFT), MSG_DONTWAIT | MSG_NOSIGNAL)
    request_decided(d, p, a, &q, &v, t)
    return 1


cdef void peer_break(Server *d, uint32_t place, int broken) noexcept nogil:
    """SMTPD_POLICY_README: no reply, a line in the log, and an end of the connection."""
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    text_add(&t, b"connection closed: ")
    text_add(&t, broken_text(broken))
    text_add(&t, b" came; ask as docs/serve.md says")
    log_said(&d.log, b"broken", &t)
    d.broken += 1
    peer_close(d, place)


cdef void errand_send(Server *d, uint32_t place) noexcept nogil:
    """Have the scribe decide the request that waits; where it cannot be given to it now, later."""
    cdef Peer *p = &d.peers[place]
    cdef Asked a
    cdef Request q
    cdef ssize_t sent = -1
    cdef size_t looked = 0, size
    asked_take(p.data, p.size, &looked, &a)
    asked_request(&a, d.clock, &q)
    if d.scribe >= 0:
        size = errand_write(d.errand, place, p.ticket, &q, PROMOTION_LEFT)
        sent = send(d.scribe, d.errand, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if p.unsent != (sent < 0):
        p.unsent = sent < 0
        d.unsent += 1 if sent < 0 else -1


cdef void peer_hand_over(Server *d, uint32_t place) noexcept nogil:
    cdef Peer *p = &d.peers[place]
    p.waiting = True
    p.since = d.now
    d.waiting += 1
    d.tickets += 1
    p.ticket = d.tickets
    if not d.elsewhere:
        errand_send(d, place)
    elif not p.listed:
        p.listed = True
        d.asked[d.asked_count] = place
        d.asked_count += 1


cdef void peer_answer(Server *d, uint32_t place, const unsigned char *data, size_t size) noexcept nogil:
    """Answer what is whole in data, one request after the other, and keep the rest."""
    cdef Peer *p = &d.peers[place]
    cdef Text t = text_begin(d.outbox, OUTBOX_SIZE)
    cdef Asked a
    cdef size_t start = 0
    cdef int used = 0, answered = 1
    while p.out == NULL and start < size:
        used = asked_take(data + start, size - start, &p.looked, &a)
        if used > 0:
            answered = request_answer(d, place, &a, &t)
        if used <= 0 or answered <= 0:
            break
        start += used
        if t.size + ANSWER_SIZE > OUTBOX_SIZE or start == size:
            if not peer_send(d, place, d.outbox, t.size):
                return
            t.size = 0
    if t.size and not peer_send(d, place, d.outbox, t.size):
        return
    if used < 0 or answered < 0:
        peer_break(d, place, used if used < 0 else answered)
        return
    if not peer_keep(p, data + start, size - start):
        peer_close(d, place)
        return
    if p.size == 0:
        p.began = 0
    elif start or p.began == 0:
        p.began = d.now
    if answered == 0:
        peer_hand_over(d, place)
    elif p.out != NULL:
        pass
    elif d.draining and p.size == 0:
        peer_close(d, place)
    else:
        peer_watch(d, place, EPOLLIN)


cdef void peer_decided(Server *d, uint32_t place, const VerdictState *v) noexcept nogil:
    """Reply to the request that waits, and go on with what came behind it."""
    cdef Peer *p = &d.peers[place]
    cdef char said[ANSWER_SIZE]
    cdef Text t = text_begin(said, ANSWER_SIZE)
    cdef Asked a
    cdef Request q
    cdef size_t looked = 0
    cdef int used = asked_take(p.data, p.size, &looked, &a)
    asked_request(&a, d.clock, &q)
    peer_settle(d, p)
    p.began = 0
    request_decided(d, p, &a, &q, v, &t)
    if peer_send(d, place, said, t.size):
        peer_answer(d, place, p.data + used, p.size - used)


cdef void peer_drain(Server *d, uint32_t place) noexcept nogil:
    """Send what could not be sent before."""
    cdef Peer *p = &d.peers[place]
    cdef ssize_t sent = send(p.fd, p.out, p.out_size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent < 0:
        if errno != EAGAIN and errno != EINTR:
            peer_close(d, place)
        return
    p.since = d.now
    p.out_size -= sent
    memmove(p.out, p.out + sent, p.out_size)
    if p.out_size:
        return
    free(p.out)
    p.out = NULL
    if p.waiting:
        peer_watch(d, place, 0)
    else:
        peer_answer(d, place, p.data, p.size)


cdef void peer_read(Server *d, uint32_t place) noexcept nogil:
    cdef Peer *p = &d.peers[place]
    cdef unsigned char *longer
    cdef ssize_t n = recv(p.fd, d.inbox, INBOX_SIZE, MSG_DONTWAIT)
    if n < 0 and (errno == EAGAIN or errno == EINTR):
        return
    if n <= 0:
        peer_close(d, place)
        return
    if p.size == 0:
        peer_answer(d, place, d.inbox, n)
        return
    longer = <unsigned char *>realloc(p.data, p.size + n)
    if longer == NULL:
        peer_close(d, place)
        return
    memcpy(longer + p.size, d.inbox, n)
    p.data = longer
    p.size += n
    peer_answer(d, place, p.data, p.size)


cdef void peer_event(Server *d, uint32_t place, uint32_t number, unsigned int events) noexcept nogil:
    cdef Peer *p = &d.peers[place]
    # Of an earlier event of the same batch it may be gone already.
    if p.fd < 0 or p.number != number:
        return
    if p.out != NULL and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
        peer_drain(d, place)
    elif p.waiting and events & (EPOLLERR | EPOLLHUP):
        peer_close(d, place)
    elif p.waiting:
        peer_watch(d, place, 0)
    elif p.out == NULL:
        peer_read(d, place)


cdef void scribe_lost(Server *d) noexcept nogil:
    """Whoever waited for it waits for the next one, which is asked again."""
    server_watch(d, d.scribe, SCRIBE_PLACE, 0, EPOLL_CTL_DEL, 0)
    close(d.scribe)
    d.scribe = -1
    d.scribe_gone = True


cdef bint scribe_answered(Server *d) noexcept nogil:
    cdef ErrandDone done
    cdef ssize_t size = recv(d.scribe, &done, sizeof(done), MSG_DONTWAIT)
    if size < 0 and (errno == EAGAIN or errno == EINTR):
        return False
    if size != sizeof(done):
        scribe_lost(d)
        return False
    if done.place < d.most and d.peers[done.place].ticket == done.ticket and d.peers[done.place].waiting:
        d.store.part = b"pending" if done.in_pending else b"passed"
        peer_decided(d, done.place, &done.verdict)
    return True


cdef void scribe_go_on(Server *d) noexcept nogil:
    """There may be room for what could not be given to it."""
    cdef uint32_t place
    if d.unsent == 0 or d.scribe < 0:
        return
    for place in range(d.most):
        if d.peers[place].unsent:
            errand_send(d, place)
            if d.peers[place].unsent:
                return


cdef void request_fails(Server *d, uint32_t place, int fault) noexcept nogil:
    """What waits gets the answer that on_error names."""
    cdef VerdictState v
    memset(&v, 0, sizeof(v))
    d.store.error = 0
    decide_error(d.store, &v, fault)
    count_verdict(d.store, &v, d.clock)
    peer_decided(d, place, &v)


cdef void scribe_begin(Server *d, int fd) noexcept nogil:
    """Another scribe takes over; what waits is asked again."""
    cdef Peer *p
    cdef uint32_t place
    d.scribe = fd
    server_watch(d, fd, SCRIBE_PLACE, 0, EPOLL_CTL_ADD, EPOLLIN)
    server_times(d)
    for place in range(d.most):
        p = &d.peers[place]
        if not p.waiting:
            continue
        if not p.unsent:
            p.tries += 1
        if p.tries == ERRAND_TRIES:
            request_fails(d, place, DAMAGED)
        else:
            errand_send(d, place)


cdef void server_expire(Server *d, int64_t idle, int64_t half, int64_t patience) noexcept nogil:
    """Close connections of which nothing came for idle milliseconds, or of which half a request, or of which a reply
    could not be sent; answer what waited for longer than patience."""
    cdef Peer *p
    cdef uint32_t place
    server_times(d)
    for place in range(d.most):
        p = &d.peers[place]
        if p.fd < 0:
            continue
        if p.waiting:
            if d.now - p.since > patience:
                request_fails(d, place, NO_ENGINE if d.elsewhere else TOO_SLOW)
        elif p.out != NULL and d.now - p.since > half or p.out == NULL and p.size and d.now - p.began > half:
            d.timeouts += 1
            peer_close(d, place)
        elif p.out == NULL and not p.size and d.now - p.since > idle:
            peer_close(d, place)


cdef void server_drain(Server *d) noexcept nogil:
    """No connection is kept any more: the idle ones go now, the others once they are answered."""
    cdef Peer *p
    cdef uint32_t place
    d.draining = True
    server_times(d)
    for place in range(d.most):
        p = &d.peers[place]
        if p.fd >= 0 and not p.waiting and p.out == NULL and p.size == 0:
            # What has come already is answered.
            peer_read(d, place)
            if p.fd >= 0 and not p.waiting and p.out == NULL and p.size == 0:
                peer_close(d, place)


cdef bint server_round(Server *d, int milliseconds) noexcept nogil:
    """Wait so long at most for something to do, and do it; whether somebody outside of this file is wanted."""
    cdef epoll_event events[EVENTS]
    cdef uint32_t place
    cdef bint wanted = False
    cdef int i, n = epoll_wait(d.epoll, events, EVENTS, milliseconds)
    server_times(d)
    for i in range(n):
        place = <uint32_t>events[i].data.u64
        if place == LOOP_PLACE:
            wanted = True
        elif place == SCRIBE_PLACE:
            while d.scribe >= 0 and scribe_answered(d):
                pass
            scribe_go_on(d)
        else:
            peer_event(d, place, <uint32_t>(events[i].data.u64 >> 32), events[i].events)
    return wanted or d.asked_count > 0 or d.scribe_gone or n < 0


cdef void server_flush(Server *d) noexcept nogil:
    log_flush(&d.log)
    d.flushed = d.now


cdef void server_run(Server *d, int64_t milliseconds) noexcept nogil:
    """Serve for so long, negative for ever, or until somebody else is wanted."""
    cdef int64_t until, left
    cdef bint wanted
    server_times(d)
    until = d.now + milliseconds
    while True:
        left = until - d.now if milliseconds >= 0 else -1
        if d.log.size and (left < 0 or left > LOG_PATIENCE):
            left = LOG_PATIENCE
        wanted = server_round(d, <int>left)
        # Also where somebody is wanted every time, as where all is decided elsewhere.
        if d.log.size and d.now - d.flushed >= LOG_PATIENCE or d.log.size > LOG_SIZE // 2:
            server_flush(d)
        if wanted or milliseconds >= 0 and d.now >= until:
            break
