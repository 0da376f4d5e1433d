# What a hook and fastgrey serve say to each other: `q` a request, which becomes a question; anything else begins an answer.

cdef int lines_of(const char *text, size_t size) noexcept nogil:
    """Lines of an exchange; each has a name, and the last one is empty."""
    cdef size_t start = 0, end
    cdef int lines = 0
    while start < size:
        end = find(<const unsigned char *>text, start, size, c"\n")
        require(end < size, b"a line ends")
        if end == start:
            require(end + 1 == size, b"an empty line is the last one")
        else:
            require(find(<const unsigned char *>text, start, end, c"=") < end, b"a line has a name")
            lines += 1
        start = end + 1
    return lines


cdef void fuzz_question(Input *i) noexcept nogil:
    cdef unsigned char how = take_byte(i)
    cdef Envelope *e = <Envelope *>own(sizeof(Envelope))
    cdef char *text = <char *>own(EXCHANGE_SIZE)
    cdef Text t = text_begin(text, EXCHANGE_SIZE)
    cdef bint named
    cdef Head head
    cdef Request q
    take_request(i, &q)
    fill_head(&head)
    q.clock = q.now if how & 1 else 0
    q.dry = how & 2
    q.name_trusted = how % 3 - 1
    if normalise(&q, &head, e) != NO_FAULT:
        return
    question_write(&t, &q)
    named = 0 < q.name.size <= NAME_MAX + 1 and not is_forbidden(q.name.data, q.name.size)
    require(t.size < EXCHANGE_SIZE - 1, b"a question has room")
    require(lines_of(text, t.size) == 4 + named + (q.name_trusted >= 0) + (q.now != q.clock) + (q.dry != 0),
            b"no text of a question ends its line")


cdef void printable_holds(const char *text, size_t most) noexcept nogil:
    cdef size_t k, size = strlen(text)
    require(size < most, b"a text ends within its room")
    for k in range(size):
        require(32 <= text[k] < 127, b"a text is printable ASCII")


cdef void fuzz_answer(Input *i) noexcept nogil:
    cdef StoreState *s = <StoreState *>own(sizeof(StoreState))
    cdef VerdictState *v = <VerdictState *>own(sizeof(VerdictState))
    cdef Told *told = <Told *>own(sizeof(Told))
    cdef char *line = <char *>own(LINE_SIZE)
    cdef Text t = text_begin(line, LINE_SIZE)
    cdef Span said = take_rest(i)
    cdef Request q
    memset(s, 0, sizeof(StoreState))
    memset(v, 0, sizeof(VerdictState))
    memset(&q, 0, sizeof(q))
    if answer_read(said, v, told) != 0:
        return
    lines_of(<const char *>said.data, said.size)
    require(0 <= verdict_way(v.action, v.reason) < WAY_COUNT, b"a verdict is one that can be counted")
    require((v.action == REJECT) == (v.reason == DENIED), b"what is denied is rejected, and nothing else")
    require(v.action != ACCEPT or v.reason <= ERROR, b"what accepts has its reasons")
    require(0 <= v.wait <= SETTING_MAX and 0 <= v.waited <= SETTING_MAX, b"seconds are within their bounds")
    require(v.wait == 0 or v.action == DEFER, b"what waits is deferred")
    printable_holds(v.rule, PLACE_SIZE)
    require(find(<const unsigned char *>v.rule, 0, strlen(v.rule), c" ") == strlen(v.rule), b"a rule is one word")
    printable_holds(told.cause, CAUSE_SIZE)
    printable_holds(told.notes, NOTES_SIZE)
    v.told = told
    log_line(&t, s, &q, v)
    line[t.size - 1] = c"\n"
    line_holds(line, t.size, LINE_SIZE)


cdef void fuzz_exchange(Input *i) noexcept nogil:
    if i.size and i.data[0] == c"q":
        take_byte(i)
        fuzz_question(i)
    else:
        fuzz_answer(i)
