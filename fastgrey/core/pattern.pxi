# Globs and regular expressions: the rules that have to be tried one by one.

cdef bint glob_match(Span pattern, Span text) noexcept nogil:
    """Does the whole text match, where * stands for any run of bytes? At most size times size steps: only the last
    star is ever tried again."""
    cdef size_t p = 0, t = 0, star = pattern.size, mark = 0
    while t < text.size:
        if p < pattern.size and pattern.data[p] == c"*":
            star = p
            mark = t
            p += 1
        elif p < pattern.size and pattern.data[p] == text.data[t]:
            p += 1
            t += 1
        elif star < pattern.size:
            p = star + 1
            mark += 1
            t = mark
        else:
            return False
    while p < pattern.size and pattern.data[p] == c"*":
        p += 1
    return p == pattern.size


cdef bint contains(Span text, Span part) noexcept nogil:
    cdef size_t i
    if part.size > text.size:
        return False
    for i in range(text.size - part.size + 1):
        if memcmp(text.data + i, part.data, part.size) == 0:
            return True
    return False


cdef void regex_clock(long microseconds) noexcept nogil:
    """Start the clock of the time that the processor may spend from here on."""
    cdef itimerval timer
    memset(&timer, 0, sizeof(timer))
    timer.it_value.tv_usec = microseconds
    setitimer(ITIMER_PROF, &timer, NULL)


cdef int regex_match(StoreState *s, const Policy *p, uint32_t i, const char *text) noexcept nogil:
    """1 where pattern i matches the text, 0 where not, -1 where it cannot be tried.

    What could take long is refused when a policy is applied. The clock, one for all expressions, is for many that
    take their time, and for what nobody thought of.
    """
    cdef Span pattern = policy_text(p, p.patterns[i].text, p.patterns[i].size)
    cdef Regexes *r = &s.regexes
    cdef int rc = regexes_prepare(r, p.head.number, p.head.applied, p.head.patterns)
    if s.regex_bound:
        regex_clock(s.regex_bound)
        s.regex_bound = 0
    if rc == 0 and not r.ready[i]:
        rc = regcomp(&r.items[i], <const char *>pattern.data, REG_EXTENDED | REG_ICASE | REG_NOSUB)
        r.ready[i] = rc == 0
        # The codes of regcomp are no errno; what passed the check of apply can only lack memory here.
        rc = ENOMEM if rc != 0 else 0
    if rc == 0:
        rc = -2 if regexec(&r.items[i], text, 0, NULL, 0) != 0 else 0
    if rc == 0 or rc == -2:
        return rc == 0
    s.error = rc
    return -1
