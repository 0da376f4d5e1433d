# The line that tells a decision: who, verdict, reason, wait, key, and for an error its cause and the remedy.

cdef enum:
    # At most what a pipe takes in one piece (PIPE_BUF), so that lines of many hooks never mix.
    LINE_SIZE = 4096
    SHOWN_CLIENT = 64
    SHOWN_ADDRESS = 400


cdef void log_cause(Text *t, StoreState *s, int fault, int error) noexcept nogil:
    """What, where, why, what to do."""
    text_add(t, fault_text(fault))
    if fault == BAD_HOOK:
        text_char(t, c" ")
        text_escaped(t, span(s.part, strlen(s.part)), SHOWN_ADDRESS)
    elif PATH_TOO_LONG <= fault <= TOO_MANY_READERS and fault != NO_BOOT_ID or fault == NO_SERVER:
        text_char(t, c" ")
        text_escaped(t, span(s.path, strlen(s.path)), SHOWN_ADDRESS)
        if s.part != NULL and fault != NO_STORE:
            text_add(t, b" (")
            text_add(t, s.part)
            text_add(t, b")")
    if error:
        text_add(t, b": ")
        text_add(t, mdb_strerror(error))
    text_add(t, b"; ")
    text_add(t, fault_remedy(fault))


cdef void log_note(Text *t, int note, int error) noexcept nogil:
    text_add(t, note_text(note))
    if note == NOT_REFRESHED:
        text_add(t, b": ")
        text_add(t, mdb_strerror(error))


cdef void log_line(Text *t, StoreState *s, const Request *q, const VerdictState *v) noexcept nogil:
    cdef int note = 1
    text_add(t, b"fastgrey: ")
    text_add(t, action_name(v.action))
    text_char(t, c" ")
    text_add(t, reason_name(v.reason))
    if v.action == DEFER:
        text_add(t, b" wait=")
        text_number(t, v.wait, 1)
    text_add(t, b" client=")
    text_escaped(t, q.client, SHOWN_CLIENT)
    text_add(t, b" sender=")
    text_escaped(t, q.sender, SHOWN_ADDRESS)
    text_add(t, b" recipient=")
    text_escaped(t, q.recipient, SHOWN_ADDRESS)
    if v.has_key:
        text_add(t, b" key=")
        text_hex(t, v.key, SHORT_KEY)
    if v.rule[0]:
        text_add(t, b" rule=")
        text_add(t, v.rule)
    if v.fault != NO_FAULT:
        text_add(t, b": ")
        log_cause(t, s, v.fault, v.error)
    if v.told != NULL:
        if v.told.cause[0]:
            text_add(t, b": ")
            text_add(t, v.told.cause)
        text_add(t, v.told.notes)
    while note <= LAST_NOTE:
        if v.notes & note:
            text_add(t, b"; ")
            log_note(t, note, v.error)
        note *= 2
    text_char(t, c"\n")
