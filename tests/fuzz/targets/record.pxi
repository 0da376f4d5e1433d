# What LMDB hands the core as the value of a record, and the page of counters: `h` a head and the sizes that follow from
# its settings, `n` the name of a partition, `c` the page of counters, `r` a record of something known.

cdef void fuzz_head(Input *i) noexcept nogil:
    cdef StoreState *s = <StoreState *>own(sizeof(StoreState))
    cdef Envelope *e = <Envelope *>own(sizeof(Envelope))
    cdef int64_t now = take_number(i) & TIME_MAX
    cdef Span record = take_rest(i)
    cdef Partition p
    cdef Request q
    cdef MDB_val value
    cdef Head *head = <Head *>record.data
    cdef int fault
    memset(s, 0, sizeof(StoreState))
    if record.size == sizeof(Head):
        # Else nothing but its checksum would be looked at.
        head.sum = head_sum(head)
    value.mv_data = <void *>record.data
    value.mv_size = record.size
    fault = head_check(&value)
    require(fault == NO_FAULT or fault == NOT_A_STORE or fault == OTHER_VERSION or fault == DAMAGED,
            b"a head is usable, or a fault says why not")
    if fault != NO_FAULT:
        return
    memcpy(&s.head, record.data, sizeof(Head))
    memset(&q, 0, sizeof(q))
    q.now = now
    q.name_trusted = -1
    q.client = span(b"192.0.2.77", 10)
    require(normalise(&q, &s.head, e) == NO_FAULT, b"a request without addresses")
    q.client = span(b"2001:db8::1", 11)
    require(normalise(&q, &s.head, e) == NO_FAULT, b"the same of IPv6")
    for s.flags in range(THROW_AWAY + 1):
        partition_of(s, now, &p)
        require(p.length >= PARTITION_MIN and 0 <= now - p.start < p.length, b"a partition holds its moment")
        partition_name(&p)
        partition_expired(&p, now, pending_horizon(s))
        require(partitions_limit(s) <= PARTITIONS_MAX, b"as many partitions as there is room for")
    require(pending_share(s) > 0 and SHARES * pending_share(s) <= pending_soft(s)
            and pending_soft(s) < <uint64_t>s.head.settings.pending_size, b"shares are within the bound")
    require(pending_at_rest(s) < pending_soft(s), b"and leave room")


cdef void fuzz_partition(Input *i) noexcept nogil:
    cdef int64_t now = take_number(i) & TIME_MAX, horizon = take_number(i) & TIME_MAX
    cdef Span name = take_rest(i)
    cdef Partition p, again
    cdef MDB_val value
    value.mv_data = <void *>name.data
    value.mv_size = name.size
    memset(&p, 0xA5, sizeof(p))
    if partition_parse(&value, &p) != 0:
        return
    require(p.start >= 0 and p.length >= 0 and p.part >= 0, b"numbers of a partition are none below zero")
    require(strlen(p.name) == name.size and memcmp(p.name, name.data, name.size) == 0, b"its name is kept")
    partition_expired(&p, now, horizon)
    again = p
    partition_name(&again)
    value.mv_data = again.name
    value.mv_size = strlen(again.name)
    require(partition_parse(&value, &again) == 0 and again.start == p.start and again.length == p.length
            and again.part == p.part, b"a name made of a partition is that partition's")


cdef void fuzz_counters(Input *i) noexcept nogil:
    cdef int64_t now = take_number(i), waited = take_number(i) & TIME_MAX
    cdef unsigned char way = take_byte(i) % WAY_COUNT
    cdef StoreState *s = <StoreState *>own(sizeof(StoreState))
    cdef CounterPage *page = <CounterPage *>own(sizeof(CounterPage))
    cdef VerdictState *v = <VerdictState *>own(sizeof(VerdictState))
    cdef uint64_t before[WAY_COUNT]
    cdef Span content = take_bytes(i, sizeof(CounterPage))
    cdef int k
    memset(s, 0, sizeof(StoreState))
    memset(page, 0, sizeof(CounterPage))
    memset(v, 0, sizeof(VerdictState))
    memcpy(page, content.data, content.size)
    memcpy(before, page.totals, sizeof(before))
    s.counters = page
    v.action = REJECT if way == WAY_REJECT else DEFER if way >= NEW else ACCEPT
    v.reason = ERROR if way == WAY_DEFER_ERROR else way
    require(verdict_way(v.action, v.reason) == way, b"every way is one of a verdict")
    count_verdict(s, v, now)
    for k in range(WAY_COUNT):
        require(page.totals[k] == before[k] + (k == way), b"one check more, of one way")
    require(0 <= wait_bucket(waited) < WAIT_COUNT, b"every wait has its bucket")
    count_promotion(s, waited)


cdef void fuzz_pair_of_records(Input *i) noexcept nogil:
    cdef StoreState *s = <StoreState *>own(sizeof(StoreState))
    cdef int64_t now = take_number(i) & TIME_MAX
    cdef uint64_t a = <uint64_t>take_number(i), b
    memset(s, 0, sizeof(StoreState))
    fill_head(&s.head)
    require(record_pack(record_time(a), record_count(a)) == a, b"a record is its time and its count")
    b = promoted(&s.head.settings, a, now)
    require(record_time(b) >= now and record_time(b) >= record_time(a), b"a promotion sets no earlier time")
    require(1 <= record_count(b) <= COUNT_MAX, b"and has a count")
    if is_alive(&s.head.settings, a, now):
        require(record_count(b) == (record_count(a) + 1 if record_count(a) < COUNT_MAX else COUNT_MAX),
                b"one higher, up to the highest")


cdef void fuzz_record(Input *i) noexcept nogil:
    cdef unsigned char kind = take_byte(i)
    if kind == c"h":
        fuzz_head(i)
    elif kind == c"n":
        fuzz_partition(i)
    elif kind == c"c":
        fuzz_counters(i)
    elif kind == c"r":
        fuzz_pair_of_records(i)
