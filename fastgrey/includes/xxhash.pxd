"""xxHash, inlined from its header, so that nothing has to be linked."""

cdef extern from *:
    """
    #define XXH_INLINE_ALL
    #include <xxhash.h>
    """

cdef extern from "xxhash.h" nogil:
    ctypedef struct XXH128_hash_t:
        unsigned long long low64
        unsigned long long high64
    ctypedef struct XXH3_state_t:
        pass
    ctypedef struct XXH128_canonical_t:
        unsigned char digest[16]

    unsigned long long XXH3_64bits_withSeed(const void *data, size_t size, unsigned long long seed)
    XXH128_hash_t XXH3_128bits_withSecret(const void *data, size_t size,
                                          const void *secret, size_t secret_size)
    void XXH128_canonicalFromHash(XXH128_canonical_t *out, XXH128_hash_t hash)

    XXH128_hash_t XXH3_128bits(const void *data, size_t size)
    XXH3_state_t *XXH3_createState()
    int XXH3_freeState(XXH3_state_t *state)
    int XXH3_128bits_reset(XXH3_state_t *state)
    int XXH3_128bits_update(XXH3_state_t *state, const void *data, size_t size)
    XXH128_hash_t XXH3_128bits_digest(const XXH3_state_t *state)
