# A request of those that ask a server, found in a buffer: attributes, as Postfix sends them (SMTPD_POLICY_README), or
# one line of fields between tabs.

cdef enum Tongue:
    # request=smtpd_access_policy
    POSTFIX = 0
    # request=fastgrey: a hook of a store whose records are shared
    HOOK_ASKS = 1
    # check<TAB>CLIENT<TAB>SENDER<TAB>RECIPIENT[<TAB>NAME]
    PLAIN_LINE = 2

cdef enum:
    # Postfix sends less than 20,000 bytes, with the longest values that it lets through.
    ASKED_MAX = 65536
    PLAIN_WORD = 6

# What keeps it from being a request.
cdef enum Broken:
    TOO_LONG = -1
    NO_EQUALS = -2
    OTHER_REQUEST = -3
    OTHER_FIELDS = -4
    NO_TIME = -5
    OTHERS_TIME = -6


# The parts are NULL where they were not sent.
cdef struct Asked:
    int tongue
    Span client
    Span name
    Span sender
    Span recipient
    # Of POSTFIX.
    Span state
    Span instance
    Span sasl_username
    # Of HOOK_ASKS: "yes" or "no"; Unix seconds; "yes".
    Span name_trusted
    Span now
    Span dry_run


cdef const char *broken_text(int broken) noexcept nogil:
    if broken == TOO_LONG:
        return b"a request longer than 65536 bytes"
    if broken == NO_EQUALS:
        return b"a line without '=' in a request"
    if broken == OTHER_REQUEST:
        return b"a request that is neither request=smtpd_access_policy nor request=fastgrey"
    if broken == NO_TIME:
        return b"a time that is no number of seconds"
    if broken == OTHERS_TIME:
        return b"a time over another socket than STORE/serve.sock"
    return b"a plain request of other fields than CLIENT, SENDER, RECIPIENT and perhaps NAME"


cdef inline size_t seek(const unsigned char *data, size_t start, size_t size, int c) noexcept nogil:
    """As find, for long texts."""
    cdef const void *found = memchr(data + start, c, size - start)
    return <size_t>(<const unsigned char *>found - data) if found != NULL else size


cdef inline bint is_plain(const unsigned char *data, size_t size) noexcept nogil:
    return size >= PLAIN_WORD and memcmp(data, b"check\t", PLAIN_WORD) == 0


cdef inline void keep_first(Span *kept, const unsigned char *value, size_t size) noexcept nogil:
    # Of an attribute sent twice the first counts, as for a variable of a hook (caller.pxi).
    if kept.data == NULL:
        kept[0] = span(value, size)


cdef void asked_attribute(Asked *q, Span *request, Span name, const unsigned char *value,
                          size_t size) noexcept nogil:
    """Attributes that nobody here needs are ignored, as the protocol asks."""
    if name.size == 3 and span_is(name, b"now"):
        keep_first(&q.now, value, size)
    elif name.size == 6 and span_is(name, b"sender"):
        keep_first(&q.sender, value, size)
    elif name.size == 7 and span_is(name, b"dry_run"):
        keep_first(&q.dry_run, value, size)
    elif name.size == 7 and span_is(name, b"request"):
        keep_first(request, value, size)
    elif name.size == 8 and span_is(name, b"instance"):
        keep_first(&q.instance, value, size)
    elif name.size == 9 and span_is(name, b"recipient"):
        keep_first(&q.recipient, value, size)
    elif name.size == 11 and span_is(name, b"client_name"):
        keep_first(&q.name, value, size)
    elif name.size == 12 and span_is(name, b"name_trusted"):
        keep_first(&q.name_trusted, value, size)
    elif name.size == 13 and span_is(name, b"sasl_username"):
        keep_first(&q.sasl_username, value, size)
    elif name.size == 14 and span_is(name, b"client_address"):
        keep_first(&q.client, value, size)
    elif name.size == 14 and span_is(name, b"protocol_state"):
        keep_first(&q.state, value, size)


cdef int asked_attributes(const unsigned char *data, size_t size, Asked *q) noexcept nogil:
    cdef Span request = span(NULL, 0)
    cdef size_t start = 0, end, equals
    while True:
        end = seek(data, start, size, c"\n")
        if end >= size:
            return 0
        if end == start:
            break
        equals = seek(data, start, end, c"=")
        if equals >= end:
            return NO_EQUALS
        asked_attribute(q, &request, span(data + start, equals - start), data + equals + 1, end - equals - 1)
        start = end + 1
    if span_is(request, b"smtpd_access_policy"):
        q.tongue = POSTFIX
        # What Postfix says where there is no verified name.
        if span_is(q.name, b"unknown"):
            q.name = span(NULL, 0)
    elif span_is(request, b"fastgrey"):
        q.tongue = HOOK_ASKS
    else:
        return OTHER_REQUEST
    return <int>(end + 1)


cdef int asked_plain(const unsigned char *data, size_t size, Asked *q) noexcept nogil:
    cdef Span fields[4]
    cdef size_t start = PLAIN_WORD, end, stop = seek(data, 0, size, c"\n")
    cdef int n = 0
    if stop >= size:
        return 0
    size = stop
    if data[stop - 1] == c"\r":
        stop -= 1
    while True:
        if n == 4:
            return OTHER_FIELDS
        end = seek(data, start, stop, c"\t")
        fields[n] = span(data + start, end - start)
        n += 1
        if end >= stop:
            break
        start = end + 1
    if n < 3:
        return OTHER_FIELDS
    q.tongue = PLAIN_LINE
    q.client, q.sender, q.recipient = fields[0], fields[1], fields[2]
    if n == 4 and fields[3].size:
        q.name = fields[3]
    return <int>(size + 1)


cdef int asked_take(const unsigned char *data, size_t size, size_t *looked, Asked *q) noexcept nogil:
    """The request that data begins with: its size, 0 where it is not whole yet, or what is broken about it.

    looked: 0, or what the last call made of it, whose data was the beginning of this. So one that comes byte by byte
    costs no more than one that comes at once.
    """
    cdef bint plain = is_plain(data, size)
    cdef int used
    memset(q, 0, sizeof(Asked))
    if looked[0]:
        while looked[0] < size and not (data[looked[0]] == c"\n"
                                        and (plain or data[looked[0] - 1] == c"\n")):
            looked[0] += 1
        if looked[0] >= size and size <= ASKED_MAX:
            return 0
    if plain:
        used = asked_plain(data, size, q)
    else:
        used = asked_attributes(data, size, q)
    looked[0] = size if used == 0 and size >= PLAIN_WORD else 0
    if used == 0 and size > ASKED_MAX or used > ASKED_MAX:
        return TOO_LONG
    return used


cdef int asked_request(const Asked *a, int64_t now, Request *q) noexcept nogil:
    """The request that is to be decided, at the time now where none was sent: 0, or what is broken about it."""
    memset(q, 0, sizeof(Request))
    q.client, q.name, q.sender, q.recipient = a.client, a.name, a.sender, a.recipient
    q.now = q.clock = now
    # Postfix has confirmed the name that it sends as client_name.
    q.name_trusted = 1 if a.tongue == POSTFIX else -1
    if a.tongue != HOOK_ASKS:
        return 0
    if a.name_trusted.size:
        q.name_trusted = span_is(a.name_trusted, b"yes")
    q.dry = span_is(a.dry_run, b"yes")
    if a.now.size:
        q.now = span_number(a.now)
        if q.now < 0:
            return NO_TIME
    return 0
