# Between Python objects and those of the core.

cdef Span bytes_span(bytes data):
    return span(<const char *>data, len(data))


cdef bytes as_bytes(value, str what):
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"{what} must be str or bytes, not {type(value).__name__}")


cdef str cause_text(StoreState *s, int fault, int error):
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    log_cause(&t, s, fault, error)
    text_end(&t)
    return line.decode("ascii", "replace")


cdef str short_key(const unsigned char *key):
    return key[:SHORT_KEY].hex()


# Regular expressions must mean the same in a process with another locale as in the hook, which has none.
cdef locale_t plain_locale = newlocale(LC_ALL_MASK, b"C", NULL)

cdef tuple ACTION_NAMES = tuple([action_name(i).decode() for i in range(3)])
cdef tuple REASON_NAMES = tuple([reason_name(i).decode() for i in range(DENIED + 1)])
