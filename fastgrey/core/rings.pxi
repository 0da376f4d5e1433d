# Snapshots of the totals, from which the counts of the last minute, hour and day are told: the totals now less the
# totals then. The first check in a new interval takes one; nobody waits for it, and it never loses a count.

cdef enum:
    # No hook lives that long: a snapshot that is still not complete then was its last deed.
    SNAPSHOT_SECONDS = 10


cdef inline void ring_keep(CounterPage *page, Snapshot *ring, int slots, int64_t interval, int way,
                           int64_t now) noexcept nogil:
    cdef int64_t number = now // interval
    cdef Snapshot *slot = &ring[number % slots]
    cdef int64_t seen = fastgrey_stamp(&slot.stamp)
    # By way of a number without a sign: a damaged page may hold the one that has no opposite.
    cdef int64_t taken = seen if seen >= 0 else <int64_t>(0 - <uint64_t>seen)
    cdef int i
    if taken // interval == number and (seen >= 0 or now - taken < SNAPSHOT_SECONDS):
        return
    if not fastgrey_restamp(&slot.stamp, &seen, -now):
        return
    # Whoever reads one of the new numbers must find the stamp changed.
    fastgrey_fence()
    for i in range(WAY_COUNT):
        fastgrey_keep(&slot.totals[i], <uint32_t>fastgrey_counted(&page.totals[i]) - (i == way))
    # Not where another hook took over meanwhile, because this one was stopped for long.
    seen = -now
    fastgrey_restamp(&slot.stamp, &seen, now)


cdef inline void rings_keep(CounterPage *page, int way, int64_t now) noexcept nogil:
    """Take the snapshots that are due at now, of the totals before a check that has just been counted as way."""
    if now <= 0 or now > TIME_MAX:
        return
    ring_keep(page, page.minute, MINUTE_SLOTS, MINUTE_INTERVAL, way, now)
    ring_keep(page, page.hour, HOUR_SLOTS, HOUR_INTERVAL, way, now)
    ring_keep(page, page.day, DAY_SLOTS, DAY_INTERVAL, way, now)
