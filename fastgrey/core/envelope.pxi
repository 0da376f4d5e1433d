# A request as it comes, and the same normalised.

cdef struct Request:
    int64_t now
    # The clock of the machine, for the counters: now is another time where one was given.
    int64_t clock
    Span client
    Span name
    Span sender
    Span recipient
    # -1: as the setting trust_client_name says.
    int name_trusted
    bint relay
    # Decide, but write nothing.
    bint dry
    # Leave out what would be flushed, and say so (Left).
    bint quick


cdef struct Envelope:
    Client client
    Address sender
    Address recipient
    unsigned char parent[NAME_MAX]
    size_t parent_size
    # The client name is forward-confirmed.
    bint name_trusted
    # 2 where the request is known under the name parent too, else 1.
    int places
    # The key of the triplet under the network, which the log and several steps want. Set for a decision (decide.pxi).
    unsigned char triplet[KEY_SIZE]


cdef int normalise(const Request *q, const Head *head, Envelope *e) noexcept nogil:
    """Fill e from the request; a fault where a part is not usable."""
    if q.now < 0 or q.now > TIME_MAX:
        return BAD_CLOCK
    if parse_client(q.client, <int>head.settings.ipv4_prefix, <int>head.settings.ipv6_prefix, &e.client) != 0:
        return BAD_CLIENT
    if normalise_address(q.sender, True, &e.sender) != 0:
        return BAD_SENDER
    if normalise_address(q.recipient, False, &e.recipient) != 0:
        return BAD_RECIPIENT
    e.name_trusted = head.settings.trust_client_name != 0 if q.name_trusted < 0 else q.name_trusted != 0
    e.parent_size = name_parent(q.name, &e.client, e.parent) if e.name_trusted else 0
    e.places = 2 if e.parent_size else 1
    return NO_FAULT
