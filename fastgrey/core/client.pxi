# The client: its exact address, its network, and the parent of its name.

cdef struct Client:
    int family
    # Every bit that the client has, for rules.
    unsigned char whole[16]
    # IPv4 whole; IPv6 its /64, the rest zero.
    unsigned char exact[16]
    unsigned char network[16]
    int size
    int prefix


cdef inline void mask_address(unsigned char *address, int size, int prefix) noexcept nogil:
    cdef int i = prefix >> 3
    if i < size:
        address[i] &= <unsigned char>(0xFF << (8 - (prefix & 7)))
        memset(address + i + 1, 0, size - i - 1)


cdef int parse_ipv4(const unsigned char *p, size_t n, unsigned char *out) noexcept nogil:
    """Read four decimal numbers with dots between them, as inet_pton does: nothing else, no leading zeros. -1 where it
    is something else. Most clients are that, and for inet_pton a copy with a NUL has to be made."""
    cdef size_t i
    cdef int octets = 0, value = -1
    for i in range(n):
        if is_digit(p[i]):
            if value == 0:
                return -1
            value = 10 * (value if value > 0 else 0) + (p[i] - c"0")
            if value > 255:
                return -1
        elif p[i] == c"." and value >= 0 and octets < 3:
            out[octets] = <unsigned char>value
            octets += 1
            value = -1
        else:
            return -1
    if octets != 3 or value < 0:
        return -1
    out[3] = <unsigned char>value
    return 0


cdef int parse_client(Span text, int ipv4_prefix, int ipv6_prefix, Client *out) noexcept nogil:
    """Read an IP address as inet_pton does, after dropping a %scope (RFC 4007 section 11); -1 where it is none.

    An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is the IPv4 address.
    """
    cdef char copy[64]
    cdef unsigned char address[16]
    cdef size_t n = find(text.data, 0, text.size, c"%")
    memset(address, 0, sizeof(address))
    if parse_ipv4(text.data, n, address) == 0:
        out.family = 4
    else:
        if n >= sizeof(copy) or find(text.data, 0, n, 0) < n:
            return -1
        memcpy(copy, text.data, n)
        copy[n] = 0
        if inet_pton(AF_INET6, copy, address) != 1:
            return -1
        out.family = 6
        if memcmp(address, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
            out.family = 4
            memmove(address, address + 12, 4)
    out.size = 4 if out.family == 4 else 16
    out.prefix = ipv4_prefix if out.family == 4 else ipv6_prefix
    # All sixteen bytes, whatever the family: a copy of known size is one move.
    memcpy(out.whole, address, sizeof(address))
    memcpy(out.exact, address, sizeof(address))
    memcpy(out.network, address, sizeof(address))
    if out.family == 6:
        mask_address(out.exact, out.size, 64)
    mask_address(out.network, out.size, out.prefix)
    return 0


cdef bint has_number(const unsigned char *name, size_t n, unsigned int number) noexcept nogil:
    """Is number one of the maximal digit runs of the name, leading zeros ignored?"""
    cdef size_t i = 0
    cdef unsigned int value
    while i < n:
        if not is_digit(name[i]):
            i += 1
            continue
        value = 0
        while i < n and is_digit(name[i]):
            # Past 999 no octet can match any more, and a longer run must not wrap round to one.
            if value < 1000:
                value = value * 10 + (name[i] - c"0")
            i += 1
        if value == number:
            return True
    return False


cdef size_t name_parent(Span name, const Client *client, unsigned char *out) noexcept nogil:
    """Write the name less its first label to out; its size, 0 where the name tells nothing about its owner.

    RFC 6647 section 5(5) allows grouping by the domain name of the server; a name that carries the address of an
    IPv4 client belongs to the line, not to a mail service.
    """
    cdef size_t n = name.size, i, dots = 0, first = 0
    if n and name.data[n - 1] == c".":
        n -= 1
    if n > NAME_MAX:
        return 0
    for i in range(n):
        if name.data[i] == c".":
            if not dots:
                first = i
            dots += 1
    if dots < 2:
        return 0
    if client.family == 4 and has_number(name.data, n, client.exact[2]) and has_number(name.data, n, client.exact[3]):
        return 0
    for i in range(first + 1, n):
        out[i - first - 1] = lower(name.data[i])
    return n - first - 1
