# The log line: action, reason, fault, error, notes, wait and the line of a rule in bytes, then a request, the path of
# the store, the name of the program and the file of a rule.

cdef void line_holds(const char *line, size_t size, size_t most) noexcept nogil:
    """One line of printable ASCII: nothing in it could forge another, or reach a terminal as a command."""
    cdef size_t k
    require(0 < size <= most, b"a line has a bound")
    require(line[size - 1] == c"\n", b"a line ends as one")
    for k in range(size - 1):
        require(32 <= line[k] < 127, b"a line is printable ASCII")


cdef void fuzz_log(Input *i) noexcept nogil:
    cdef StoreState *s = <StoreState *>own(sizeof(StoreState))
    cdef VerdictState *v = <VerdictState *>own(sizeof(VerdictState))
    cdef char *line = <char *>own(LINE_SIZE)
    cdef unsigned char key[KEY_SIZE]
    cdef PolicyHead head
    cdef PolicyRule rule
    cdef PolicyFile file
    cdef Policy p
    cdef Request q
    cdef Span path, name
    cdef Text t
    memset(s, 0, sizeof(StoreState))
    memset(v, 0, sizeof(VerdictState))
    memset(&head, 0, sizeof(head))
    memset(&rule, 0, sizeof(rule))
    v.action = take_byte(i) % 3
    v.reason = take_byte(i) % (DENIED + 1)
    v.fault = take_byte(i) % (BAD_POSTGREY_USAGE + 1)
    v.error = <int>take_number(i)
    v.notes = take_byte(i)
    v.wait = take_number(i) & TIME_MAX
    v.has_key = take_byte(i) & 1
    rule.line = <uint32_t>take_number(i)
    take_request(i, &q)
    path = take_field(i)
    memcpy(s.path, path.data, path.size if path.size < PATH_MAX_SIZE else PATH_MAX_SIZE - 1)
    s.part = b"passed"
    if v.fault == BAD_HOOK:
        s.part = take_string(i)
    name = take_rest(i)
    head.size = <uint32_t>name.size + 1
    head.rules = 1
    head.files = 1
    file.text = 0
    file.size = <uint32_t>name.size
    p.base = <unsigned char *>own(name.size + 1)
    memcpy(<void *>p.base, name.data, name.size)
    (<unsigned char *>p.base)[name.size] = 0
    p.head = &head
    p.rules = &rule
    p.files = &file
    memset(key, 0xFE, KEY_SIZE)
    memcpy(v.key, key, KEY_SIZE)
    if v.reason == DENIED:
        rule_place(&p, 1, v.rule)
    t = text_begin(line, LINE_SIZE)
    log_line(&t, s, &q, v)
    # As the executable does it.
    line[t.size - 1] = c"\n"
    line_holds(line, t.size, LINE_SIZE)
    t = text_begin(line, LINE_SIZE)
    log_decision(&t, s, &q, v, LOG_JSON | LOG_PRIORITY)
    line_holds(line, t.size, LINE_SIZE)
    require(line[t.size - 2] == c"}", b"JSON is whole")
