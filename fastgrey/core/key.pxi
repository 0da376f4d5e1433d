# Keys: XXH3-128 under the secret of the store, over a kind byte and length-prefixed parts (docs/format.md).

cdef enum:
    MATERIAL_SIZE = 3 * (ADDRESS_MAX + 16) + 8


cdef struct Material:
    unsigned char bytes[MATERIAL_SIZE]
    size_t size


cdef inline unsigned char *material_part(Material *m, size_t size) noexcept nogil:
    """Begin a part of so many bytes; where they go."""
    cdef unsigned char *p = m.bytes + m.size
    cdef int i
    for i in range(4):
        p[i] = <unsigned char>(size >> (8 * i))
    m.size += 4 + size
    return p + 4


cdef inline void material_add(Material *m, const void *data, size_t size) noexcept nogil:
    memcpy(material_part(m, size), data, size)


cdef void material_place(Material *m, const Envelope *e, int place) noexcept nogil:
    """Place 0 is the client's network, place 1 the parent of its name. The first byte keeps the two apart."""
    cdef unsigned char *p
    if place == 0:
        p = material_part(m, 2 + e.client.size)
        p[0] = c"4" if e.client.family == 4 else c"6"
        p[1] = <unsigned char>e.client.prefix
        # All sixteen bytes are one move; what follows writes over those too many.
        memcpy(p + 2, e.client.network, sizeof(e.client.network))
    else:
        p = material_part(m, 1 + e.parent_size)
        p[0] = c"n"
        memcpy(p + 1, e.parent, e.parent_size)


cdef void material_key(const Material *m, const unsigned char *secret, unsigned char *key) noexcept nogil:
    cdef XXH128_canonical_t canonical
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_withSecret(m.bytes, m.size, secret, SECRET_SIZE))
    memcpy(key, canonical.digest, KEY_SIZE)


cdef void key_client(const Envelope *e, const unsigned char *secret, unsigned char *key) noexcept nogil:
    cdef Material m
    m.bytes[0] = c"c"
    m.size = 1
    material_add(&m, e.client.exact, e.client.size)
    material_key(&m, secret, key)


cdef void key_domain(const Envelope *e, int place, const unsigned char *secret, unsigned char *key) noexcept nogil:
    cdef Material m
    m.bytes[0] = c"d"
    m.size = 1
    material_place(&m, e, place)
    material_add(&m, e.sender.text + e.sender.domain, e.sender.size - e.sender.domain)
    material_key(&m, secret, key)


cdef void key_triplet(const Envelope *e, int place, const unsigned char *secret, unsigned char *key) noexcept nogil:
    cdef Material m
    m.bytes[0] = c"t"
    m.size = 1
    material_place(&m, e, place)
    material_add(&m, e.sender.text, e.sender.size)
    material_add(&m, e.recipient.text, e.recipient.size)
    material_key(&m, secret, key)


cdef void key_pair(const Envelope *e, const unsigned char *secret, unsigned char *key) noexcept nogil:
    cdef Material m
    m.bytes[0] = c"p"
    m.size = 1
    material_add(&m, e.sender.text, e.sender.size)
    material_add(&m, e.recipient.text, e.recipient.size)
    material_key(&m, secret, key)


cdef void key_waiting(const Envelope *e, int place, const unsigned char *secret, unsigned char *key) noexcept nogil:
    """Key of a triplet in pending: half the key of its pair, half its own. All that one request writes then stands
    side by side, in one page to copy and write instead of two or three."""
    cdef unsigned char triplet[KEY_SIZE]
    key_triplet(e, place, secret, triplet)
    key_pair(e, secret, key)
    memcpy(key + KEY_SIZE // 2, triplet, KEY_SIZE // 2)
