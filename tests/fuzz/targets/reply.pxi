# What some hooks say: hook, action and reason in bytes, a number of seconds, a sender, and variables, each up to a NUL.

cdef void said_holds(const char *said, size_t size, int hook) noexcept nogil:
    """A line at most, of which the mail server makes one reply or one command."""
    if size == 0:
        return
    line_holds(said, size, REPLY_MAX + 4)
    if hook == SPP:
        require(said[0] == c"E" or said[0] == c"H" or said[0] == c"L" and said[1] == c"D",
                b"no command but a reply, one after DATA, or a header field")
    else:
        require(memcmp(said, b"450 4.7.1 ", 10) == 0 or memcmp(said, b"553 5.7.1 ", 10) == 0, b"a reply has its codes")


cdef void status_holds(Caller *c, int action) noexcept nogil:
    """Of every hook: what accepts leaves with 0, and 0 is left with by what defers only where a note says so."""
    cdef int status
    for c.hook in range(NO_HOOK):
        status = exit_status(c, action)
        require(status == EXIT_ACCEPT or status == EXIT_GREYLISTED or status == EXIT_REJECT
                or status == EXIT_ENVELOPE_DEFER or status == EXIT_DEFER, b"a status of the field")
        require(action != ACCEPT or status == 0, b"what accepts is accepted")
        require(status != 0 or action == ACCEPT or c.told or untold(c, action) != NO_NOTE, b"nothing is lost unsaid")


cdef void fuzz_reply(Input *i) noexcept nogil:
    cdef int hook = RCPTCHECK + take_byte(i) % 3, count = 0
    cdef VerdictState *v = <VerdictState *>own(sizeof(VerdictState))
    cdef char *said = <char *>own(SAID_SIZE)
    cdef char **variables = <char **>own((VARIABLES_MAX + 1) * sizeof(char *))
    cdef char **before
    cdef Caller c
    cdef Request q
    cdef Text t = text_begin(said, SAID_SIZE)
    memset(v, 0, sizeof(VerdictState))
    memset(&c, 0, sizeof(c))
    memset(&q, 0, sizeof(q))
    v.action = take_byte(i) % 3
    v.reason = take_byte(i) % (DENIED + 1)
    v.waited = take_number(i) & TIME_MAX
    q.sender = take_field(i)
    while i.size and count < VARIABLES_MAX:
        variables[count] = take_string(i)
        count += 1
    variables[count] = NULL
    c.hook = hook
    c.channel = -1
    c.cuts = v.reason & 2
    before = swap_environment(variables)
    if hook == SPP:
        spp_commands(&t, &q, v)
    elif v.action != ACCEPT:
        reply(&t, v.action, b"450")
        text_char(&t, c"\n")
    say(&c, &q, v)
    swap_environment(before)
    said_holds(said, t.size, hook)
    require(c.said and not c.told, b"what has no channel is not told")
    c.told = v.reason & 1
    status_holds(&c, v.action)
