# Rules: a byte of how, a request, and the record of a policy, as damaged as may be. It lies in a block of its own size,
# so that a look outside of it is seen.

cdef enum:
    # Of how: a record that would be refused at the first look is made to pass it.
    HOW_FITTING = 1
    HOW_TRUSTED = 2
    PATTERN_MAX = 80


cdef bint is_tame(const Policy *p) noexcept nogil:
    """Would the expressions be let through? What regcomp does with others (take minutes, or all memory) is not the
    core's to find: apply refuses them, and the hook bounds its time."""
    cdef Span text
    cdef size_t k
    cdef uint32_t i
    cdef int repeats, groups
    for i in range(p.head.patterns):
        if not p.patterns[i].is_regex:
            continue
        text = policy_text(p, p.patterns[i].text, p.patterns[i].size)
        repeats = 0
        groups = 0
        if text.size > PATTERN_MAX:
            return False
        for k in range(text.size):
            repeats += text.data[k] == c"*" or text.data[k] == c"+"
            groups += text.data[k] == c"("
            if text.data[k] == c"{" or text.data[k] == c"\\" and is_digit(text.data[k + 1]):
                return False
        if repeats > 3 or groups > 3:
            return False
    return True


cdef void texts_hold(const Policy *p) noexcept nogil:
    """What is handed to the C library ends where it says."""
    cdef Span text
    cdef uint32_t i
    for i in range(p.head.patterns):
        text = policy_text(p, p.patterns[i].text, p.patterns[i].size)
        require(text.data[text.size] == 0, b"a NUL follows the text of a pattern")


cdef void fit_sums(const Policy *p) noexcept nogil:
    """Give entries and patterns the checksums that they should have, so that what is damaged is looked at."""
    cdef PolicyEntry *entry
    cdef PolicyPattern *pattern
    cdef Span text
    cdef uint32_t i
    for i in range(p.head.entries):
        entry = <PolicyEntry *>&p.entries[i]
        text = policy_text(p, entry.text, entry.size)
        entry.sum = entry_sum(entry_hash(entry.kind, text.data, text.size), <const void *>entry.rule)
    for i in range(p.head.patterns):
        pattern = <PolicyPattern *>&p.patterns[i]
        pattern.sum = pattern_sum(pattern, policy_text(p, pattern.text, pattern.size),
                                  policy_text(p, pattern.literal, pattern.literal_size))


cdef void fuzz_policy(Input *i) noexcept nogil:
    cdef unsigned char how = take_byte(i)
    cdef StoreState *s = <StoreState *>own(sizeof(StoreState))
    cdef Envelope *e = <Envelope *>own(sizeof(Envelope))
    cdef Subjects *u = <Subjects *>own(sizeof(Subjects))
    cdef VerdictState *v = <VerdictState *>own(sizeof(VerdictState))
    cdef char *place = <char *>own(PLACE_SIZE)
    cdef PolicyHead *head
    cdef Policy p
    cdef Request q
    cdef MDB_val value
    cdef Span record
    cdef uint32_t rule
    cdef int action, fault
    memset(s, 0, sizeof(StoreState))
    memset(v, 0, sizeof(VerdictState))
    fill_head(&s.head)
    take_request(i, &q)
    q.name_trusted = how & HOW_TRUSTED
    record = take_rest(i)
    if how & HOW_FITTING and record.size >= sizeof(PolicyHead):
        head = <PolicyHead *>record.data
        memcpy(head.magic, b"fgpolicy", 8)
        head.version = POLICY_VERSION
        head.size = <uint32_t>record.size
    value.mv_data = <void *>record.data
    value.mv_size = record.size
    if policy_view(&p, &value) != 0 or normalise(&q, &s.head, e) != NO_FAULT:
        return
    if how & HOW_FITTING:
        fit_sums(&p)
    texts_hold(&p)
    if rules_scan(&p, &q, e, u) != NO_FAULT or not is_tame(&p):
        return
    for action in range(RULE_ACTIONS):
        fault = rules_match(s, &p, u, action, v, &rule)
        require(fault == NO_FAULT or fault == RULE_FAILED or fault == DAMAGED,
                b"a rule matches, or not, or cannot be tried, or is damaged")
        rule_place(&p, rule, place)
        require(strlen(place) < PLACE_SIZE, b"the place of a rule fits")
    regexes_forget(&s.regexes)
