# The decision on records, wherever they are kept: which it looks at, what each of them says, and what is to be written.
# Nothing here reads or writes; whoever keeps records does that (known.pxi, pending.pxi, case.pxi).

cdef enum:
    # Records that steps 6 to 9 may look at; records that a promotion may write.
    KNOWN_STEPS = 6
    PROMOTION_STEPS = 6


# A known record that may let the request pass: from this count on, for that reason.
cdef struct Match:
    int reason
    int kind
    uint64_t least
    unsigned char key[KEY_SIZE]
    uint64_t record


# What step 10 goes by.
cdef struct Pending:
    # Earliest first-seen time of the request's keys, -1 where it is new.
    int64_t first
    # The pair, as it stands after this attempt; hops is 0 where pairs are not looked at.
    int64_t pair_first
    uint64_t hops


cdef inline bint has_domain(const Envelope *e) noexcept nogil:
    return e.sender.domain < e.sender.size


cdef inline bint makes_pairs(const Settings *settings, const Envelope *e) noexcept nogil:
    return settings.pool_hops > 0 and e.sender.size > 0


cdef bint known_wanted(const Head *head, const Envelope *e, int step, Match *m) noexcept nogil:
    """The record that steps 6 to 9 look at as their step-th, from 0; False where this request has none there."""
    cdef const Settings *settings = &head.settings
    # Of two and of two, the network's before the parent's.
    cdef int place = (step + 1) & 1
    m.least = 1
    if step == 0:
        m.kind = CLIENT
        m.reason = KNOWN_CLIENT
        m.least = <uint64_t>settings.allow_client_after
        if settings.allow_client_after <= 0:
            return False
        key_client(e, head.secret, m.key)
    elif step <= 2:
        m.kind = DOMAIN
        m.reason = KNOWN_DOMAIN
        m.least = <uint64_t>settings.allow_domain_after
        if settings.allow_domain_after <= 0 or not has_domain(e) or place >= e.places:
            return False
        key_domain(e, place, head.secret, m.key)
    elif step <= 4:
        m.kind = TRIPLET
        m.reason = KNOWN_TRIPLET
        if place >= e.places:
            return False
        if place == 0:
            memcpy(m.key, e.triplet, KEY_SIZE)
        else:
            key_triplet(e, place, head.secret, m.key)
    else:
        m.kind = PAIR
        m.reason = KNOWN_PAIR
        if not makes_pairs(settings, e):
            return False
        key_pair(e, head.secret, m.key)
    return True


cdef inline bint is_alive(const Settings *settings, uint64_t record, int64_t now) noexcept nogil:
    return record != 0 and elapsed(now, record_time(record)) <= settings.lifetime


cdef inline bint known_passes(const Settings *settings, const Match *m, int64_t now) noexcept nogil:
    return is_alive(settings, m.record, now) and record_count(m.record) >= m.least


cdef inline bint refresh_due(const Settings *settings, uint64_t record, int64_t now) noexcept nogil:
    return elapsed(now, record_time(record)) >= settings.refresh


cdef inline uint64_t refreshed(uint64_t record, int64_t now) noexcept nogil:
    return record_pack(later(now, record_time(record)), record_count(record))


cdef inline void pending_begin(Pending *p) noexcept nogil:
    p.first = -1
    p.hops = 0


cdef inline void waiting_seen(const Settings *settings, uint64_t record, int64_t now, Pending *p) noexcept nogil:
    """A pending record of the triplet, under either place. What is too late counts as absent."""
    cdef int64_t first = record_time(record)
    if elapsed(now, first) <= settings.retry_window and (p.first < 0 or first < p.first):
        p.first = first


cdef inline bint pair_goes_on(const Settings *settings, uint64_t record, int64_t now, Pending *p) noexcept nogil:
    """The pending record of the pair, 0 where there is none. Does this attempt add a hop to it, or begin anew?"""
    if record and elapsed(now, record_time(record)) <= settings.pool_window:
        p.pair_first = record_time(record)
        p.hops = record_count(record) + 1
        return True
    p.pair_first = now
    p.hops = 1
    return False


cdef inline bint pool_passes(const Settings *settings, const Pending *p, int64_t now) noexcept nogil:
    return (p.hops > 0 and <int64_t>p.hops >= settings.pool_hops
            and elapsed(now, p.pair_first) >= settings.delay)


cdef inline int settle(const Settings *settings, const Pending *p, int64_t now, int64_t *first) noexcept nogil:
    """Step 10: EARLY, RETRY, POOL or NEW, and the time that what it waited counts from."""
    first[0] = p.first if p.first >= 0 else p.pair_first
    if p.first >= 0:
        return EARLY if elapsed(now, p.first) < settings.delay else RETRY
    if pool_passes(settings, p, now):
        return POOL
    first[0] = now
    return NEW


cdef bint promotion_wanted(const Head *head, const Envelope *e, bint pool, int step, int *kind,
                           unsigned char *key) noexcept nogil:
    """Step 11: the record that a promotion makes known as its step-th, from 0; False where there is none."""
    cdef int place = step >> 1
    if step < 4:
        if place >= e.places:
            return False
        if step & 1:
            kind[0] = DOMAIN
            if not has_domain(e):
                return False
            key_domain(e, place, head.secret, key)
        else:
            kind[0] = TRIPLET
            key_triplet(e, place, head.secret, key)
    elif step == 4:
        kind[0] = CLIENT
        key_client(e, head.secret, key)
    else:
        kind[0] = PAIR
        if not pool:
            return False
        key_pair(e, head.secret, key)
    return True


cdef uint64_t promoted(const Settings *settings, uint64_t record, int64_t now) noexcept nogil:
    """A record seen now and with a promotion more. A dead one starts again at one."""
    return record_pack(later(now, record_time(record)),
                       record_count(record) + 1 if is_alive(settings, record, now) else 1)
