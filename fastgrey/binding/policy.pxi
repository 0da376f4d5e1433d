# The policy of a store, and what applying one needs of the core.

cdef dict ENTRY_KINDS = {"ipv4": RULE_IPV4, "ipv6": RULE_IPV6, "name": RULE_NAME, "address": RULE_ADDRESS,
                         "user": RULE_USER, "domain": RULE_DOMAIN}


def entry_kind(str form, bint of_recipient) -> int:
    """The number of an entry kind: 'ipv4', 'ipv6', 'name', 'address', 'user' or 'domain'."""
    return ENTRY_KINDS[form] + (RULE_KINDS_OF_ADDRESS if of_recipient else 0)


def hash_entry(int kind, bytes text) -> int:
    """The hash by which the core looks an entry up."""
    return entry_hash(kind, <const char *>text, len(text))


def sum_entry(int kind, bytes text, bytes rules) -> int:
    """The checksum of an entry; rules: its four numbers, packed."""
    if len(rules) != RULE_ACTIONS * sizeof(uint32_t):
        raise ValueError("an entry has four rules")
    return entry_sum(entry_hash(kind, <const char *>text, len(text)), <const char *>rules)


def sum_pattern(bytes row, bytes text, bytes literal) -> int:
    """The checksum of a pattern; row: the pattern itself, packed."""
    if len(row) != sizeof(PolicyPattern):
        raise ValueError("a pattern has another size")
    return pattern_sum(<const PolicyPattern *><const char *>row, span(<const char *>text, len(text)),
                       span(<const char *>literal, len(literal)))


def regex_fault(bytes pattern) -> str | None:
    """What the C library has against a POSIX extended regular expression; None where it compiles."""
    cdef regex_t compiled
    cdef char text[200]
    cdef locale_t before = uselocale(plain_locale)
    cdef int rc = regcomp(&compiled, pattern, REG_EXTENDED | REG_ICASE | REG_NOSUB)
    if rc == 0:
        regfree(&compiled)
    else:
        regerror(rc, &compiled, text, sizeof(text))
    uselocale(before)
    return text.decode("ascii", "replace") if rc else None


cdef object policy_bytes(StoreState *s, MDB_txn *txn):
    """The record of the policy, None where none was ever applied."""
    cdef MDB_val key, value
    cdef int rc
    policy_key(&key)
    rc = mdb_get(txn, s.meta, &key, &value)
    if rc == MDB_NOTFOUND:
        return None
    if rc != 0:
        raise StoreError(cause_text(s, fail(s, CANNOT_READ, rc), rc))
    return (<const char *>value.mv_data)[:value.mv_size]
