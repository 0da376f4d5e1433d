# Between Python objects and those of the core.

cdef Span bytes_span(bytes data):
    return span(<const char *>data, len(data))


cdef bytes as_bytes(value, str what):
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")


cdef tuple request_parts(client, sender, recipient, client_name):
    """The texts of a request as bytes, which must live as long as a Request that looks at them."""
    return (as_bytes(client, "client"), as_bytes(client_name, "client_name") if client_name is not None else b"",
            as_bytes(sender, "sender"), as_bytes(recipient, "recipient"))


cdef int request_fill(Request *q, tuple parts, name_trusted, now) except -1:
    memset(q, 0, sizeof(Request))
    q.client, q.name, q.sender, q.recipient = (bytes_span(parts[0]), bytes_span(parts[1]), bytes_span(parts[2]),
                                               bytes_span(parts[3]))
    q.name_trusted = -1 if name_trusted is None else 1 if name_trusted else 0
    q.clock = int(clock.time())
    moment = q.clock if now is None else int(now)
    # The core knows what is wrong with -1; other numbers may not fit its type.
    q.now = moment if 0 <= moment <= TIME_MAX else -1
    return 0


cdef list settings_list(const Head *head):
    return [(<const int64_t *>&head.settings)[i] for i in range(SETTINGS)]


cdef str opening_text(int rc):
    """What went wrong with an environment, as a person would say it."""
    if rc == VIEW_FAILED:
        return f"{fault_text(NO_VIEW).decode()}; {fault_remedy(NO_VIEW).decode()}"
    return mdb_strerror(rc).decode()


cdef str cause_text(StoreState *s, int fault, int error):
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    log_cause(&t, s, fault, error)
    text_end(&t)
    return line.decode("ascii", "replace")


cdef str note_said(int note, int error):
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    log_note(&t, note, error)
    text_end(&t)
    return line.decode("ascii", "replace")


cdef object verdict_made(StoreState *s, const VerdictState *v):
    """The Verdict."""
    cause, notes = None, ()
    if v.told != NULL:
        cause = v.told.cause.decode("ascii") or None
        notes = tuple(v.told.notes.decode("ascii").split("; ")[1:])
    elif v.fault != NO_FAULT:
        cause = cause_text(s, v.fault, v.error)
    if v.notes:
        notes = tuple([note_said(1 << i, v.error) for i in range((<object>LAST_NOTE).bit_length()) if v.notes >> i & 1])
    return Verdict(
        ACTION_NAMES[v.action], REASON_NAMES[v.reason], v.wait, cause, short_key(v.key) if v.has_key else None,
        v.rule.decode("ascii") if v.rule[0] else None, v.waited, notes,
    )


cdef str short_key(const unsigned char *key):
    return key[:SHORT_KEY].hex()


# Regular expressions must mean the same in a process with another locale as in the hook, which has none.
cdef locale_t plain_locale = newlocale(LC_ALL_MASK, b"C", NULL)

cdef tuple ACTION_NAMES = tuple([action_name(i).decode() for i in range(3)])
cdef tuple REASON_NAMES = tuple([reason_name(i).decode() for i in range(DENIED + 1)])
