# The policy in force as `fastgrey apply` compiled it: one record, read where it lies (docs/format.md). Whatever has
# to be parsed was parsed before.

cdef enum RuleAction:
    DENY = 0
    ALLOW = 1
    OPT_OUT = 2
    OPT_IN = 3
    RULE_ACTIONS = 4

cdef enum:
    OF_CLIENT = 0
    OF_SENDER = 1
    OF_RECIPIENT = 2
    SUBJECTS = 3

# What an entry is looked up by. Kinds of recipients follow those of senders in the same order.
cdef enum EntryKind:
    RULE_IPV4 = 0
    RULE_IPV6 = 1
    RULE_NAME = 2
    RULE_ADDRESS = 3
    RULE_USER = 4
    RULE_DOMAIN = 5
    RULE_KINDS_OF_ADDRESS = 3

cdef enum:
    POLICY_VERSION = 2
    # Bit sets of lists, in the order of fastgrey/rules.py.
    LISTS_OF_CLIENTS = 0x09
    LISTS_OF_SENDERS = 0x12
    LISTS_OF_RECIPIENTS = 0xE4
    LIST_OPT_IN = 0x80

    # In place of a rule: the entry that has it is not what was compiled.
    RULE_DAMAGED = 0xFFFFFFFF


cdef packed struct PolicyHead:
    char magic[8]
    uint32_t version
    uint32_t size
    uint64_t number
    int64_t applied
    # Bit n is set where some entry is a network of n bits, so that no other length is looked up.
    uint64_t ipv4_prefixes
    uint64_t ipv6_prefixes[3]
    # Bit sets of the entry kinds and of the lists that there are.
    uint32_t kinds
    uint32_t lists
    # Numbers of what follows, in this order; slots are a power of two, or none.
    uint32_t slots
    uint32_t entries
    uint32_t patterns
    uint32_t rules
    uint32_t files
    uint32_t spare

cdef packed struct PolicySlot:
    uint32_t tag
    # Index in entries, plus 1; 0 is free.
    uint32_t entry

cdef packed struct PolicyEntry:
    uint32_t text
    uint16_t size
    uint8_t kind
    uint8_t spare
    # Index in rules, plus 1, by action; 0 is none.
    uint32_t rule[RULE_ACTIONS]
    uint32_t sum

cdef packed struct PolicyPattern:
    uint32_t text
    uint32_t literal
    uint16_t size
    # What every text that a regular expression matches must contain; 0 bytes where nothing is known.
    uint16_t literal_size
    uint8_t subject
    uint8_t action
    uint8_t is_regex
    uint8_t spare
    uint32_t rule
    uint32_t sum

cdef packed struct PolicyRule:
    uint32_t text
    uint16_t size
    uint8_t list
    uint8_t spare
    uint32_t file
    uint32_t line

cdef packed struct PolicyFile:
    uint32_t text
    uint32_t size


cdef struct Policy:
    const unsigned char *base
    const PolicyHead *head
    const PolicySlot *slots
    const PolicyEntry *entries
    const PolicyPattern *patterns
    const PolicyRule *rules
    const PolicyFile *files


cdef int policy_view(Policy *p, const MDB_val *value) noexcept nogil:
    """Set p to look at the record; -1 where it is no policy that this program can use."""
    cdef const PolicyHead *head = <const PolicyHead *>value.mv_data
    cdef uint64_t end = sizeof(PolicyHead)
    if value.mv_size < sizeof(PolicyHead) or memcmp(head.magic, b"fgpolicy", 8) != 0:
        return -1
    if head.version != POLICY_VERSION or head.size != value.mv_size or head.slots & (head.slots - 1):
        return -1
    p.base = <const unsigned char *>value.mv_data
    p.head = head
    p.slots = <const PolicySlot *>(p.base + end)
    end += <uint64_t>head.slots * sizeof(PolicySlot)
    p.entries = <const PolicyEntry *>(p.base + end)
    end += <uint64_t>head.entries * sizeof(PolicyEntry)
    p.patterns = <const PolicyPattern *>(p.base + end)
    end += <uint64_t>head.patterns * sizeof(PolicyPattern)
    p.rules = <const PolicyRule *>(p.base + end)
    end += <uint64_t>head.rules * sizeof(PolicyRule)
    p.files = <const PolicyFile *>(p.base + end)
    end += <uint64_t>head.files * sizeof(PolicyFile)
    return 0 if end <= head.size else -1


cdef Span policy_text(const Policy *p, uint32_t offset, uint32_t size) noexcept nogil:
    """A text of the policy, with a NUL behind it; empty where a damaged record has no such text there."""
    if <uint64_t>offset + size >= p.head.size or p.base[offset + size] != 0:
        return span(b"", 0)
    return span(p.base + offset, size)


cdef uint64_t entry_hash(int kind, const void *text, size_t size) noexcept nogil:
    """The low bits choose the slot, the high 32 are its tag."""
    return XXH3_64bits_withSeed(text, size, <uint64_t>kind)


cdef uint32_t entry_sum(uint64_t hash, const void *rules) noexcept nogil:
    """The checksum of an entry: its hash covers kind and text. A bit that turned must not deny what was allowed."""
    return <uint32_t>XXH3_64bits_withSeed(rules, RULE_ACTIONS * sizeof(uint32_t), hash)


cdef uint32_t pattern_sum(const PolicyPattern *pattern, Span text, Span literal) noexcept nogil:
    """The checksum of a pattern."""
    cdef uint64_t hash = (<uint64_t>pattern.rule << 24 | <uint64_t>pattern.is_regex << 16
                          | <uint64_t>pattern.action << 8 | pattern.subject)
    hash = XXH3_64bits_withSeed(text.data, text.size, hash)
    return <uint32_t>XXH3_64bits_withSeed(literal.data, literal.size, hash)


cdef bint pattern_whole(const Policy *p, const PolicyPattern *pattern) noexcept nogil:
    return pattern.sum == pattern_sum(pattern, policy_text(p, pattern.text, pattern.size),
                                      policy_text(p, pattern.literal, pattern.literal_size))


cdef const PolicyEntry *policy_entry(const Policy *p, int kind, const unsigned char *text, size_t size,
                                     bint *whole) noexcept nogil:
    """The entry of this kind and text, NULL where there is none."""
    cdef uint64_t hash
    cdef uint32_t mask = p.head.slots - 1, i, tries
    cdef const PolicyEntry *entry
    cdef Span found
    if not (p.head.kinds >> kind) & 1 or p.head.slots == 0:
        return NULL
    hash = entry_hash(kind, text, size)
    i = <uint32_t>hash & mask
    for tries in range(p.head.slots):
        if p.slots[i].entry == 0 or p.slots[i].entry > p.head.entries:
            return NULL
        if p.slots[i].tag == <uint32_t>(hash >> 32):
            entry = &p.entries[p.slots[i].entry - 1]
            found = policy_text(p, entry.text, entry.size)
            if entry.kind == kind and found.size == size and memcmp(found.data, text, size) == 0:
                whole[0] = entry.sum == entry_sum(hash, <const void *>entry.rule)
                return entry
        i = (i + 1) & mask
    return NULL


cdef void rule_place(const Policy *p, uint32_t rule, char *out) noexcept nogil:
    """FILE:LINE of a rule (index plus 1), escaped for a log line."""
    cdef Text t = text_begin(out, PLACE_SIZE)
    cdef const PolicyRule *r
    if 0 < rule <= p.head.rules:
        r = &p.rules[rule - 1]
        if r.file < p.head.files:
            text_escaped(&t, policy_text(p, p.files[r.file].text, p.files[r.file].size), PLACE_SIZE - 20)
        text_char(&t, c":")
        text_number(&t, r.line, 1)
    text_end(&t)


cdef int policy_find(StoreState *s, MDB_txn *txn, Policy *p) noexcept nogil:
    """The policy that the transaction sees. It stays valid as long as the transaction does."""
    cdef MDB_val key, value
    cdef int rc
    policy_key(&key)
    rc = mdb_get(txn, s.meta, &key, &value)
    if rc != 0:
        return fail(s, NOT_A_STORE if rc == MDB_NOTFOUND else CANNOT_READ, rc)
    if policy_view(p, &value) != 0:
        return fail(s, DAMAGED, 0)
    return NO_FAULT


cdef int hits_name(StoreState *s, uint64_t number, char *out, size_t room) noexcept nogil:
    cdef char name[40]
    cdef Text t = text_begin(name, sizeof(name))
    text_add(&t, b"hits.")
    text_number(&t, <int64_t>number, 1)
    text_end(&t)
    return join(out, room, s.path, name)


cdef void count_hit(StoreState *s, uint64_t number, uint32_t rule) noexcept nogil:
    """Count that a rule decided. Only checks that a rule decides pay for it; where it cannot be done, nothing is lost
    but the count."""
    cdef char path[PATH_MAX_SIZE]
    cdef long place = <long>(rule - 1) * 8
    cdef void *page = MAP_FAILED
    cdef stat_t status
    cdef int fd
    if rule == 0 or hits_name(s, number, path, sizeof(path)) != 0:
        return
    fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC)
    if fd < 0:
        return
    # Beyond its end a mapped file raises SIGBUS. One with a second name is perhaps no file of the store.
    if fstat(fd, &status) == 0 and status.st_nlink == 1 and status.st_size >= place + 8:
        page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, place - place % PAGE)
    close(fd)
    if page != MAP_FAILED:
        fastgrey_add(<uint64_t *>(<char *>page + place % PAGE), 1)
        munmap(page, PAGE)
