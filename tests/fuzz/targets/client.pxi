# The client: two bytes for the prefix lengths, its address up to a NUL, its name.

cdef extern from "arpa/inet.h" nogil:
    int AF_INET
    const char *inet_ntop(int family, const void *address, char *text, unsigned int size)


cdef bint is_masked(const unsigned char *masked, const unsigned char *whole, int size, int prefix) noexcept nogil:
    """Bit by bit: those of the prefix as they are, the rest 0."""
    cdef int bit, expected
    for bit in range(8 * size):
        expected = (whole[bit >> 3] >> (7 - (bit & 7))) & 1 if bit < prefix else 0
        if ((masked[bit >> 3] >> (7 - (bit & 7))) & 1) != expected:
            return False
    return True


cdef void fuzz_client(Input *i) noexcept nogil:
    cdef int ipv4_prefix = take_byte(i) % 33, ipv6_prefix = take_byte(i) % 129
    cdef Span text = take_field(i), name = take_rest(i)
    cdef Client *c = <Client *>own(sizeof(Client))
    cdef Client *again = <Client *>own(sizeof(Client))
    cdef unsigned char *parent = <unsigned char *>own(NAME_MAX)
    cdef char shown[64]
    cdef size_t size, k, dots = 0, tail = name.size
    if parse_client(text, ipv4_prefix, ipv6_prefix, c) != 0:
        return
    require(c.family == 4 and c.size == 4 or c.family == 6 and c.size == 16, b"IPv4 or IPv6")
    require(c.prefix == (ipv4_prefix if c.family == 4 else ipv6_prefix), b"the prefix of its family")
    require(is_masked(c.network, c.whole, c.size, c.prefix), b"the network is the masked address")
    require(is_masked(c.exact, c.whole, c.size, 32 if c.family == 4 else 64), b"exact is the address or its /64")
    inet_ntop(AF_INET if c.family == 4 else AF_INET6, c.whole, shown, sizeof(shown))
    require(parse_client(span(shown, strlen(shown)), ipv4_prefix, ipv6_prefix, again) == 0
            and again.family == c.family and memcmp(again.whole, c.whole, c.size) == 0,
            b"what is shown of an address is that address")

    size = name_parent(name, c, parent)
    if tail and name.data[tail - 1] == c".":
        tail -= 1
    if size == 0:
        return
    require(size < tail and tail <= NAME_MAX and name.data[tail - size - 1] == c".", b"a parent lacks the first label")
    for k in range(size):
        require(parent[k] == lower(name.data[tail - size + k]), b"a parent is the end of the name in lower case")
        dots += parent[k] == c"."
    require(dots >= 1, b"a parent has two labels")
    for k in range(tail - size - 1):
        require(name.data[k] != c".", b"only the first label is missing")
