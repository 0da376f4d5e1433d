# Whole requests and their keys: two of them, each client, name, sender and recipient up to a NUL. The second may begin
# with a byte that says which end of which part of the first moves to its neighbour.

cdef Span part_of(const Envelope *e, int number) noexcept nogil:
    """What goes into keys, part by part."""
    if number == 0:
        return span(e.client.network, e.client.size)
    elif number == 1:
        return span(e.parent, e.parent_size)
    elif number == 2:
        return span(e.sender.text, e.sender.size)
    return span(e.recipient.text, e.recipient.size)


cdef void fill_head(Head *head) noexcept nogil:
    """Settings as they are by default, names trusted."""
    cdef size_t k
    memset(head, 0, sizeof(Head))
    memcpy(head.magic, b"fastgrey", 8)
    head.version = FORMAT_VERSION
    head.order = BYTE_ORDER_MARK
    head.generation = 1
    head.settings.delay = 300
    head.settings.retry_window = 172800
    head.settings.lifetime = 36 * 86400
    head.settings.refresh = 86400
    head.settings.ipv4_prefix = 24
    head.settings.ipv6_prefix = 64
    head.settings.allow_client_after = 5
    head.settings.allow_domain_after = 1
    head.settings.pool_hops = 3
    head.settings.pool_window = 14400
    head.settings.trust_client_name = 1
    head.settings.pending_size = 16 << 20
    head.settings.expect_max = 3600
    for k in range(SECRET_SIZE):
        head.secret[k] = <unsigned char>(k * 7 + 1)


cdef void take_request(Input *i, Request *q) noexcept nogil:
    memset(q, 0, sizeof(Request))
    q.name_trusted = -1
    q.now = 1700000000
    q.client = take_field(i)
    q.name = take_field(i)
    q.sender = take_field(i)
    q.recipient = take_field(i)


cdef void move_byte(Request *q, unsigned char how) noexcept nogil:
    """The last byte of the sender in front of the recipient, or the other way round."""
    cdef unsigned char *joined
    cdef size_t size = q.sender.size + q.recipient.size, border = q.sender.size
    if how & 1 and border:
        border -= 1
    elif q.recipient.size:
        border += 1
    joined = <unsigned char *>own(size)
    memcpy(joined, q.sender.data, q.sender.size)
    memcpy(joined + q.sender.size, q.recipient.data, q.recipient.size)
    q.sender = span(joined, border)
    q.recipient = span(joined + border, size - border)


cdef void keys_of(const Envelope *e, int place, const Head *head, unsigned char *keys) noexcept nogil:
    key_client(e, head.secret, keys)
    key_domain(e, place, head.secret, keys + KEY_SIZE)
    key_triplet(e, place, head.secret, keys + 2 * KEY_SIZE)
    key_pair(e, head.secret, keys + 3 * KEY_SIZE)
    key_waiting(e, place, head.secret, keys + 4 * KEY_SIZE)


cdef void fuzz_envelope(Input *i) noexcept nogil:
    cdef unsigned char how = take_byte(i)
    cdef Head *head = <Head *>own(sizeof(Head))
    cdef Envelope *a = <Envelope *>own(sizeof(Envelope))
    cdef Envelope *b = <Envelope *>own(sizeof(Envelope))
    cdef unsigned char *first = <unsigned char *>own(5 * KEY_SIZE)
    cdef unsigned char *second = <unsigned char *>own(5 * KEY_SIZE)
    cdef Request q
    cdef bint same
    cdef int fault, place
    fill_head(head)
    take_request(i, &q)
    fault = normalise(&q, head, a)
    require(NO_FAULT == fault or BAD_CLIENT <= fault <= BAD_RECIPIENT, b"a fault of the request")
    if fault != NO_FAULT:
        return
    require(a.places == (2 if a.parent_size else 1), b"two places where there is a parent")
    if how & 2:
        move_byte(&q, how)
    else:
        take_request(i, &q)
    if normalise(&q, head, b) != NO_FAULT:
        return
    for place in range(a.places if a.places < b.places else b.places):
        keys_of(a, place, head, first)
        keys_of(b, place, head, second)
        same = is_same(part_of(a, 2), part_of(b, 2)) and is_same(part_of(a, 3), part_of(b, 3))
        require(same == (memcmp(first + 3 * KEY_SIZE, second + 3 * KEY_SIZE, KEY_SIZE) == 0),
                b"one key of a pair for one pair")
        same = same and is_same(part_of(a, place), part_of(b, place))
        require(same == (memcmp(first + 2 * KEY_SIZE, second + 2 * KEY_SIZE, KEY_SIZE) == 0),
                b"one key of a triplet for one triplet")
        require(same == (memcmp(first + 4 * KEY_SIZE, second + 4 * KEY_SIZE, KEY_SIZE) == 0),
                b"one key in pending for one triplet")
        require(memcmp(first + 4 * KEY_SIZE, first + 3 * KEY_SIZE, 8) == 0, b"a triplet waits beside its pair")
