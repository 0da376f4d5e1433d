# Records behind Python: keys of what a person names, records in batches, records removed or made known by hand.

cdef class Records:
    """The records of a store, one by one."""

    cdef Store store

    def __cinit__(self, Store store):
        self.store = store

    cdef StoreState *_state(self) except NULL:
        self.store._usable()
        return &self.store.state

    def keys(self, client, sender, recipient, client_name=None) -> list[tuple[str, int, bytes]]:
        """The keys of all records that the given parts of a request determine; None for a part not given.

        client, client_name: IP address and forward-confirmed host name. sender, recipient: envelope addresses. Gives
        kind ('client', 'domain', 'triplet', 'waiting' for a triplet in pending, 'pair'), place (0 the network, 1 the
        name parent, 0 too where there is no place) and key. Raises RequestError for a part that cannot be normalised.
        """
        cdef StoreState *s = self._state()
        cdef Envelope e
        cdef Span name
        cdef bytes text
        memset(&e, 0, sizeof(e))
        with self.store.lock:
            self.store._probe()
            if client is not None:
                text = as_bytes(client, "client")
                self._part(BAD_CLIENT, client, parse_client(bytes_span(text), <int>s.head.settings.ipv4_prefix,
                                                            <int>s.head.settings.ipv6_prefix, &e.client))
                if client_name is not None:
                    text = as_bytes(client_name, "client_name")
                    name = bytes_span(text)
                    e.parent_size = name_parent(name, &e.client, e.parent)
                e.places = 2 if e.parent_size else 1
            if sender is not None:
                text = as_bytes(sender, "sender")
                self._part(BAD_SENDER, sender, normalise_address(bytes_span(text), True, &e.sender))
            if sender is not None and recipient is not None:
                text = as_bytes(recipient, "recipient")
                self._part(BAD_RECIPIENT, recipient, normalise_address(bytes_span(text), False, &e.recipient))
            return determined_keys(&e, s.head.secret, client is not None, sender is not None, recipient is not None)

    cdef int _part(self, int fault, object value, int rc) except -1:
        if rc != 0:
            raise RequestError(f"{fault_text(fault).decode()}: {value[:60]!r}; give it as it stands in the log line")
        return 0

    def known(self, kind: str, start: bytes, int limit) -> bytes:
        """Up to limit known records of a kind in the order of their keys, from the key start (16 bytes) on: for each
        16 bytes of key and 8 of record."""
        cdef StoreState *s = self._state()
        cdef int number = KIND_NAMES.index(kind), size = 0, fault
        cdef const unsigned char *first = self._key(start)
        cdef bytearray rows = bytearray(limit * sizeof(Row))
        cdef Row *room = <Row *><char *>rows
        with self.store.lock:
            with nogil:
                fault = walk_known(s, number, first, room, limit, &size)
            self.store._raise(fault)
        return bytes(rows[:size * sizeof(Row)])

    def pending(self, partition: dict, start: bytes, int limit) -> bytes:
        """The same of one partition of pending, as Store.partitions gives it."""
        cdef StoreState *s = self._state()
        cdef Partition p
        cdef int size = 0, fault
        cdef const unsigned char *first = self._key(start)
        cdef bytearray rows = bytearray(limit * sizeof(Row))
        cdef Row *room = <Row *><char *>rows
        p.start, p.length, p.part = partition["start"], partition["length"], partition["part"]
        partition_name(&p)
        with self.store.lock:
            self.store._probe()
            with nogil:
                fault = walk_pending(s, &p, first, room, limit, &size)
            self.store._raise(fault)
        return bytes(rows[:size * sizeof(Row)])

    cdef const unsigned char *_key(self, bytes key) except NULL:
        if len(key) != KEY_SIZE:
            raise ValueError("a key has 16 bytes")
        return <const unsigned char *><const char *>key

    def triplets_alive(self, halves: bytes, int64_t now) -> bytes:
        """For each half key of 8 bytes: 1 where a known triplet whose key begins with it is alive at now, else 0."""
        cdef StoreState *s = self._state()
        cdef int size = len(halves) // (KEY_SIZE // 2), fault
        cdef const unsigned char *first = <const unsigned char *><const char *>halves
        cdef bytearray flags = bytearray(size)
        cdef unsigned char *out = <unsigned char *><char *>flags
        with self.store.lock:
            with nogil:
                fault = triplets_alive(s, first, size, now, out)
            self.store._raise(fault)
        return bytes(flags)

    def forget(self, marks: list[tuple[str, bytes]], dry_run: bool) -> list[int | None]:
        """Remove known records, given by kind and key, in one durable transaction. What each was, None where there
        was none. dry_run: only look."""
        return [before for before, _ in self._amend([(kind, key, 0) for kind, key in marks],
                                                    LOOK if dry_run else FORGET, 0)]

    def make_known(self, marks: list[tuple[str, bytes, int]], int64_t now,
                   dry_run: bool) -> list[tuple[int | None, int]]:
        """Make records known at now, in one durable transaction: given by kind, key and the promotions that they are
        to have at least, 0 for one more than they have. What each was (None: nothing) and what it is. dry_run: only
        look."""
        if not 0 <= now <= TIME_MAX:
            self.store._raise(fail(self._state(), BAD_CLOCK, 0))
        return self._amend(marks, LOOK if dry_run else PASS, now)

    cdef list _amend(self, list wanted, int change, int64_t now):
        cdef StoreState *s = self._state()
        cdef Mark marks[MARKS_MAX]
        cdef int n = len(wanted), i, fault
        memset(marks, 0, sizeof(marks))
        self._room(n)
        for i in range(n):
            marks[i].kind = KIND_NAMES.index(wanted[i][0])
            memcpy(marks[i].key, self._key(wanted[i][1]), KEY_SIZE)
            marks[i].least = wanted[i][2]
        with self.store.lock:
            with nogil:
                fault = known_amend(s, marks, n, change, now)
            self.store._raise(fault)
        return [(marks[i].before if marks[i].found else None, marks[i].after) for i in range(n)]

    def made_known(self, uint64_t before, int least, int64_t now) -> tuple[int, int]:
        """What make_known would make of a known record that is kept elsewhere (0: there is none), and the seconds for
        which that is of any use."""
        cdef StoreState *s = self._state()
        cdef Mark mark
        memset(&mark, 0, sizeof(mark))
        mark.before, mark.least = before, least
        with self.store.lock:
            self.store._probe()
            mark_passed(s, &mark, now)
            return mark.after, later(record_time(mark.after) + s.head.settings.lifetime - now, 0) + SLACK

    def forget_pending(self, keys: list[bytes], dry_run: bool) -> list[int | None]:
        """The same as forget for records of pending, of which no transaction is durable."""
        cdef StoreState *s = self._state()
        cdef Mark marks[MARKS_MAX]
        cdef int n = len(keys), i, fault
        cdef int change = LOOK if dry_run else FORGET
        memset(marks, 0, sizeof(marks))
        self._room(n)
        for i in range(n):
            memcpy(marks[i].key, self._key(keys[i]), KEY_SIZE)
        with self.store.lock:
            self.store._probe()
            with nogil:
                fault = pending_amend(s, marks, n, change)
            self.store._raise(fault)
        return [marks[i].before if marks[i].found else None for i in range(n)]

    cdef int _room(self, int n) except -1:
        if n > MARKS_MAX:
            raise ValueError(f"at most {MARKS_MAX} records at once")
        return 0
