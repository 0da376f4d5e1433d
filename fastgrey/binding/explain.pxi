# What a decision finds: every record that a request touches, read and not written.

cdef dict known_facts(StoreState *s, MDB_txn *txn, int kind, int place, unsigned char *key):
    cdef uint64_t record
    if known_get(s, txn, kind, key, &record) != 0:
        record = 0
    return {"kind": kind_name(kind).decode(), "place": ("network", "name parent")[place], "key": key[:KEY_SIZE].hex(),
            "last": record_time(record) if record else None, "count": record_count(record)}


cdef list known_all(StoreState *s, MDB_txn *txn, const Envelope *e):
    """Every known record that steps 6 to 9 may look at."""
    cdef unsigned char key[KEY_SIZE]
    cdef const unsigned char *secret = s.head.secret
    key_client(e, secret, key)
    found = [known_facts(s, txn, CLIENT, 0, key)]
    for place in range(e.places):
        if e.sender.domain < e.sender.size:
            key_domain(e, place, secret, key)
            found.append(known_facts(s, txn, DOMAIN, place, key))
    for place in range(e.places):
        key_triplet(e, place, secret, key)
        found.append(known_facts(s, txn, TRIPLET, place, key))
    if e.sender.size:
        key_pair(e, secret, key)
        found.append(known_facts(s, txn, PAIR, 0, key))
    return found


cdef dict normalised_facts(const Envelope *e):
    return {
        "family": e.client.family, "exact": e.client.exact[:e.client.size], "network": e.client.network[:e.client.size],
        "prefix": e.client.prefix, "name_trusted": bool(e.name_trusted), "parent": e.parent[:e.parent_size],
        "sender": e.sender.text[:e.sender.size], "domain": e.sender.text[e.sender.domain:e.sender.size],
        "recipient": e.recipient.text[:e.recipient.size],
    }


cdef dict waiting_facts(Store store, const Envelope *e, int64_t now):
    """What step 10 finds: first-seen times by place, and the pair."""
    cdef StoreState *s = &store.state
    cdef MDB_txn *txn = NULL
    cdef unsigned char key[KEY_SIZE]
    cdef Partitions parts
    cdef Sighting seen
    cdef int rc
    facts = {"triplets": [], "pair": None}
    store._raise(pending_open(s, False))
    if s.pending.env == NULL:
        return facts
    rc = environment_read(&s.pending, &txn)
    if rc == 0:
        rc = partitions_list(s, txn, now, pending_horizon(s), &parts)
        for place in range(e.places):
            key_waiting(e, place, s.head.secret, key)
            if rc == 0:
                rc = sight(txn, &parts, key, &seen)
            if rc == 0 and seen.where >= 0:
                facts["triplets"].append({"place": ("network", "name parent")[place],
                                          "first": record_time(seen.record)})
        key_pair(e, s.head.secret, key)
        if rc == 0 and e.sender.size:
            rc = sight(txn, &parts, key, &seen)
            if rc == 0 and seen.where >= 0:
                facts["pair"] = {"first": record_time(seen.record), "hops": record_count(seen.record)}
        environment_read_end(&s.pending)
    if rc != 0:
        environment_close(&s.pending)
        store._raise(fail(s, CANNOT_READ, rc))
    return facts


def explain(Store store, *, client, sender, recipient, client_name=None, name_trusted=None, now=None) -> dict:
    """Decide without writing, and give all that the decision looks at.

    Arguments as for Store.check. The verdict stands under 'verdict', the number of the rule that decided (from 1, 0 for
    none) under 'rule', that of its policy under 'policy'; where the request cannot be normalised there is nothing else.
    Times are Unix seconds.
    """
    cdef Request q
    cdef VerdictState v
    cdef Envelope e
    cdef MDB_txn *txn = NULL
    cdef unsigned char name[WINDOW_NAME_SIZE]
    cdef Window w
    cdef tuple parts = request_parts(client, sender, recipient, client_name)
    store._usable()
    request_fill(&q, parts, name_trusted, now)
    q.dry = True
    with store.lock:
        store._decide(&q, &v)
        facts = {
            "now": q.now,
            "verdict": {"action": ACTION_NAMES[v.action], "reason": REASON_NAMES[v.reason], "wait": v.wait,
                        "cause": cause_text(&store.state, v.fault, v.error) if v.fault != NO_FAULT else None},
            "rule": v.rule_number,
            "policy": store.state.head.policy,
        }
        if v.fault != NO_FAULT:
            return facts
        store._raise(passed_read(&store.state, &txn))
        try:
            normalise(&q, &store.state.head, &e)
            facts["key"] = v.key[:KEY_SIZE].hex()
            facts["normalised"] = normalised_facts(&e)
            facts["known"] = known_all(&store.state, txn, &e)
            facts["window"] = None
            if window_open(&store.state, txn, &e, q.now, name, &w) == 1:
                facts["window"] = window_facts(name, &w)
        finally:
            environment_read_end(&store.state.passed)
        facts["waiting"] = waiting_facts(store, &e, q.now)
        return facts
