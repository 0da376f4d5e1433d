# The decision, in its order; the first step that applies ends it.

cdef void defer(StoreState *s, VerdictState *v, int reason, int64_t wait) noexcept nogil:
    """Step 12: in learn mode a deferral is recorded just the same and accepted."""
    if s.head.settings.learn_mode:
        answer(v, ACCEPT, LEARN, 0)
    else:
        answer(v, DEFER, reason, wait)


cdef bint defers_on_error(StoreState *s) noexcept nogil:
    """The setting on_error, from where it can still be read."""
    if s.head.version:
        return s.head.settings.defer_on_error != 0
    return s.counters != NULL and s.counters.defer_on_error != 0


cdef void decide_error(StoreState *s, VerdictState *v, int fault) noexcept nogil:
    v.fault = fault
    v.error = s.error
    if defers_on_error(s):
        defer(s, v, ERROR, 0)
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


cdef int decide_known(StoreState *s, const Request *q, Envelope *e, VerdictState *v, bint *decided) noexcept nogil:
    """Steps 2 to 9, from one snapshot of the generation in force."""
    cdef MDB_txn *txn = NULL
    cdef Match m
    cdef int fault, found
    decided[0] = True
    fault = passed_read(s, &txn)
    if fault != NO_FAULT:
        return fault
    fault = normalise(q, &s.head, e)
    if fault != NO_FAULT:
        environment_read_end(&s.passed)
        return fault
    key_triplet(e, 0, s.head.secret, e.triplet)
    memcpy(v.key, e.triplet, KEY_SIZE)
    v.has_key = True

    fault = decide_policy(s, txn, q, e, v, decided)
    if fault != NO_FAULT or decided[0]:
        environment_read_end(&s.passed)
        return fault

    decided[0] = True
    found = known_match(s, txn, e, q.now, &m)
    environment_read_end(&s.passed)
    if found < 0:
        return CANNOT_READ
    if not found:
        decided[0] = False
        return NO_FAULT
    answer(v, ACCEPT, m.reason, 0)
    if elapsed(q.now, record_time(m.record)) >= s.head.settings.refresh and not q.dry:
        # A known sender passes, whether or not its record could be brought up to date.
        if refresh(s, &m, q.now) != NO_FAULT:
            v.notes |= NOT_REFRESHED
            v.error = s.error
            count(s, COUNT_NOT_REFRESHED)
    return NO_FAULT


cdef int decide_pending(StoreState *s, const Request *q, const Envelope *e, VerdictState *v) noexcept nogil:
    """Step 10."""
    cdef Pending p
    cdef int64_t age, delay = s.head.settings.delay
    cdef int fault, reason
    fault = pending_find(s, e, q.now, not q.dry, &p)
    if fault == NO_FAULT and p.first < 0 and not q.dry:
        fault = pending_record(s, e, q.now, &p, &v.notes)
    if fault != NO_FAULT:
        return fault
    if p.first >= 0:
        age = elapsed(q.now, p.first)
        if age < delay:
            defer(s, v, EARLY, delay - age)
            return NO_FAULT
        reason = RETRY
    elif pool_passes(s, &p, q.now):
        age = elapsed(q.now, p.pair_first)
        reason = POOL
    else:
        defer(s, v, NEW, delay)
        return NO_FAULT
    if not q.dry:
        fault = promote(s, e, q.now, p.first if p.first >= 0 else p.pair_first, &reason)
        if fault != NO_FAULT:
            return fault
    answer(v, ACCEPT, reason, 0)
    v.waited = age
    return NO_FAULT


cdef void decide(StoreState *s, const Request *q, VerdictState *v) noexcept nogil:
    """Decide one request. Faults end as reason error with the action that on_error names."""
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
    if not q.dry:
        count_verdict(s, v, q.clock)


