# Rules: deny, allow, opt-out and opt-in, by client, sender and recipient. What can be looked up comes first; patterns
# are tried only where that decided nothing.

cdef struct Subjects:
    # For patterns; a NUL follows each. The sender is as it was written, not reduced as for keys.
    Span text[SUBJECTS]
    # The rule that was found, index plus 1, by subject and action.
    uint32_t found[SUBJECTS][RULE_ACTIONS]
    Address sender
    unsigned char name[NAME_MAX + 1]
    unsigned char buffer[ADDRESS_MAX + 8]


cdef void take(const Policy *p, int kind, const unsigned char *text, size_t size, uint32_t *found) noexcept nogil:
    """Note the rules of an entry; what was found before, and is more specific, stays."""
    cdef bint whole = True
    cdef const PolicyEntry *entry = policy_entry(p, kind, text, size, &whole)
    cdef int action
    if entry == NULL:
        return
    for action in range(RULE_ACTIONS):
        if not whole:
            found[action] = RULE_DAMAGED
        elif found[action] == 0 and entry.rule[action] <= p.head.rules:
            found[action] = entry.rule[action]


cdef bint has_prefix(const Policy *p, const Client *client, int prefix) noexcept nogil:
    if client.family == 4:
        return (p.head.ipv4_prefixes >> prefix) & 1
    return (p.head.ipv6_prefixes[prefix >> 6] >> (prefix & 63)) & 1


cdef void take_networks(const Policy *p, const Client *client, uint32_t *found) noexcept nogil:
    """The longest network first."""
    cdef unsigned char text[17]
    cdef int kind = RULE_IPV4 if client.family == 4 else RULE_IPV6
    cdef int prefix = 8 * client.size if (p.head.kinds >> kind) & 1 else -1
    memcpy(text + 1, client.whole, client.size)
    while prefix >= 0:
        if has_prefix(p, client, prefix):
            text[0] = <unsigned char>prefix
            mask_address(text + 1, client.size, prefix)
            take(p, kind, text, client.size + 1, found)
        prefix -= 1


cdef void take_domains(const Policy *p, int kind, const unsigned char *name, size_t size,
                       uint32_t *found) noexcept nogil:
    """The name itself, then each domain above it."""
    cdef size_t i = 0
    if not (p.head.kinds >> kind) & 1:
        return
    while i < size:
        take(p, kind, name + i, size - i, found)
        i = find(name, i, size, c".") + 1


cdef void take_address(const Policy *p, int subject, const Address *a, unsigned char *buffer,
                       uint32_t *found) noexcept nogil:
    """The address, less one extension after another (RFC 5233), then its user anywhere, then its domains."""
    cdef int first = RULE_ADDRESS + RULE_KINDS_OF_ADDRESS * (subject - OF_SENDER)
    cdef size_t tail = a.size, local, end
    while tail > 0 and a.text[tail - 1] != c"@":
        tail -= 1
    local = tail - 1 if tail else a.size
    if not tail:
        tail = a.size
    end = local
    while end > 0:
        if tail < a.size:
            memcpy(buffer, a.text, end)
            buffer[end] = c"@"
            memcpy(buffer + end + 1, a.text + tail, a.size - tail)
            take(p, first, buffer, end + 1 + a.size - tail, found)
        take(p, first + 1, a.text, end, found)
        end -= 1
        while end > 0 and a.text[end] != c"+":
            end -= 1
    take_domains(p, first + 2, a.text + tail, a.size - tail, found)


cdef int rules_scan(const Policy *p, const Request *q, Envelope *e, Subjects *u) noexcept nogil:
    """Look up everything that can be looked up."""
    cdef uint32_t lists = p.head.lists
    cdef size_t n = q.name.size, i
    memset(u.found, 0, sizeof(u.found))
    # A damaged policy may have patterns of subjects that its lists do not name.
    memset(u.text, 0, sizeof(u.text))
    if lists & LISTS_OF_CLIENTS:
        take_networks(p, &e.client, u.found[OF_CLIENT])
        if n and q.name.data[n - 1] == c".":
            n -= 1
        if e.name_trusted and 0 < n <= NAME_MAX:
            for i in range(n):
                u.name[i] = lower(q.name.data[i])
            u.name[n] = 0
            u.text[OF_CLIENT] = span(u.name, n)
            take_domains(p, RULE_NAME, u.name, n, u.found[OF_CLIENT])
    if lists & LISTS_OF_SENDERS:
        if normalise_address(q.sender, False, &u.sender) != 0:
            return BAD_SENDER
        u.sender.text[u.sender.size] = 0
        u.text[OF_SENDER] = span(u.sender.text, u.sender.size)
        take_address(p, OF_SENDER, &u.sender, u.buffer, u.found[OF_SENDER])
    if lists & LISTS_OF_RECIPIENTS:
        e.recipient.text[e.recipient.size] = 0
        u.text[OF_RECIPIENT] = span(e.recipient.text, e.recipient.size)
        take_address(p, OF_RECIPIENT, &e.recipient, u.buffer, u.found[OF_RECIPIENT])
    return NO_FAULT


cdef int rules_match(StoreState *s, const Policy *p, const Subjects *u, int action, VerdictState *v,
                     uint32_t *rule) noexcept nogil:
    """Set rule to the rule of this action that matches, index plus 1, or to 0."""
    cdef const PolicyPattern *pattern
    cdef Span text
    cdef uint32_t i
    cdef int subject, matches
    for subject in range(SUBJECTS):
        rule[0] = u.found[subject][action]
        if rule[0] == RULE_DAMAGED:
            return fail(s, DAMAGED, 0)
        if rule[0]:
            return NO_FAULT
    for i in range(p.head.patterns):
        pattern = &p.patterns[i]
        if pattern.action != action or pattern.subject >= SUBJECTS:
            continue
        text = u.text[pattern.subject]
        # Without a trusted name the client has none.
        if text.data == NULL:
            continue
        if not pattern.is_regex:
            matches = glob_match(policy_text(p, pattern.text, pattern.size), text)
        elif not contains(text, policy_text(p, pattern.literal, pattern.literal_size)):
            matches = False
        else:
            # Where it takes too long, the log line names it.
            rule_place(p, pattern.rule, v.rule)
            matches = regex_match(s, p, i, <const char *>text.data)
            if matches < 0:
                return fail(s, RULE_FAILED, s.error)
            v.rule[0] = 0
        if matches and not pattern_whole(p, pattern):
            return fail(s, DAMAGED, 0)
        if matches:
            rule[0] = pattern.rule
            return NO_FAULT
    return NO_FAULT


cdef void rules_end(StoreState *s, const Request *q, const Policy *p, uint32_t rule, VerdictState *v) noexcept nogil:
    v.rule_number = rule
    rule_place(p, rule, v.rule)
    if not q.dry:
        count_hit(s, p.head.number, rule)


cdef int rules_decide(StoreState *s, MDB_txn *txn, const Request *q, Envelope *e, VerdictState *v,
                      bint *decided) noexcept nogil:
    """Steps 2 to 4, where there are rules."""
    cdef Policy p
    cdef Subjects u
    cdef uint32_t rule = 0
    cdef bint null_allowed = s.head.settings.null_sender_accept != 0 and e.sender.size == 0
    cdef int fault = policy_find(s, txn, &p)
    decided[0] = True
    if fault == NO_FAULT:
        fault = rules_scan(&p, q, e, &u)
    if fault == NO_FAULT:
        fault = rules_match(s, &p, &u, DENY, v, &rule)
    if fault != NO_FAULT:
        return fault
    if rule:
        answer(v, REJECT, DENIED, 0)
        rules_end(s, q, &p, rule, v)
        return NO_FAULT
    fault = rules_match(s, &p, &u, ALLOW, v, &rule)
    if fault != NO_FAULT:
        return fault
    if rule or null_allowed:
        answer(v, ACCEPT, ALLOWED, 0)
        rules_end(s, q, &p, rule, v)
        return NO_FAULT
    fault = rules_match(s, &p, &u, OPT_OUT, v, &rule)
    if fault == NO_FAULT and not rule:
        decided[0] = False
        if p.head.lists & LIST_OPT_IN:
            fault = rules_match(s, &p, &u, OPT_IN, v, &rule)
            decided[0] = rule == 0
            rule = 0
    if fault == NO_FAULT and decided[0]:
        answer(v, ACCEPT, OPTED_OUT, 0)
        rules_end(s, q, &p, rule, v)
    return fault
