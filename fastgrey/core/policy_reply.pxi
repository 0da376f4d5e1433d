# Replies of a server: what a verdict is in the words of who asked (docs/serve.md).

cdef enum:
    SAID_TEXT = 400
    # Longer than any reply.
    ANSWER_SIZE = 4096


# What to say, as it was configured. Texts end with NUL.
cdef struct Wording:
    # Before and after the seconds, which are left out where the text has no place for them.
    char defer[SAID_TEXT + 1]
    char defer_end[SAID_TEXT + 1]
    bint says_seconds
    char reject[SAID_TEXT + 1]
    # Name of the trace header, empty for none.
    char trace[HEADER_NAME_MAX + 1]
    char version[HEADER_NAME_MAX + 1]


cdef void say_deferral(Text *t, const Wording *w, const VerdictState *v) noexcept nogil:
    if v.fault != NO_FAULT:
        text_add(t, b"4.3.0 greylisting is out of order here, please try again later")
        return
    text_add(t, w.defer)
    if w.says_seconds:
        text_number(t, v.wait, 1)
    text_add(t, w.defer_end)


cdef void reply_postfix(Text *t, const Wording *w, const VerdictState *v, bint trace) noexcept nogil:
    """An action of access(5)."""
    text_add(t, b"action=")
    if v.action == DEFER:
        # A recipient that Postfix refuses for good is not worth a retry.
        text_add(t, b"DEFER_IF_PERMIT ")
        say_deferral(t, w, v)
    elif v.action == REJECT:
        text_add(t, b"550 5.7.1 ")
        text_add(t, w.reject)
    elif trace:
        text_add(t, b"PREPEND ")
        trace_field(t, w.trace, w.version, v)
    else:
        # Not OK, which would end Postfix's own checks.
        text_add(t, b"DUNNO")
    text_add(t, b"\n\n")


cdef void reply_plain(Text *t, const Wording *w, const VerdictState *v) noexcept nogil:
    text_add(t, action_name(v.action))
    text_char(t, c" ")
    text_add(t, reason_name(v.reason))
    text_char(t, c" ")
    text_number(t, v.wait, 1)
    if v.action != ACCEPT:
        text_char(t, c" ")
    if v.action == DEFER:
        say_deferral(t, w, v)
    elif v.action == REJECT:
        text_add(t, w.reject)
    text_char(t, c"\n")


cdef void reply_hook(Text *t, StoreState *s, const VerdictState *v) noexcept nogil:
    """All that the hook's own log line tells."""
    cdef int note = 1
    text_add(t, b"verdict=")
    text_add(t, action_name(v.action))
    text_char(t, c" ")
    text_add(t, reason_name(v.reason))
    text_char(t, c" ")
    text_number(t, v.wait, 1)
    if v.has_key:
        text_add(t, b"\nkey=")
        text_hex(t, v.key, SHORT_KEY)
    if v.rule[0]:
        text_add(t, b"\nrule=")
        text_add(t, v.rule)
    if v.waited:
        text_add(t, b"\nwaited=")
        text_number(t, v.waited, 1)
    if v.fault != NO_FAULT:
        text_add(t, b"\ncause=")
        log_cause(t, s, v.fault, v.error)
    while note <= LAST_NOTE:
        if v.notes & note:
            text_add(t, b"\nnote=")
            log_note(t, note, v.error)
        note *= 2
    text_add(t, b"\n\n")


cdef void policy_reply(Text *t, StoreState *s, const Wording *w, int tongue, const VerdictState *v,
                       bint trace) noexcept nogil:
    if tongue == POSTFIX:
        reply_postfix(t, w, v, trace)
    elif tongue == PLAIN_LINE:
        reply_plain(t, w, v)
    else:
        reply_hook(t, s, v)
