# Envelope addresses: `s` and a sender, or `r` and a recipient.

cdef bint begins(Span s, const char *what) noexcept nogil:
    return s.size >= strlen(what) and memcmp(s.data, what, strlen(what)) == 0


cdef bint is_settled(const Address *a, bint is_sender) noexcept nogil:
    """Has this normal form nothing about it that would be taken off once more? White space, brackets, a source route
    and the tags of a sender are taken off once, so that two of them are not one."""
    cdef Span text = span(a.text, a.size)
    if a.size and (is_blank(a.text[0]) or is_blank(a.text[a.size - 1])):
        return False
    if a.size >= 2 and a.text[0] == c"<" and a.text[a.size - 1] == c">":
        return False
    if a.size and a.text[0] == c"@" and find(a.text, 1, a.size, c":") < a.size:
        return False
    return not is_sender or not (begins(text, b"prvs=") or begins(text, b"btv1==") or begins(text, b"srs"))


cdef void address_holds(const Address *a, size_t most, bint is_sender) noexcept nogil:
    cdef size_t i, local = a.size
    require(a.size <= most, b"a normal form is no longer than what it came from")
    require(a.domain <= a.size, b"the domain begins within the address")
    for i in range(a.size):
        require(a.text[i] != 0 and a.text[i] != c"\r" and a.text[i] != c"\n", b"no NUL, CR or LF")
        require(not is_upper(a.text[i]), b"lower case")
        if a.text[i] == c"@":
            local = i
    require(a.domain == (local + 1 if local + 1 < a.size else a.size), b"the domain follows the last @")
    require(local == a.size or a.text[a.size - 1] != c".", b"a domain has no dot at its end")
    if is_sender:
        for i in range(local):
            require(not is_digit(a.text[i]), b"tokens are folded")
            require(i == 0 or a.text[i] != c"+", b"extensions are dropped")


cdef void fuzz_address(Input *i) noexcept nogil:
    cdef bint is_sender = take_byte(i) & 1, refused
    cdef Span raw = take_rest(i), first, second
    cdef Address *a = <Address *>own(sizeof(Address))
    cdef Address *b = <Address *>own(sizeof(Address))
    cdef size_t k
    memset(a, 0xA5, sizeof(Address))
    refused = raw.size > ADDRESS_MAX
    for k in range(raw.size):
        refused = refused or raw.data[k] == 0 or raw.data[k] == c"\r" or raw.data[k] == c"\n"
    require((normalise_address(raw, is_sender, a) != 0) == refused, b"refused is what is too long or cannot be said")
    if refused:
        return
    for k in range(raw.size, sizeof(a.text)):
        require(a.text[k] == 0xA5, b"nothing is written beyond the length of what came")
    address_holds(a, raw.size, is_sender)
    if is_settled(a, is_sender):
        require(normalise_address(span(a.text, a.size), is_sender, b) == 0, b"a normal form is an address")
        first = span(a.text, a.size)
        second = span(b.text, b.size)
        require(is_same(first, second) and a.domain == b.domain, b"a normal form is its own normal form")
