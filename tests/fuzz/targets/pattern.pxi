# Globs, and the search for the literal of an expression: pattern up to a NUL, text.

cdef bint glob_by_table(Span pattern, Span text) noexcept nogil:
    """The same by a table of what each beginning of the pattern matches, which is slow and plain."""
    cdef bint row[257]
    cdef bint diagonal, above
    cdef size_t p, t
    memset(row, 0, sizeof(row))
    row[0] = True
    for p in range(pattern.size):
        diagonal = row[0]
        row[0] = diagonal and pattern.data[p] == c"*"
        for t in range(text.size):
            above = row[t + 1]
            if pattern.data[p] == c"*":
                row[t + 1] = above or row[t]
            else:
                row[t + 1] = diagonal and pattern.data[p] == text.data[t]
            diagonal = above
    return row[text.size]


cdef bint contains_by_bytes(Span text, Span part) noexcept nogil:
    cdef size_t start = 0, k
    while start + part.size <= text.size:
        k = 0
        while k < part.size and text.data[start + k] == part.data[k]:
            k += 1
        if k == part.size:
            return True
        start += 1
    return False


cdef void fuzz_pattern(Input *i) noexcept nogil:
    cdef Span pattern = take_field(i), text
    text = take_bytes(i, 256)
    require((glob_match(pattern, text) != 0) == (glob_by_table(pattern, text) != 0), b"a glob matches what it says")
    require((contains(text, pattern) != 0) == (contains_by_bytes(text, pattern) != 0), b"what contains, contains")
