# The decision, in its order; the first step that applies ends it.

cdef void defer(const Settings *settings, VerdictState *v, int reason, int64_t wait) noexcept nogil:
    """Step 12: in learn mode a deferral is recorded just the same and accepted."""
    if settings.learn_mode:
        answer(v, ACCEPT, LEARN, 0)
    else:
        answer(v, DEFER, reason, wait)


cdef void answer_stranger(const Settings *settings, VerdictState *v, int reason, int64_t now,
                          int64_t first) noexcept nogil:
    """EARLY or NEW: what is left of the delay."""
    defer(settings, v, reason, settings.delay - elapsed(now, first))


cdef bint defers_on_error(StoreState *s) noexcept nogil:
    """The setting on_error, from where it can still be read."""
    if s.head.version:
        return s.head.settings.defer_on_error != 0
    return s.counters != NULL and s.counters.defer_on_error != 0


cdef void decide_error(StoreState *s, VerdictState *v, int fault) noexcept nogil:
    v.fault = fault
    v.error = s.error
    if defers_on_error(s):
        defer(&s.head.settings, v, ERROR, 0)
    else:
        answer(v, ACCEPT, ERROR, 0)


cdef int decide_policy(StoreState *s, MDB_txn *txn, const Request *q, Envelope *e, VerdictState *v,
                       bint *decided) noexcept nogil:
    """Steps 2 to 5. What there is none of costs a look at the head."""
    cdef unsigned char name[WINDOW_NAME_SIZE]
    cdef Window w
    cdef int fault, found
    decided[0] = False
    if s.head.rules:
        fault = rules_decide(s, txn, q, e, v, decided)
        if fault != NO_FAULT or decided[0]:
            return fault
    elif s.head.settings.null_sender_accept and e.sender.size == 0:
        decided[0] = True
        answer(v, ACCEPT, ALLOWED, 0)
        return NO_FAULT
    if q.now <= s.head.windows_until:
        found = window_open(s, txn, e, q.now, name, &w)
        if found < 0:
            return CANNOT_READ
        if found:
            decided[0] = True
            answer(v, ACCEPT, EXPECTED, 0)
    return NO_FAULT


cdef int decide_begin(StoreState *s, const Request *q, Envelope *e, VerdictState *v, MDB_txn **txn,
                      bint *decided) noexcept nogil:
    """Steps 2 to 5. The snapshot that they read stays open for more, but after a fault."""
    cdef int fault = passed_read(s, txn)
    decided[0] = True
    if fault != NO_FAULT:
        return fault
    fault = normalise(q, &s.head, e)
    if fault == NO_FAULT:
        key_triplet(e, 0, s.head.secret, e.triplet)
        memcpy(v.key, e.triplet, KEY_SIZE)
        v.has_key = True
        fault = decide_policy(s, txn[0], q, e, v, decided)
    if fault != NO_FAULT:
        environment_read_end(&s.passed)
    return fault


cdef int decide_known(StoreState *s, const Request *q, Envelope *e, VerdictState *v, bint *decided) noexcept nogil:
    """Steps 2 to 9, from one snapshot of the generation in force; all from 6 on where fastgrey serve is asked."""
    cdef MDB_txn *txn = NULL
    cdef Match m
    cdef int found = 0, fault = decide_begin(s, q, e, v, &txn, decided)
    if fault != NO_FAULT:
        return fault
    if not decided[0] and s.told != NULL and s.head.settings.shared:
        # Nothing is kept from being used anew while somebody else is waited for.
        environment_read_end(&s.passed)
        decided[0] = True
        return ask(s, q, v)
    if not decided[0]:
        found = known_match(s, txn, e, q.now, &m)
    environment_read_end(&s.passed)
    if found < 0:
        return CANNOT_READ
    if not found:
        return NO_FAULT
    decided[0] = True
    answer(v, ACCEPT, m.reason, 0)
    if refresh_due(&s.head.settings, m.record, q.now) and not q.dry:
        if q.quick:
            v.left = REFRESH_LEFT
            return NO_FAULT
        # A known sender passes, whether or not its record could be brought up to date.
        if refresh(s, &m, q.now) != NO_FAULT:
            v.notes |= NOT_REFRESHED
            v.error = s.error
            count(s, COUNT_NOT_REFRESHED)
    return NO_FAULT


cdef int decide_pending(StoreState *s, const Request *q, const Envelope *e, VerdictState *v) noexcept nogil:
    """Step 10."""
    cdef Pending p
    cdef int64_t first
    cdef int fault, reason
    fault = pending_find(s, e, q.now, not q.dry, &p)
    if fault == NO_FAULT and p.first < 0 and not q.dry:
        if q.quick and pool_passes(&s.head.settings, &p, q.now):
            # Before the pair gets its hop: whoever promotes adds it.
            v.left = PROMOTION_LEFT
            return NO_FAULT
        fault = pending_record(s, e, q.now, &p, &v.notes)
    if fault != NO_FAULT:
        return fault
    reason = settle(&s.head.settings, &p, q.now, &first)
    if reason == EARLY or reason == NEW:
        answer_stranger(&s.head.settings, v, reason, q.now, first)
        return NO_FAULT
    if q.quick and not q.dry:
        v.left = PROMOTION_LEFT
        return NO_FAULT
    if not q.dry:
        fault = promote(s, e, q.now, first, &reason)
        if fault != NO_FAULT:
            return fault
    answer(v, ACCEPT, reason, 0)
    v.waited = elapsed(q.now, first)
    return NO_FAULT


cdef void decide(StoreState *s, const Request *q, VerdictState *v) noexcept nogil:
    """Decide one request, or have it decided by fastgrey serve. Faults end as reason error with the action that on_error
    names."""
    cdef Envelope e
    cdef bint decided = True
    cdef int fault = NO_FAULT
    # Of the text of a rule the first byte will do.
    memset(v, 0, sizeof(VerdictState) - PLACE_SIZE)
    v.rule[0] = 0
    s.error = 0
    if q.relay:
        answer(v, ACCEPT, RELAY, 0)
    else:
        fault = decide_known(s, q, &e, v, &decided)
        if fault == NO_FAULT and not decided:
            fault = decide_pending(s, q, &e, v)
    if fault != NO_FAULT:
        decide_error(s, v, fault)
    if not q.dry and v.left != PROMOTION_LEFT and v.told == NULL:
        count_verdict(s, v, q.clock)


