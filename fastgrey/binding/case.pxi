# One request on records that are kept elsewhere, as an object.

cdef class Case:
    """A request that the policy of a store and the records of an engine decide together.

    A case is decided where verdict is not None: by steps 1 to 5 alone, or by what cannot be decided at all. Otherwise
    fetch the records of slots, call judge with them, write what it gives, each only where the record is still what it
    was, all or none; where one is another, fetch and judge again. Then finish, which counts. Where the engine fails,
    fail.

    slots: kind ('client', 'domain', 'triplet', 'pair', 'waiting', 'hops') and key (16 bytes) of every record that the
    decision may look at or write; none where the case is decided already.
    """

    cdef Store store
    cdef CaseState state
    cdef VerdictState result
    cdef int64_t clock
    cdef readonly bint decided
    cdef readonly list slots

    def __cinit__(self, Store store, *, client, sender, recipient, client_name=None, name_trusted=None, relay=False,
                  now=None, dry_run=False):
        cdef Request q
        cdef MDB_txn *txn = NULL
        cdef tuple parts = request_parts(client, sender, recipient, client_name)
        cdef int fault = NO_FAULT
        cdef bint decided = True
        store._usable()
        self.store = store
        request_fill(&q, parts, name_trusted, now)
        q.relay, q.dry = relay, dry_run
        self.clock = q.clock
        memset(&self.state, 0, sizeof(self.state))
        memset(&self.result, 0, sizeof(self.result))
        self.state.now, self.state.dry, self.state.settled = q.now, q.dry, ERROR
        with store.lock:
            store.state.error = 0
            if q.relay:
                answer(&self.result, ACCEPT, RELAY, 0)
            else:
                fault = self._begin(&q, &txn, &decided)
            if fault != NO_FAULT:
                decide_error(&store.state, &self.result, fault)
            self.decided = decided
            if decided and not q.dry:
                count_verdict(&store.state, &self.result, q.clock)
        self.slots = [(SLOT_NAMES[self.state.slots[i].kind], self.state.slots[i].key[:KEY_SIZE])
                      for i in range(self.state.size)]

    cdef int _begin(self, const Request *q, MDB_txn **txn, bint *decided) noexcept:
        cdef StoreState *s = &self.store.state
        cdef locale_t before
        cdef int fault
        with nogil:
            before = uselocale(plain_locale)
            fault = decide_begin(s, q, &self.state.e, &self.result, txn, decided)
            if fault == NO_FAULT:
                environment_read_end(&s.passed)
                self.state.head = s.head
                if not decided[0]:
                    case_fill(&self.state)
            uselocale(before)
        if fault != NO_FAULT:
            decided[0] = True
        return fault

    @property
    def verdict(self):
        """The verdict as it stands; None before the case is decided."""
        return verdict_made(&self.store.state, &self.result) if self.decided else None

    def judge(self, records):
        """Decide from the records of slots, in their order: numbers as docs/format.md has them, 0 for one that is not
        there. Gives what is to be written: index in slots, the record that must be there still (0: none), the new
        one, and the seconds for which it is of any use."""
        cdef int i
        if len(records) != self.state.size:
            raise ValueError(f"{len(records)} records for {self.state.size} slots")
        for i in range(self.state.size):
            self.state.slots[i].record = records[i]
        with nogil:
            case_judge(&self.state, &self.result)
        self.decided = True
        return [(i, self.state.slots[i].record, self.state.slots[i].after, self.state.slots[i].keep)
                for i in range(self.state.size) if self.state.slots[i].after]

    @property
    def settled(self):
        """How step 10 ended, whatever mode makes of it: 'new', 'early', 'retry' or 'pool'; None where it was not
        reached."""
        return None if self.state.settled == ERROR else REASON_NAMES[self.state.settled]

    def finish(self):
        """Count the decision, once what it writes is written. Returns the Verdict."""
        cdef StoreState *s = &self.store.state
        if not self.state.dry:
            with self.store.lock:
                if self.state.settled == NEW:
                    count(s, COUNT_STRANGERS)
                elif self.state.settled == RETRY or self.state.settled == POOL:
                    count_promotion(s, self.result.waited)
                count_verdict(s, &self.result, self.clock)
        return self.verdict

    def fail(self):
        """No records can be had: the verdict that on_error names, counted. Returns it."""
        with self.store.lock:
            self.store.state.error = 0
            decide_error(&self.store.state, &self.result, NO_ENGINE)
            self.decided = True
            if not self.state.dry:
                count_verdict(&self.store.state, &self.result, self.clock)
        return self.verdict
