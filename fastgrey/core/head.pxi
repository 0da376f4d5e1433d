# The head of a generation: format version, secret, settings. One record, so that a reader sees all of it or none.

cdef enum:
    FORMAT_VERSION = 3
    BYTE_ORDER_MARK = 0x01020304
    SETTINGS = 17
    SETTINGS_SPARE = 14
    # Bytes; what is kept free in a full map comes from it (room.pxi).
    PENDING_LEAST = 4 << 20

cdef extern from *:
    """
    /* The largest number that a setting may have: pending_size. */
    #define FASTGREY_SETTING_MAX ((int64_t)1 << 42)
    """
    int64_t SETTING_MAX "FASTGREY_SETTING_MAX"

# In the order of fastgrey/settings.py, which has names, ranges and defaults. Durations are seconds.
cdef packed struct Settings:
    int64_t delay
    int64_t retry_window
    int64_t lifetime
    int64_t refresh
    int64_t ipv4_prefix
    int64_t ipv6_prefix
    int64_t allow_client_after
    int64_t allow_domain_after
    int64_t pool_hops
    int64_t pool_window
    int64_t trust_client_name
    int64_t null_sender_accept
    int64_t learn_mode
    int64_t defer_on_error
    int64_t pending_size
    int64_t expect_max
    # Hooks ask fastgrey serve.
    int64_t shared
    int64_t spare[SETTINGS_SPARE]


cdef packed struct Head:
    char magic[8]
    uint32_t version
    uint32_t order
    uint64_t generation
    # 0 while in force, else the number of the generation that took over.
    uint64_t superseded
    # 1 while a compaction copies: writers also note the keys they touch.
    uint64_t noting
    int64_t made
    # Number of the policy in force, 0 where none was ever applied, and how many rules it has: with none, the record
    # of the policy is not even looked for.
    uint64_t policy
    uint64_t rules
    # When the last expectation window closes; after it, none is looked for.
    int64_t windows_until
    unsigned char secret[SECRET_SIZE]
    Settings settings
    # Of all before it: a bit that turned in the secret would make every sender a stranger, unnoticed.
    uint64_t sum


cdef bint settings_usable(const Settings *s) noexcept nogil:
    """Can these have been written on purpose? fastgrey/settings.py has the exact ranges; numbers far from them came of
    damage, and times and sizes that are told from them would be beyond any number."""
    cdef int64_t numbers[SETTINGS]
    cdef int i
    memcpy(numbers, s, sizeof(numbers))
    for i in range(SETTINGS):
        if not 0 <= numbers[i] <= SETTING_MAX:
            return False
    return s.ipv4_prefix <= 32 and s.ipv6_prefix <= 128 and s.pending_size >= PENDING_LEAST


cdef void meta_key(MDB_val *key, const char *name) noexcept nogil:
    key.mv_data = <void *>name
    key.mv_size = strlen(name)


cdef void head_key(MDB_val *key) noexcept nogil:
    meta_key(key, b"head")


cdef void policy_key(MDB_val *key) noexcept nogil:
    meta_key(key, b"policy")


cdef uint64_t head_sum(const Head *head) noexcept nogil:
    return XXH3_128bits(head, sizeof(Head) - sizeof(uint64_t)).low64


cdef int head_check(const MDB_val *value) noexcept nogil:
    """A fault where the record is no head that this program can use."""
    cdef const Head *head = <const Head *>value.mv_data
    if value.mv_size < 16 or memcmp(head.magic, b"fastgrey", 8) != 0:
        return NOT_A_STORE
    if head.version != FORMAT_VERSION:
        return OTHER_VERSION
    if value.mv_size != sizeof(Head) or head.order != BYTE_ORDER_MARK or head.sum != head_sum(head):
        return NOT_A_STORE
    return NO_FAULT if settings_usable(&head.settings) else DAMAGED
