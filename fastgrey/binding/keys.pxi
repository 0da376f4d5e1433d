# The keys of all records that a request, or some parts of one, determine.

cdef tuple KIND_NAMES = tuple([kind_name(i).decode() for i in range(4)])


cdef list determined_keys(const Envelope *e, const unsigned char *secret, bint client, bint sender, bint recipient):
    """Kind ('waiting' for a triplet in pending), place (0 the network, or where there is none; 1 the name parent) and
    key, from the parts of e that are there. Without a client e has no places."""
    cdef unsigned char key[KEY_SIZE]
    found = []
    if client:
        key_client(e, secret, key)
        found.append((KIND_NAMES[CLIENT], 0, key[:KEY_SIZE]))
    if sender:
        for place in range(e.places if e.sender.domain < e.sender.size else 0):
            key_domain(e, place, secret, key)
            found.append((KIND_NAMES[DOMAIN], place, key[:KEY_SIZE]))
    if not sender or not recipient:
        return found
    for place in range(e.places):
        key_triplet(e, place, secret, key)
        found.append((KIND_NAMES[TRIPLET], place, key[:KEY_SIZE]))
        key_waiting(e, place, secret, key)
        found.append(("waiting", place, key[:KEY_SIZE]))
    # The null sender makes no pairs.
    if e.sender.size:
        key_pair(e, secret, key)
        found.append((KIND_NAMES[PAIR], 0, key[:KEY_SIZE]))
    return found
