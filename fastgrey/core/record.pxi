# A record is one number of 64 bits: a time in Unix seconds in the low 40, a count in the high 24.

cdef enum:
    TIME_BITS = 40
    COUNT_MAX = 0xFFFFFF

cdef extern from *:
    """
    #define FASTGREY_TIME_MAX ((int64_t)0xFFFFFFFFFF)
    """
    int64_t TIME_MAX "FASTGREY_TIME_MAX"


cdef inline uint64_t record_pack(int64_t when, uint64_t count) noexcept nogil:
    if count > COUNT_MAX:
        count = COUNT_MAX
    return (count << TIME_BITS) | <uint64_t>when


cdef inline int64_t record_time(uint64_t record) noexcept nogil:
    return <int64_t>(record & <uint64_t>TIME_MAX)


cdef inline uint64_t record_count(uint64_t record) noexcept nogil:
    return record >> TIME_BITS


cdef inline int64_t elapsed(int64_t now, int64_t then) noexcept nogil:
    """Seconds since then; 0 where the clock has stepped back."""
    return now - then if now > then else 0


cdef inline int64_t later(int64_t a, int64_t b) noexcept nogil:
    return a if a > b else b
