# What comes over a connection of the server: a verdict in three bytes, the size of the first piece, then the bytes that
# come.

cdef bint lies_in(Span s, Span whole) noexcept nogil:
    return s.data == NULL and s.size == 0 or (s.data >= whole.data and s.data + s.size <= whole.data + whole.size)


cdef void asked_holds(const Asked *a, Span used) noexcept nogil:
    """Every part is within the request, and no request reaches into the next one."""
    require(lies_in(a.client, used) and lies_in(a.name, used) and lies_in(a.sender, used)
            and lies_in(a.recipient, used) and lies_in(a.state, used) and lies_in(a.instance, used)
            and lies_in(a.sasl_username, used), b"a part lies in its request")
    require(used.data[used.size - 1] == c"\n", b"a request ends with its line")
    require(find(a.sender.data, 0, a.sender.size, c"\n") == a.sender.size
            and find(a.recipient.data, 0, a.recipient.size, c"\n") == a.recipient.size, b"a part is within a line")
    require(a.tongue == PLAIN_LINE or used.data[used.size - 2] == c"\n" , b"attributes end with an empty line")


cdef void pieces_hold(Span whole, size_t piece, int expected) noexcept nogil:
    """In pieces it is found to be the same."""
    cdef Asked a
    cdef size_t looked = 0, size = piece if piece < whole.size else whole.size
    cdef int used
    while True:
        used = asked_take(whole.data, size, &looked, &a)
        require(looked <= size, b"it looks at what came")
        if used != 0 or size == whole.size:
            break
        size += 1 + piece % 7
        if size > whole.size:
            size = whole.size
    # What is broken may be seen later, never earlier: the rest could have mended nothing.
    require(used == expected or expected < 0 and used <= 0, b"pieces make the same request")


cdef void reply_holds(const char *said, size_t size, int tongue) noexcept nogil:
    cdef size_t k
    require(1 < size < ANSWER_SIZE - 1, b"a reply has a bound")
    require(said[size - 1] == c"\n", b"a reply ends as a line")
    require(tongue == PLAIN_LINE or said[size - 2] == c"\n", b"and but for the plain one with an empty line")
    require(tongue != POSTFIX or memcmp(said, b"action=", 7) == 0, b"Postfix is told an action")
    for k in range(size - (1 if tongue == PLAIN_LINE else 2)):
        require(32 <= said[k] < 127 or tongue == HOOK_ASKS and said[k] == c"\n" and said[k + 1] != c"\n",
                b"nothing ends it before its end")


cdef bint is_copy(Span a, Span b) noexcept nogil:
    """What was not sent is empty in a copy."""
    return a.size == 0 and b.size == 0 or is_same(a, b)


cdef void errand_holds(const Request *q) noexcept nogil:
    """What the scribe reads is what was asked."""
    cdef unsigned char *message = <unsigned char *>own(ERRAND_MAX)
    cdef size_t size = errand_write(message, 3, 7, q, PROMOTION_LEFT)
    cdef Request read
    require(size <= ERRAND_MAX, b"an errand has a bound")
    require(errand_read(message, size, &read), b"and can be read")
    require(is_copy(read.client, q.client) and is_copy(read.name, q.name) and is_copy(read.sender, q.sender)
            and is_copy(read.recipient, q.recipient) and read.now == q.now and read.clock == q.clock
            and read.name_trusted == q.name_trusted, b"with all that was asked")
    require(not errand_read(message, size - 1, &read) or q.recipient.size == 0 and not errand_read(message, 8, &read),
            b"one that was cut is none")


cdef void fuzz_asked(Input *i) noexcept nogil:
    cdef StoreState *s = <StoreState *>own(sizeof(StoreState))
    cdef VerdictState *v = <VerdictState *>own(sizeof(VerdictState))
    cdef Wording *w = <Wording *>own(sizeof(Wording))
    cdef char *said = <char *>own(ANSWER_SIZE)
    cdef Text t = text_begin(said, ANSWER_SIZE)
    cdef Asked a
    cdef Request q
    cdef size_t looked = 0, piece
    cdef Span whole
    cdef int used, broken
    memset(s, 0, sizeof(StoreState))
    memset(v, 0, sizeof(VerdictState))
    memset(w, 0, sizeof(Wording))
    v.action = take_byte(i) % 3
    v.reason = take_byte(i) % (DENIED + 1)
    v.fault = BAD_CLIENT if take_byte(i) & 1 else NO_FAULT
    v.waited = v.wait = v.reason * 100
    piece = take_byte(i)
    memset(w.defer, c"d", SAID_TEXT if piece & 1 else 3)
    memset(w.reject, c"r", SAID_TEXT)
    memset(w.trace, c"X", HEADER_NAME_MAX)
    w.says_seconds = piece & 2
    whole = take_rest(i)
    used = asked_take(whole.data, whole.size, &looked, &a)
    pieces_hold(whole, piece, used)
    require(used >= NO_TIME and used <= <int>whole.size, b"a size, nothing, or what is broken")
    if used < 0:
        require(broken_text(used)[0] != 0, b"what is broken has a text")
    if used <= 0:
        return
    asked_holds(&a, span(whole.data, used))
    broken = asked_request(&a, 1700000000, &q)
    require(broken == 0 or broken == NO_TIME, b"a request, or no time")
    if broken == 0:
        errand_holds(&q)
    policy_reply(&t, s, w, a.tongue, v, v.reason & 1)
    reply_holds(said, t.size, a.tongue)
