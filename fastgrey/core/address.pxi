# Envelope addresses: one spelling for each, and for senders one for all that a machine varies from mail to mail.

cdef struct Address:
    unsigned char text[ADDRESS_MAX + 8]
    size_t size
    # Offset of the domain in text; size where there is none.
    size_t domain


cdef inline bint is_blank(unsigned char c) noexcept nogil:
    return c == c" " or c == c"\t" or c == 11 or c == 12


cdef inline bint is_digit(unsigned char c) noexcept nogil:
    return c"0" <= c <= c"9"


cdef inline bint is_token(unsigned char c) noexcept nogil:
    return is_digit(c) or c"a" <= c <= c"z"


cdef inline unsigned char lower(unsigned char c) noexcept nogil:
    return c + 32 if c"A" <= c <= c"Z" else c


cdef inline bint is_srs_separator(unsigned char c) noexcept nogil:
    return c == c"=" or c == c"+" or c == c"-"


cdef size_t find(const unsigned char *p, size_t start, size_t n, unsigned char c) noexcept nogil:
    """Index of the first c in p[start:n], n where there is none."""
    while start < n and p[start] != c:
        start += 1
    return start


cdef size_t cut_front(unsigned char *p, size_t n, size_t to, size_t start) noexcept nogil:
    """Close the gap p[to:start]; the new size."""
    memmove(p + to, p + start, n - start)
    return n - (start - to)


cdef size_t drop_batv(unsigned char *p, size_t n) noexcept nogil:
    """prvs=TAG=REST and btv1==TAG==REST are REST (BATV, draft-levine-smtp-batv; btv1 is Barracuda's)."""
    cdef size_t i
    if n > 5 and memcmp(p, b"prvs=", 5) == 0:
        i = find(p, 5, n, c"=")
        if 5 < i and i + 1 < n:
            return cut_front(p, n, 0, i + 1)
    elif n > 6 and memcmp(p, b"btv1==", 6) == 0:
        i = find(p, 6, n, c"=")
        while i + 1 < n and p[i + 1] != c"=":
            i = find(p, i + 1, n, c"=")
        if 6 < i and i + 2 < n:
            return cut_front(p, n, 0, i + 2)
    return n


cdef size_t after_srs_tag(const unsigned char *p, size_t start, size_t n) noexcept nogil:
    """Where DOMAIN=LOCAL begins behind HASH=TT= at start; 0 where the shape is another."""
    cdef size_t hash_end = find(p, start, n, c"=")
    cdef size_t time_end = find(p, hash_end + 1, n, c"=")
    cdef size_t domain_end = find(p, time_end + 1, n, c"=")
    if hash_end == start or time_end <= hash_end + 1 or domain_end <= time_end + 1 or domain_end + 1 >= n:
        return 0
    return time_end + 1


cdef size_t drop_srs_tag(unsigned char *p, size_t n) noexcept nogil:
    """SRS addresses less their hash and day stamp (Sender Rewriting Scheme, M. S. Wong, 2004)."""
    cdef size_t start, forwarder_end, hash_end
    if n < 6 or memcmp(p, b"srs", 3) != 0 or not is_srs_separator(p[4]):
        return n
    if p[3] == c"0":
        start = after_srs_tag(p, 5, n)
        if start:
            p[4] = c"="
            return cut_front(p, n, 5, start)
    elif p[3] == c"1":
        hash_end = find(p, 5, n, c"=")
        forwarder_end = find(p, hash_end + 1, n, c"=")
        if hash_end == 5 or forwarder_end <= hash_end + 1 or forwarder_end + 1 >= n:
            return n
        if not is_srs_separator(p[forwarder_end + 1]):
            return n
        start = after_srs_tag(p, forwarder_end + 2, n)
        if start:
            n = cut_front(p, n, forwarder_end + 1, start)
            p[4] = c"="
            return cut_front(p, n, 5, hash_end + 1)
    return n


cdef size_t drop_extension(const unsigned char *p, size_t n) noexcept nogil:
    """user+extension is user (RFC 5233 names this subaddressing)."""
    return find(p, 1, n, c"+") if n else 0


cdef size_t fold_tokens(unsigned char *p, size_t n) noexcept nogil:
    """Every maximal run of [0-9a-z] that contains a digit becomes one '#': message numbers, time stamps, hashes."""
    cdef size_t i = 0, out = 0, end
    cdef bint digit
    while i < n:
        digit = False
        end = i
        while end < n and is_token(p[end]):
            digit = digit or is_digit(p[end])
            end += 1
        if end == i:
            p[out] = p[i]
            out += 1
            i += 1
        elif digit:
            p[out] = c"#"
            out += 1
            i = end
        else:
            memmove(p + out, p + i, end - i)
            out += end - i
            i = end
    return out


cdef size_t reduce_local(unsigned char *p, size_t n) noexcept nogil:
    """The local part of a sender less what changes from mail to mail; its new size. The order is part of the rule."""
    n = drop_batv(p, n)
    n = drop_srs_tag(p, n)
    n = drop_extension(p, n)
    return fold_tokens(p, n)


cdef inline bint is_reducible(const unsigned char *p, size_t n) noexcept nogil:
    """May a local part be changed by reduce_local? Every rule of it wants a digit, + or =."""
    cdef size_t i
    for i in range(n):
        if is_digit(p[i]) or p[i] == c"+" or p[i] == c"=":
            return True
    return False


cdef inline uint64_t bytes_of(unsigned char c) noexcept nogil:
    """A word of eight times c."""
    return <uint64_t>0x0101010101010101 * c


cdef inline uint64_t tops(uint64_t word, unsigned char least) noexcept nogil:
    """The top bit of each of the eight bytes that is ASCII and not below least, which is not 0. Without its top bit no
    byte carries into the next."""
    return ((word & bytes_of(0x7F)) + bytes_of(0x80 - least)) & ~word & bytes_of(0x80)


cdef inline uint64_t lower_eight(const unsigned char *p, unsigned char *out, uint64_t *controls) noexcept nogil:
    """Write eight bytes in lower case to out; not 0 where there is an @ among them. controls becomes other than 0 where
    there are control characters."""
    cdef uint64_t word
    memcpy(&word, p, sizeof(word))
    controls[0] |= ~(tops(word, c" ") | word) & bytes_of(0x80)
    word |= (tops(word, c"A") ^ tops(word, c"Z" + 1)) >> 2
    memcpy(out, &word, sizeof(word))
    return tops(word, c"@") ^ tops(word, c"@" + 1)


cdef bint lower_text(const unsigned char *p, size_t n, unsigned char *out, size_t *at) noexcept nogil:
    """Write p[:n] in lower case to out; whether there are control characters. at becomes the place of the last @, n
    where there is none."""
    cdef uint64_t controls = 0
    cdef size_t i = 0, after = 0
    if n < 8:
        for i in range(n):
            out[i] = lower(p[i])
            controls |= p[i] < c" "
        after = n
    else:
        while i < n:
            # The last eight overlap those before.
            if i > n - 8:
                i = n - 8
            if lower_eight(p + i, out + i, &controls):
                after = i + 8
            i += 8
    while after and out[after - 1] != c"@":
        after -= 1
    at[0] = after - 1 if after else n
    return controls != 0


cdef bint is_forbidden(const unsigned char *p, size_t n) noexcept nogil:
    """Is there a NUL, CR or LF?"""
    cdef size_t i
    for i in range(n):
        if p[i] == 0 or p[i] == c"\r" or p[i] == c"\n":
            return True
    return False


cdef int normalise_address(Span raw, bint is_sender, Address *out) noexcept nogil:
    """Write the normal form of raw to out; -1 where it is too long or holds NUL, CR or LF.

    The null sender and an empty recipient have size 0 (RFC 5321 section 4.5.5); a source route is dropped as
    RFC 5321 section 3.6.1 and appendix C tell.
    """
    cdef const unsigned char *p = raw.data
    cdef size_t n = raw.size, at, local, tail
    if n > ADDRESS_MAX:
        return -1
    while n and is_blank(p[0]):
        p += 1
        n -= 1
    while n and is_blank(p[n - 1]):
        n -= 1
    if n >= 2 and p[0] == c"<" and p[n - 1] == c">":
        p += 1
        n -= 2
    if n and p[0] == c"@":
        tail = find(p, 1, n, c":")
        if tail < n:
            if is_forbidden(p, tail):
                return -1
            p += tail + 1
            n -= tail + 1

    if lower_text(p, n, out.text, &at) and is_forbidden(p, n):
        return -1
    if at < n:
        while out.text[n - 1] == c".":
            n -= 1
    local = reduce_local(out.text, at) if is_sender and is_reducible(out.text, at) else at
    tail = n - at
    if local < at:
        memmove(out.text + local, out.text + at, tail)
    out.size = local + tail
    out.domain = local + 1 if tail > 1 else out.size
    return 0
