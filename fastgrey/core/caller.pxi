# What the mail server says: which hook it runs, the envelope as that hook passes it, and the client.

cdef bint is_option(int argc, char **argv, int program) noexcept nogil:
    """Does --hook NAME stand in front? Two arguments are what a client said under some hooks, and a sender may be named
    --hook; what the client cannot set are variables."""
    cdef int named
    if argc < 2 or strcmp(argv[1], b"--hook") != 0:
        return False
    if argc != 3 or program != CHECKENV and program != ENVELOPE_SCANNER:
        return True
    named = hook_named(argv[2])
    if named == RCPTCHECK and getenv(b"RECIPIENT") != NULL or named == SPP and getenv(b"SMTPRCPTTO") != NULL:
        return True
    # Without a client there is no decision to evade.
    return getenv(b"TCPREMOTEIP") == NULL and getenv(b"TCP6REMOTEIP") == NULL


cdef int read_hook(int argc, char **argv, int *hook, const char **name) noexcept nogil:
    """Which hook it is, NO_HOOK for none, and the name that says so; how many arguments come before the envelope."""
    name[0] = b""
    if argc > 0:
        name[0] = base_name(argv[0])
    hook[0] = hook_of_program(name[0])
    if not is_option(argc, argv, hook[0]):
        return 1
    name[0] = b""
    if argc > 2:
        name[0] = argv[2]
    hook[0] = hook_named(name[0])
    return 3


cdef const char *value_of(const char *entry, const char *name, size_t size) noexcept nogil:
    return entry + size + 1 if strncmp(entry, name, size) == 0 and entry[size] == c"=" else NULL


cdef bint is_client(const char *text) noexcept nogil:
    cdef Client scratch
    return text != NULL and parse_client(span(text, strlen(text)), 24, 64, &scratch) == 0


cdef const char *read_environment(Request *q) noexcept nogil:
    """Fill in the client; the path of the store. One pass, no copy. Of a variable given twice the first counts, as for
    getenv and for qmail."""
    cdef const char *ip = NULL
    cdef const char *ip6 = NULL
    cdef const char *name = NULL
    cdef const char *protocol = NULL
    cdef const char *store = NULL
    cdef char **entry = environ
    while entry[0] != NULL:
        if entry[0][0] == c"T":
            if ip == NULL:
                ip = value_of(entry[0], b"TCPREMOTEIP", 11)
            if ip6 == NULL:
                ip6 = value_of(entry[0], b"TCP6REMOTEIP", 12)
            if name == NULL:
                name = value_of(entry[0], b"TCPREMOTEHOST", 13)
        elif entry[0][0] == c"P":
            if protocol == NULL:
                protocol = value_of(entry[0], b"PROTO", 5)
        elif entry[0][0] == c"R":
            if value_of(entry[0], b"RELAYCLIENT", 11) != NULL:
                q.relay = True
        elif entry[0][0] == c"F":
            if store == NULL:
                store = value_of(entry[0], b"FASTGREY_STORE", 14)
        entry += 1
    # A server says in PROTO which variables are its own; those of another one may be left from further up.
    if protocol != NULL and strcmp(protocol, b"TCP6") == 0:
        ip, ip6 = ip6, ip
    if ip == NULL or ip6 != NULL and not is_client(ip):
        ip = ip6
    if ip != NULL:
        q.client = span(ip, strlen(ip))
    if name != NULL:
        q.name = span(name, strlen(name))
    return store if store != NULL and store[0] else DEFAULT_STORE


cdef int read_envelope(Request *q, int hook, int count, char **words) noexcept nogil:
    """Sender and recipient, and what else stands in the count arguments."""
    cdef const char *sender = NULL
    cdef const char *recipient = NULL
    cdef int fault = NO_FAULT
    if hook == CHECKENV or hook == ENVELOPE_SCANNER:
        if count != 2:
            fault = BAD_USAGE
        sender = words[0] if count > 0 else NULL
        recipient = words[1] if count > 1 else NULL
    elif hook == RCPTCHECK:
        sender = getenv(b"SENDER")
        recipient = getenv(b"RECIPIENT")
    elif hook == SPP:
        sender = getenv(b"SMTPMAILFROM")
        recipient = getenv(b"SMTPRCPTTO")
    else:
        # words[0] is the server that would be asked; a name that is not known may not be given.
        if count != 5 and count != 4:
            return BAD_POSTGREY_USAGE
        sender = words[1]
        recipient = words[2]
        if is_client(words[3]):
            q.client = span(words[3], strlen(words[3]))
        # What qmail says where there is no name.
        if count == 5 and strcmp(words[4], b"unknown") != 0:
            q.name = span(words[4], strlen(words[4]))
    if fault == NO_FAULT and (sender == NULL or recipient == NULL):
        fault = NO_ENVELOPE
    if sender != NULL:
        q.sender = span(sender, strlen(sender))
    if recipient != NULL:
        q.recipient = span(recipient, strlen(recipient))
    return fault
