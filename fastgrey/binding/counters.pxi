# Reading the page of counters.

# Action and reason of each way a decision can end, in the order of the totals.
VERDICTS = (*(("accept", REASON_NAMES[reason]) for reason in range(ERROR + 1)),
            ("defer", "new"), ("defer", "early"), ("defer", "error"), ("reject", "denied"))
# Upper bounds of the waits in the histogram, in seconds; one bucket more is for what is above them.
WAIT_BOUNDS = tuple([wait_bounds[i] for i in range(WAIT_COUNT - 1)])


cdef void counters_follow(StoreState *s, const Head *head) noexcept nogil:
    """Bring on_error in the page into line with the settings of a head that is flushed, and flush the page. Where that
    cannot be done, verify and doctor find after a power cut that it is another one."""
    if s.counters != NULL:
        s.counters.defer_on_error = head.settings.defer_on_error != 0
        msync(s.counters, PAGE, MS_SYNC)


cdef dict page_read(CounterPage *page):
    # Before the totals, which may grow meanwhile: none of a snapshot is then larger than now.
    snapshots = {
        "minute": ring_read(page.minute, MINUTE_SLOTS),
        "hour": ring_read(page.hour, HOUR_SLOTS),
        "day": ring_read(page.day, DAY_SLOTS),
    }
    fastgrey_fence()
    totals = [fastgrey_counted(&page.totals[i]) for i in range(WAY_COUNT)]
    return {
        "made": page.made,
        "totals": totals,
        "verdicts": {f"{action} {reason}": number
                     for (action, reason), number in zip(VERDICTS, totals, strict=True) if number},
        "snapshots": snapshots,
        "events": {
            "promoted": fastgrey_counted(&page.events[COUNT_PROMOTED]),
            "refreshed": fastgrey_counted(&page.events[COUNT_REFRESHED]),
            "not refreshed": fastgrey_counted(&page.events[COUNT_NOT_REFRESHED]),
            "not recorded": fastgrey_counted(&page.events[COUNT_NOT_RECORDED]),
            "partitions given up": fastgrey_counted(&page.events[COUNT_GIVEN_UP]),
            "strangers": fastgrey_counted(&page.events[COUNT_STRANGERS]),
        },
        "waits": [fastgrey_counted(&page.waits[i]) for i in range(WAIT_COUNT)],
        "wait_seconds": fastgrey_counted(&page.events[COUNT_WAITED]),
        "defer_on_error": bool(page.defer_on_error),
    }


cdef list ring_read(Snapshot *ring, int slots):
    """The complete snapshots of a ring: time and totals."""
    cdef Snapshot *slot
    cdef int64_t stamp
    cdef int number
    found = []
    for number in range(slots):
        slot = &ring[number]
        stamp = fastgrey_stamp(&slot.stamp)
        totals = [fastgrey_kept(&slot.totals[i]) for i in range(WAY_COUNT)]
        fastgrey_fence()
        # Another stamp than before: a hook wrote meanwhile.
        if stamp > 0 and fastgrey_stamp(&slot.stamp) == stamp:
            found.append((stamp, totals))
    return sorted(found)


def read_counters(path: str):
    """The page of counters in a file, as Store.counters gives it; None where it is cut short or unusable. OSError."""
    cdef bytes content
    cdef CounterPage *page
    with os.fdopen(inside.opened(Path(path), os.O_RDONLY), "rb") as file:
        content = file.read(PAGE)
    page = <CounterPage *><char *>content
    if len(content) < PAGE or memcmp(page.magic, b"fgstats\0", 8) != 0 or page.version != COUNTERS_VERSION:
        return None
    return page_read(page)
