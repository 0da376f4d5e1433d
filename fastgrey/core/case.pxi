# One request against records that are kept elsewhere: which it may look at, all of them at once; then, from what they
# are, the verdict and what to write.

cdef enum SlotKind:
    # Beside the kinds of known records: a triplet that waits, and the hops of a pair.
    WAITING = 4
    HOPS = 5

cdef enum:
    # Client, two domains, two triplets, pair; two that wait, hops.
    SLOTS_MAX = 9
    # Seconds that a record is kept beyond its time, for machines whose clocks differ.
    SLACK = 60


cdef struct Slot:
    int kind
    unsigned char key[KEY_SIZE]
    # What is there, 0 for nothing.
    uint64_t record
    # What shall be there, 0 to leave it, and the seconds that it is of use.
    uint64_t after
    int64_t keep


cdef struct CaseState:
    # As they were when the request came: a policy that is applied meanwhile is for the next one.
    Head head
    Envelope e
    int64_t now
    bint dry
    int size
    Slot slots[SLOTS_MAX]
    # How step 10 ended, whatever mode makes of it; ERROR where it was not reached.
    int settled
    int64_t first


cdef const char *slot_name(int kind) noexcept nogil:
    if kind == WAITING:
        return b"waiting"
    if kind == HOPS:
        return b"hops"
    return kind_name(kind)


cdef Slot *case_add(CaseState *c, int kind) noexcept nogil:
    cdef Slot *slot = &c.slots[c.size]
    memset(slot, 0, sizeof(Slot))
    slot.kind = kind
    c.size += 1
    return slot


cdef void case_fill(CaseState *c) noexcept nogil:
    """Every record that the decision may look at or write."""
    cdef const unsigned char *secret = c.head.secret
    cdef int place
    c.size = 0
    key_client(&c.e, secret, case_add(c, CLIENT).key)
    for place in range(c.e.places):
        if has_domain(&c.e):
            key_domain(&c.e, place, secret, case_add(c, DOMAIN).key)
        key_triplet(&c.e, place, secret, case_add(c, TRIPLET).key)
        key_waiting(&c.e, place, secret, case_add(c, WAITING).key)
    if makes_pairs(&c.head.settings, &c.e):
        key_pair(&c.e, secret, case_add(c, PAIR).key)
        key_pair(&c.e, secret, case_add(c, HOPS).key)


cdef Slot *case_slot(CaseState *c, int kind, const unsigned char *key) noexcept nogil:
    cdef int i
    for i in range(c.size):
        if c.slots[i].kind == kind and memcmp(c.slots[i].key, key, KEY_SIZE) == 0:
            return &c.slots[i]
    return NULL


cdef void case_write(CaseState *c, Slot *slot, uint64_t record) noexcept nogil:
    cdef int64_t horizon = c.head.settings.lifetime
    if slot.kind == WAITING:
        horizon = c.head.settings.retry_window
    elif slot.kind == HOPS:
        horizon = c.head.settings.pool_window
    slot.after = record
    slot.keep = later(record_time(record) + horizon - c.now, 0) + SLACK


cdef bint case_known(CaseState *c, VerdictState *v) noexcept nogil:
    """Steps 6 to 9."""
    cdef Match m
    cdef Slot *slot
    cdef int step
    for step in range(KNOWN_STEPS):
        if not known_wanted(&c.head, &c.e, step, &m):
            continue
        slot = case_slot(c, m.kind, m.key)
        m.record = slot.record
        if known_passes(&c.head.settings, &m, c.now):
            answer(v, ACCEPT, m.reason, 0)
            if refresh_due(&c.head.settings, m.record, c.now):
                case_write(c, slot, refreshed(m.record, c.now))
            return True
    return False


cdef void case_stranger(CaseState *c, Slot *hops, const Pending *p) noexcept nogil:
    """What step 10 writes of a request that is not found: the pair, and unless the pool passes, the triplets."""
    cdef int i
    if p.hops > 0:
        case_write(c, hops, record_pack(p.pair_first, p.hops))
    if c.settled == NEW:
        for i in range(c.size):
            if c.slots[i].kind == WAITING:
                case_write(c, &c.slots[i], record_pack(c.now, 0))


cdef void case_promote(CaseState *c) noexcept nogil:
    """Step 11."""
    cdef unsigned char key[KEY_SIZE]
    cdef Slot *slot
    cdef int step, kind
    for step in range(PROMOTION_STEPS):
        if promotion_wanted(&c.head, &c.e, c.settled == POOL, step, &kind, key):
            slot = case_slot(c, kind, key)
            case_write(c, slot, promoted(&c.head.settings, slot.record, c.now))


cdef void case_pending(CaseState *c, VerdictState *v) noexcept nogil:
    """Steps 10 to 12."""
    cdef Pending p
    cdef Slot *hops = NULL
    cdef int i
    pending_begin(&p)
    for i in range(c.size):
        if c.slots[i].kind == WAITING and c.slots[i].record:
            waiting_seen(&c.head.settings, c.slots[i].record, c.now, &p)
        elif c.slots[i].kind == HOPS:
            hops = &c.slots[i]
    if p.first < 0 and hops != NULL:
        pair_goes_on(&c.head.settings, hops.record, c.now, &p)
    c.settled = settle(&c.head.settings, &p, c.now, &c.first)
    if p.first < 0:
        case_stranger(c, hops, &p)
    if c.settled == EARLY or c.settled == NEW:
        answer_stranger(&c.head.settings, v, c.settled, c.now, c.first)
        return
    case_promote(c)
    answer(v, ACCEPT, c.settled, 0)
    v.waited = elapsed(c.now, c.first)


cdef void case_judge(CaseState *c, VerdictState *v) noexcept nogil:
    """Decide from the records in the slots; what is to be written there goes into them too."""
    cdef int i
    c.settled = ERROR
    # Of what it came to before, with other records.
    v.waited = 0
    for i in range(c.size):
        c.slots[i].after = 0
    if not case_known(c, v):
        case_pending(c, v)
    # A record that is refreshed again within the second is what it was.
    for i in range(c.size):
        if c.dry or c.slots[i].after == c.slots[i].record:
            c.slots[i].after = 0
