# What is asked of fastgrey serve, and what it answers: lines NAME=VALUE and an empty one at the end (docs/hooks.md). Whoever
# is in the group of the store may answer in its place, so an answer is read like what a stranger sent.

cdef enum:
    # Of a question and of an answer. A question holds an address of a client and three texts of a thousand bytes each.
    EXCHANGE_SIZE = 4096
    NUMBER_DIGITS = 13


cdef Span span_cut(Span *s, unsigned char at) noexcept nogil:
    """What comes before the first such byte, all where there is none. Both go from the front of s."""
    cdef size_t n = find(s.data, 0, s.size, at)
    cdef Span front = span(s.data, n)
    cdef size_t past = n + 1 if n < s.size else n
    s.data += past
    s.size -= past
    return front


cdef void question_line(Text *t, const char *name, Span value) noexcept nogil:
    text_add(t, name)
    text_char(t, c"=")
    text_span(t, value)
    text_char(t, c"\n")


cdef void question_write(Text *t, const Request *q) noexcept nogil:
    """Ask a request that normalise() took: no line end is in its addresses, and behind a % of the client anything may
    be. A name that is too long for any use, or has a line end, is none."""
    cdef Span client = q.client
    text_add(t, b"request=fastgrey\n")
    question_line(t, b"client_address", span_cut(&client, c"%"))
    if 0 < q.name.size <= NAME_MAX + 1 and not is_forbidden(q.name.data, q.name.size):
        question_line(t, b"client_name", q.name)
    question_line(t, b"sender", q.sender)
    question_line(t, b"recipient", q.recipient)
    if q.name_trusted >= 0:
        text_add(t, b"name_trusted=yes\n" if q.name_trusted else b"name_trusted=no\n")
    if q.now != q.clock:
        text_add(t, b"now=")
        text_number(t, q.now, 1)
        text_char(t, c"\n")
    if q.dry:
        text_add(t, b"dry_run=yes\n")
    text_char(t, c"\n")


cdef bint is_answer(Span a) noexcept nogil:
    """Printable lines, and at the end an empty one."""
    cdef size_t i
    if a.size < 2 or a.data[a.size - 1] != c"\n" or a.data[a.size - 2] != c"\n":
        return False
    for i in range(a.size):
        if a.data[i] != c"\n" and not 32 <= a.data[i] < 127:
            return False
    return True


cdef int64_t span_number(Span s) noexcept nogil:
    """A number in decimal, of seconds; -1 where it is none."""
    cdef int64_t value = 0
    cdef size_t i
    if not 0 < s.size <= NUMBER_DIGITS:
        return -1
    for i in range(s.size):
        if not is_digit(s.data[i]):
            return -1
        value = value * 10 + (s.data[i] - c"0")
    return value


cdef int64_t answer_number(Span s) noexcept nogil:
    """A number of seconds; -1 where it is none that a setting could have."""
    cdef int64_t value = span_number(s)
    return value if value <= SETTING_MAX else -1


cdef int hex_digit(unsigned char c) noexcept nogil:
    if is_digit(c):
        return c - c"0"
    return c - c"a" + 10 if c"a" <= c <= c"f" else -1


cdef bint answer_key(Span s, VerdictState *v) noexcept nogil:
    """The short key of a log line."""
    cdef int i, high, low
    if s.size != 2 * SHORT_KEY:
        return False
    memset(v.key, 0, KEY_SIZE)
    for i in range(SHORT_KEY):
        high = hex_digit(s.data[2 * i])
        low = hex_digit(s.data[2 * i + 1])
        if high < 0 or low < 0:
            return False
        v.key[i] = <unsigned char>(high << 4 | low)
    v.has_key = True
    return True


cdef bint can_be(int action, int reason) noexcept nogil:
    if reason == DENIED:
        return action == REJECT
    if reason == NEW or reason == EARLY:
        return action == DEFER
    return action == ACCEPT or action == DEFER and reason == ERROR


cdef bint answer_verdict(Span s, VerdictState *v) noexcept nogil:
    """ACTION REASON WAIT, one that a decision can have come to."""
    cdef Span action = span_cut(&s, c" "), reason = span_cut(&s, c" ")
    v.action = ACCEPT
    v.reason = RELAY
    while v.action < REJECT and not span_is(action, action_name(v.action)):
        v.action += 1
    while v.reason < DENIED and not span_is(reason, reason_name(v.reason)):
        v.reason += 1
    v.wait = answer_number(s)
    return (span_is(action, action_name(v.action)) and span_is(reason, reason_name(v.reason))
            and can_be(v.action, v.reason) and v.wait >= 0 and (v.wait == 0 or v.action == DEFER))


cdef bint answer_rule(Span s, VerdictState *v) noexcept nogil:
    """FILE:LINE, without blanks: it stands within a log line."""
    if not 0 < s.size < PLACE_SIZE or find(s.data, 0, s.size, c" ") < s.size:
        return False
    memcpy(v.rule, s.data, s.size)
    v.rule[s.size] = 0
    return True


cdef int answer_read(Span answer, VerdictState *v, Told *told) noexcept nogil:
    """Take what an answer says into v and told; -1 where it is none, and what they hold is then of no use.

    The verdict comes first. Lines of other names are passed over: a newer server may have more to say.
    """
    cdef Text cause = text_begin(told.cause, CAUSE_SIZE), notes = text_begin(told.notes, NOTES_SIZE)
    cdef Span line, name
    cdef bint first = True, good = is_answer(answer)
    while good and answer.size > 1:
        line = span_cut(&answer, c"\n")
        good = find(line.data, 0, line.size, c"=") < line.size
        name = span_cut(&line, c"=")
        if first or span_is(name, b"verdict"):
            good = good and first and span_is(name, b"verdict") and answer_verdict(line, v)
            first = False
        elif span_is(name, b"key"):
            good = good and answer_key(line, v)
        elif span_is(name, b"rule"):
            good = good and answer_rule(line, v)
        elif span_is(name, b"waited"):
            v.waited = answer_number(line)
            good = good and v.waited >= 0
        elif span_is(name, b"cause"):
            text_span(&cause, line)
        elif span_is(name, b"note"):
            text_add(&notes, b"; ")
            text_span(&notes, line)
    text_end(&cause)
    text_end(&notes)
    return 0 if good else -1
