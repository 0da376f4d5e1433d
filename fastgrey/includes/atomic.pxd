"""Atomic operations on memory that processes share, as the compiler has them."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define fastgrey_add(slot, number) __atomic_fetch_add((slot), (number), __ATOMIC_RELAXED)
    #define fastgrey_counted(slot) __atomic_load_n((slot), __ATOMIC_RELAXED)
    #define fastgrey_keep(slot, number) __atomic_store_n((slot), (number), __ATOMIC_RELAXED)
    #define fastgrey_kept(slot) __atomic_load_n((slot), __ATOMIC_RELAXED)
    #define fastgrey_stamp(slot) __atomic_load_n((slot), __ATOMIC_ACQUIRE)
    #define fastgrey_restamp(slot, seen, number) \\
        __atomic_compare_exchange_n((slot), (seen), (number), 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)
    #define fastgrey_fence() __atomic_thread_fence(__ATOMIC_ACQ_REL)
    """
    void fastgrey_add(uint64_t *slot, uint64_t number) nogil
    uint64_t fastgrey_counted(uint64_t *slot) nogil
    void fastgrey_keep(uint32_t *slot, uint32_t number) nogil
    uint32_t fastgrey_kept(uint32_t *slot) nogil
    int64_t fastgrey_stamp(int64_t *slot) nogil
    bint fastgrey_restamp(int64_t *slot, int64_t *seen, int64_t number) nogil
    void fastgrey_fence() nogil
