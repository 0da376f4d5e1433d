# The store as an object.

cdef class Store:
    """A greylist store, open in this process. Get one from fastgrey.open()."""

    cdef StoreState state
    cdef readonly str path
    cdef readonly bint throw_away
    cdef int pid
    cdef object lock
    cdef bint closed
    cdef int users
    # Keeps the number of the directory from being given to another one, by which open() tells stores apart.
    cdef int anchor

    def __cinit__(self, path: str, bint throw_away=False):
        cdef bytes name = os.fsencode(path)
        memset(&self.state, 0, sizeof(self.state))
        self.path = path
        self.pid = getpid()
        self.lock = threading.RLock()
        self.users = 1
        self.anchor = -1
        self.throw_away = throw_away
        if throw_away:
            self.state.flags = THROW_AWAY
        self._raise(store_path(&self.state, name))
        with self.lock:
            self._probe()
        self.anchor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __dealloc__(self):
        # In a child that a fork made, closing would act on locks and slots of the parent.
        if self.pid == getpid() and not self.closed:
            self._close()

    cdef void _close(self) noexcept:
        self.closed = True
        store_close(&self.state)
        close(self.anchor)

    cdef int _raise(self, int fault) except -1:
        if fault != NO_FAULT:
            raise StoreError(cause_text(&self.state, fault, self.state.error))
        return 0

    cdef int _probe(self) except -1:
        """Open what is there and read its head; StoreError where that fails."""
        cdef MDB_txn *txn = NULL
        cdef int fault
        with nogil:
            fault = passed_read(&self.state, &txn)
            environment_read_end(&self.state.passed)
        return self._raise(fault)

    cdef int _usable(self) except -1:
        cdef int pid = getpid()
        if pid != self.pid:
            raise ForkedError(f"store {self.path} was opened by process {self.pid} and carried over a fork into "
                              f"process {pid}; open it anew there")
        if self.closed:
            raise ClosedError(f"store {self.path} is closed; open it anew")
        return 0

    def check(self, *, client, sender, recipient, client_name=None, name_trusted=None, relay=False, now=None,
              dry_run=False):
        """Decide one recipient of one message, and record what the decision says.

        client: IP address. sender, recipient: envelope addresses (RFC 5321 section 3.3). client_name: host name of
        the client. All of them str or bytes. name_trusted: whether that name is forward-confirmed, None for what the
        setting says. relay: the client may relay. now: Unix seconds, None for the clock. dry_run: write nothing.

        Returns a Verdict. What keeps a decision from being made is a verdict too, with reason 'error' and a cause.
        Raises ForkedError, ClosedError, TypeError.

        The records are those of this store, also where others are shared (the setting shared): see ask.
        """
        cdef Request q
        cdef VerdictState v
        cdef tuple parts = request_parts(client, sender, recipient, client_name)
        self._usable()
        request_fill(&q, parts, name_trusted, now)
        q.relay = relay
        q.dry = dry_run
        with self.lock:
            self._decide(&q, &v)
            return verdict_made(&self.state, &v)

    def ask(self, **request):
        """Decide as a hook does, with the arguments of check: where the setting shared says so, the records are elsewhere,
        and fastgrey serve is asked, five seconds at most.

        Returns a Verdict; where the server does not answer, one with reason 'error'. Raises as check does.
        """
        cdef Told told
        with self.lock:
            self.state.told = &told
            try:
                return self.check(**request)
            finally:
                self.state.told = NULL

    cdef void _decide(self, const Request *q, VerdictState *v) noexcept:
        cdef locale_t before
        with nogil:
            before = uselocale(plain_locale)
            decide(&self.state, q, v)
            uselocale(before)

    def close(self):
        """Give the store back. The last of several opens of the same store in a process closes it."""
        if self.pid != getpid() or self.closed:
            return
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self._close()

    def _share(self):
        self.users += 1

    def _alone(self):
        """A context in which no other thread of this process uses the store."""
        return self.lock

    def __reduce__(self):
        raise TypeError(f"store {self.path} cannot be handed to another process; open it anew there")

    @property
    def is_open(self):
        """Whether this process may use the store."""
        return not self.closed and self.pid == getpid()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def head(self):
        """Format version, generation number, time made, settings by slot, and whether a compaction is noted."""
        self._usable()
        with self.lock:
            self._probe()
            return {
                "version": self.state.head.version,
                "generation": self.state.generation.decode(),
                "made": self.state.head.made,
                "noting": bool(self.state.head.noting),
                "policy": self.state.head.policy,
                "rules": self.state.head.rules,
                "settings": settings_list(&self.state.head),
            }

    def configure(self, settings: list[int], policy: bytes | None = None, prepare=None) -> int:
        """Set every setting, by slot, and with policy the compiled rules, in one transaction.

        prepare(number) is called with the number that the policy gets, before anybody can see it. Returns the number
        of the policy in force.
        """
        cdef MDB_txn *txn = NULL
        cdef MDB_val key, value
        cdef Head head
        cdef PolicyHead *compiled = NULL
        cdef bytearray record
        cdef int rc, i, attempt
        cdef bint again = True
        cdef int64_t values[SETTINGS]
        self._usable()
        for i in range(SETTINGS):
            values[i] = settings[i]
        if policy is not None:
            record = bytearray(policy)
            compiled = <PolicyHead *><char *>record
        with self.lock:
            for attempt in range(TRIES):
                self._raise(passed_write(&self.state, &txn))
                head = self.state.head
                memcpy(&head.settings, values, sizeof(values))
                rc = 0
                if compiled != NULL:
                    head.policy += 1
                    head.rules = compiled.rules
                    compiled.number = head.policy
                    compiled.applied = <int64_t>clock.time()
                    try:
                        prepare(head.policy)
                    except BaseException:
                        mdb_txn_abort(txn)
                        raise
                    policy_key(&key)
                    value.mv_data = compiled
                    value.mv_size = len(record)
                    rc = mdb_put(txn, self.state.meta, &key, &value, 0)
                if rc == 0:
                    rc = head_put(&self.state, txn, &head)
                rc = passed_commit(&self.state, txn, rc, &again)
                if not again:
                    self._raise(rc)
                    break
            counters_follow(&self.state, &head)
            return head.policy

    def policy(self):
        """The compiled policy in force as bytes, None where none was ever applied; and the settings by slot with it."""
        cdef MDB_txn *txn = NULL
        self._usable()
        with self.lock:
            self._raise(passed_read(&self.state, &txn))
            try:
                return policy_bytes(&self.state, txn), settings_list(&self.state.head)
            finally:
                environment_read_end(&self.state.passed)

    def counters(self):
        """The page of counters; None where there is no usable one.

        totals, and those of every snapshot, are in the order of VERDICTS; verdicts has the same by name, without
        zeros. waits are counts by WAIT_BOUNDS. snapshots has pairs of Unix time and totals modulo 2**32 by ring.
        """
        self._usable()
        return None if self.state.counters == NULL else page_read(self.state.counters)

    def known(self):
        """Number of known records by kind, the expired ones included."""
        cdef MDB_txn *txn = NULL
        cdef MDB_stat stat
        self._usable()
        with self.lock:
            self._raise(passed_read(&self.state, &txn))
            numbers = {}
            for kind in range(4):
                mdb_stat(txn, self.state.known[kind], &stat)
                numbers[kind_name(kind).decode()] = stat.ms_entries
            environment_read_end(&self.state.passed)
            return numbers

    def alive(self, now: int):
        """Number of known records by kind that have not expired at the Unix time now. Goes through all of them."""
        cdef MDB_txn *txn = NULL
        cdef MDB_cursor *cursor = NULL
        cdef MDB_val key, value
        cdef int64_t when = now
        cdef size_t number
        cdef int kind, rc
        self._usable()
        with self.lock:
            self._raise(passed_read(&self.state, &txn))
            numbers = {}
            for kind in range(4):
                number = 0
                with nogil:
                    rc = mdb_cursor_open(txn, self.state.known[kind], &cursor)
                    if rc == 0:
                        rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
                        while rc == 0:
                            number += value_alive(&self.state, &value, when)
                            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
                        mdb_cursor_close(cursor)
                numbers[kind_name(kind).decode()] = number
            environment_read_end(&self.state.passed)
            return numbers

    def partitions(self):
        """The partitions of pending, the oldest first: start and length in seconds, part (from 0), number of records."""
        cdef MDB_txn *txn = NULL
        cdef MDB_stat stat
        cdef Partitions parts
        cdef int rc
        self._usable()
        with self.lock:
            self._probe()
            self._raise(pending_open(&self.state, False))
            if self.state.pending.env == NULL:
                return []
            rc = environment_read(&self.state.pending, &txn)
            if rc == 0:
                # From time 0 no partition is in the past.
                rc = partitions_list(&self.state, txn, 0, 0, &parts)
                found = []
                for i in range(parts.size if rc == 0 else 0):
                    mdb_stat(txn, parts.items[i].dbi, &stat)
                    found.append({"start": parts.items[i].start, "length": parts.items[i].length,
                                  "part": parts.items[i].part, "records": stat.ms_entries})
                environment_read_end(&self.state.pending)
            if rc != 0:
                environment_close(&self.state.pending)
                self._raise(fail(&self.state, CANNOT_READ, rc))
            return found[::-1]

    def drop_expired(self, now: int) -> int:
        """Drop the partitions of pending that hold no live record any more, and the slots of dead readers; the number of
        partitions."""
        cdef MDB_txn *txn = NULL
        cdef int rc, dropped = 0, dead = 0
        cdef int64_t when = now
        self._usable()
        with self.lock:
            self._probe()
            self._raise(pending_open(&self.state, False))
            if self.state.pending.env == NULL:
                return 0
            # What a killed reader pins could not be used again, for as long as somebody has the store open.
            mdb_reader_check(self.state.pending.env, &dead)
            rc = environment_write(&self.state.pending, &txn)
            if rc == 0:
                rc = partitions_drop(txn, when, pending_horizon(&self.state), &dropped)
                if rc == 0:
                    rc = mdb_txn_commit(txn)
                else:
                    mdb_txn_abort(txn)
            if rc != 0:
                environment_close(&self.state.pending)
                self._raise(fail(&self.state, CANNOT_WRITE, rc))
            return dropped
