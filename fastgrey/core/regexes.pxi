# Regular expressions that were compiled already: a process that decides often compiles each of them once.

cdef struct Regexes:
    regex_t *items
    unsigned char *ready
    uint32_t size
    # The policy that they are of.
    uint64_t number
    int64_t applied


cdef void regexes_forget(Regexes *r) noexcept nogil:
    cdef uint32_t i
    if r.ready != NULL:
        for i in range(r.size):
            if r.ready[i]:
                regfree(&r.items[i])
    free(r.items)
    free(r.ready)
    memset(r, 0, sizeof(Regexes))


cdef int regexes_prepare(Regexes *r, uint64_t number, int64_t applied, uint32_t size) noexcept nogil:
    """Room for the expressions of a policy; those of another one go."""
    if r.ready != NULL and r.number == number and r.applied == applied and r.size == size:
        return 0
    regexes_forget(r)
    r.items = <regex_t *>calloc(size, sizeof(regex_t))
    r.ready = <unsigned char *>calloc(size, 1)
    if r.items == NULL or r.ready == NULL:
        regexes_forget(r)
        return ENOMEM
    r.size = size
    r.number = number
    r.applied = applied
    return 0
