# The log line as JSON: the facts of the line of text under their names. What mail brought is escaped as there, so a
# line is printable ASCII whatever comes.

cdef enum LogForm:
    LOG_JSON = 1
    # What the line is for systemd's journal stands before it (sd-daemon(3)), and the journal takes it off.
    LOG_PRIORITY = 2

cdef enum:
    # Where the line would be too long, addresses and paths are shown up to here only.
    SHOWN_LEAST = 100


cdef void json_string(Text *t, const Text *raw) noexcept nogil:
    """Printable ASCII as a string."""
    cdef size_t i
    text_char(t, c'"')
    for i in range(raw.size):
        if raw.data[i] == c'"' or raw.data[i] == c"\\":
            text_char(t, c"\\")
        text_char(t, raw.data[i])
    text_char(t, c'"')


cdef void json_name(Text *t, const char *name) noexcept nogil:
    text_add(t, b', "')
    text_add(t, name)
    text_add(t, b'": ')


cdef void json_address(Text *t, const char *name, Span s, size_t limit) noexcept nogil:
    cdef char shown[4 * SHOWN_ADDRESS + 4]
    cdef Text raw = text_begin(shown, sizeof(shown))
    text_escaped(&raw, s, limit)
    json_name(t, name)
    json_string(t, &raw)


cdef void json_begin(Text *t, const char *level, const char *event) noexcept nogil:
    """The time, how bad it is and what it is."""
    cdef timespec now
    cdef tm date
    clock_gettime(CLOCK_REALTIME, &now)
    gmtime_r(&now.tv_sec, &date)
    text_add(t, b'{"time": "')
    text_number(t, date.tm_year + 1900, 4)
    text_char(t, c"-")
    text_number(t, date.tm_mon + 1, 2)
    text_char(t, c"-")
    text_number(t, date.tm_mday, 2)
    text_char(t, c"T")
    text_number(t, date.tm_hour, 2)
    text_char(t, c":")
    text_number(t, date.tm_min, 2)
    text_char(t, c":")
    text_number(t, date.tm_sec, 2)
    text_char(t, c".")
    text_number(t, now.tv_nsec // 1000000, 3)
    text_add(t, b'Z", "level": "')
    text_add(t, level)
    text_add(t, b'", "event": "')
    text_add(t, event)
    text_char(t, c'"')


cdef void json_cause(Text *t, StoreState *s, const VerdictState *v, size_t limit) noexcept nogil:
    cdef char said[LINE_SIZE]
    cdef Text raw = text_begin(said, 5 * limit)
    log_cause(&raw, s, v.fault, v.error)
    json_name(t, b"cause")
    json_string(t, &raw)


cdef void json_notes(Text *t, const VerdictState *v) noexcept nogil:
    cdef char said[LINE_SIZE]
    cdef Text raw
    cdef const char *before = b"["
    cdef int note = 1
    json_name(t, b"notes")
    while note <= LAST_NOTE:
        if v.notes & note:
            raw = text_begin(said, sizeof(said))
            log_note(&raw, note, v.error)
            text_add(t, before)
            json_string(t, &raw)
            before = b", "
        note *= 2
    text_char(t, c"]")


cdef void json_line(Text *t, StoreState *s, const Request *q, const VerdictState *v, size_t limit) noexcept nogil:
    cdef char said[PLACE_SIZE]
    cdef Text raw
    json_begin(t, b"warning" if v.fault != NO_FAULT or v.notes else b"info", b"decision")
    json_name(t, b"action")
    text_char(t, c'"')
    text_add(t, action_name(v.action))
    text_add(t, b'", "reason": "')
    text_add(t, reason_name(v.reason))
    text_char(t, c'"')
    if v.action == DEFER:
        json_name(t, b"wait")
        text_number(t, v.wait, 1)
    json_address(t, b"client", q.client, SHOWN_CLIENT)
    json_address(t, b"sender", q.sender, limit)
    json_address(t, b"recipient", q.recipient, limit)
    if v.has_key:
        json_name(t, b"key")
        text_char(t, c'"')
        text_hex(t, v.key, SHORT_KEY)
        text_char(t, c'"')
    if v.rule[0]:
        raw = text_begin(said, sizeof(said))
        text_add(&raw, v.rule)
        json_name(t, b"rule")
        json_string(t, &raw)
    if v.fault != NO_FAULT:
        json_cause(t, s, v, limit)
    if v.notes:
        json_notes(t, v)
    text_add(t, b"}\n")


cdef void log_priority(Text *t, int form, bint bad) noexcept nogil:
    """4 is a warning, 6 is information (syslog(3))."""
    if form & LOG_PRIORITY:
        text_add(t, b"<4>" if bad else b"<6>")


cdef void log_decision(Text *t, StoreState *s, const Request *q, const VerdictState *v, int form) noexcept nogil:
    """The line of a decision in one of the forms."""
    cdef size_t begun
    log_priority(t, form, v.fault != NO_FAULT or v.notes != 0)
    if not form & LOG_JSON:
        log_line(t, s, q, v)
        return
    begun = t.size
    json_line(t, s, q, v, SHOWN_ADDRESS)
    # A text that is full has lost its end.
    if t.size + 1 >= t.room:
        t.size = begun
        json_line(t, s, q, v, SHOWN_LEAST)


cdef void log_event(Text *t, const char *event, const Text *said, int form, bint bad) noexcept nogil:
    """The line of what befell the server; said: printable ASCII without a line feed."""
    cdef size_t i
    log_priority(t, form, bad)
    if not form & LOG_JSON:
        text_add(t, b"fastgrey: ")
        for i in range(said.size):
            text_char(t, said.data[i])
        text_char(t, c"\n")
        return
    json_begin(t, b"warning" if bad else b"info", event)
    json_name(t, b"message")
    json_string(t, said)
    text_add(t, b"}\n")
