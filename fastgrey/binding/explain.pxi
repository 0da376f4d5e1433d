# What a decision finds: every record that a request touches, read and not written.

PLACE_NAMES = ("network", "name parent")


cdef list known_all(Store store, MDB_txn *txn, list keys):
    """Every known record that steps 6 to 9 may look at."""
    cdef uint64_t record
    cdef bytes key
    found = []
    for kind, place, key in keys:
        if kind == "waiting":
            continue
        rc = known_get(&store.state, txn, KIND_NAMES.index(kind), <unsigned char *><char *>key, &record)
        if rc != 0:
            store._raise(fail(&store.state, CANNOT_READ, rc))
        found.append({"kind": kind, "place": PLACE_NAMES[place], "key": key.hex(),
                      "last": record_time(record) if record else None, "count": record_count(record)})
    return found


cdef dict normalised_facts(const Envelope *e):
    return {
        "family": e.client.family, "exact": e.client.exact[:e.client.size], "network": e.client.network[:e.client.size],
        "prefix": e.client.prefix, "name_trusted": bool(e.name_trusted), "parent": e.parent[:e.parent_size],
        "sender": e.sender.text[:e.sender.size], "domain": e.sender.text[e.sender.domain:e.sender.size],
        "recipient": e.recipient.text[:e.recipient.size],
    }


cdef dict waiting_facts(Store store, list keys, int64_t now):
    """What step 10 finds: first-seen times by place, and the pair."""
    cdef StoreState *s = &store.state
    cdef MDB_txn *txn = NULL
    cdef Partitions parts
    cdef Sighting seen
    cdef bytes key
    cdef int rc
    facts = {"triplets": [], "pair": None}
    store._raise(pending_open(s, False))
    if s.pending.env == NULL:
        return facts
    rc = environment_read(&s.pending, &txn)
    if rc == 0:
        rc = partitions_list(s, txn, now, pending_horizon(s), &parts)
        for kind, place, key in keys:
            if rc != 0 or kind not in ("waiting", "pair"):
                continue
            rc = sight(txn, &parts, <unsigned char *><char *>key, &seen)
            if rc != 0 or seen.where < 0:
                continue
            if kind == "pair":
                facts["pair"] = {"first": record_time(seen.record), "hops": record_count(seen.record)}
            else:
                facts["triplets"].append({"place": PLACE_NAMES[place], "first": record_time(seen.record)})
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
            keys = determined_keys(&e, store.state.head.secret, True, True, True)
            facts["known"] = known_all(store, txn, keys)
            found = window_open(&store.state, txn, &e, q.now, name, &w)
            if found < 0:
                store._raise(CANNOT_READ)
            facts["window"] = window_facts(name, &w) if found else None
        finally:
            environment_read_end(&store.state.passed)
        facts["waiting"] = waiting_facts(store, keys, q.now)
        return facts
