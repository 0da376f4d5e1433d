# qmail-checkenv: arguments and environment in, exit code and one log line out.
#
# qmail-smtpd runs it for every recipient with whatever descriptors, signals, limits and files happen to be there,
# so nothing here may hang, die by a signal or write where it should not.

cdef enum:
    EXIT_ACCEPT = 0
    EXIT_REJECT = 100
    EXIT_DEFER = 111
    # Below the ten seconds after which a caller may kill it: then its verdict would be lost.
    LIFE_SECONDS = 8
    # For all regular expressions together; one that apply lets through may take a tenth of a second at worst.
    REGEX_MICROSECONDS = 500000

cdef extern from *:
    """
    #ifndef FASTGREY_DEFAULT_STORE
    #define FASTGREY_DEFAULT_STORE "/var/lib/fastgrey"
    #endif
    #ifndef FASTGREY_VERSION
    #define FASTGREY_VERSION "unknown"
    #endif
    """
    const char *DEFAULT_STORE "FASTGREY_DEFAULT_STORE"
    const char *PROGRAM_VERSION "FASTGREY_VERSION"


cdef struct Hook:
    StoreState store
    Request request
    VerdictState verdict
    bint decided

# All zero at start, as the executable needs it.
cdef Hook hook


cdef int exit_code(int action) noexcept nogil:
    if action == ACCEPT:
        return EXIT_ACCEPT
    return EXIT_REJECT if action == REJECT else EXIT_DEFER


cdef void leave() noexcept nogil:
    """Log and exit. LMDB is not closed: with the reader slots given back the kernel does all else, and quicker."""
    # On the stack, where the decision has left pages that cost no fault any more.
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    hook.decided = True
    log_line(&t, &hook.store, &hook.request, &hook.verdict)
    # A line that had to be cut still ends as a line.
    line[t.size - 1] = c"\n"
    write(2, line, t.size)
    _exit(exit_code(hook.verdict.action))


cdef void leave_faulty(int fault) noexcept nogil:
    decide_error(&hook.store, &hook.verdict, fault)
    count_verdict(&hook.store, &hook.verdict, hook.request.clock)
    leave()


cdef void on_signal(int number) noexcept nogil:
    if hook.decided:
        _exit(exit_code(hook.verdict.action))
    # A second signal, while the line is made, finds the verdict that stands.
    hook.decided = True
    hook.store.error = 0
    if number == SIGPROF:
        leave_faulty(RULE_FAILED)
    leave_faulty(TOO_SLOW if number == SIGALRM else DAMAGED)


cdef void guard_descriptors() noexcept nogil:
    """Where standard error is closed, the next file opened would take its number, and the log line end in a table."""
    cdef int fd = 0
    if fcntl(2, F_GETFD) >= 0:
        return
    while fd >= 0 and fd < 2:
        fd = open(b"/dev/null", O_RDWR)


cdef void guard_signals() noexcept nogil:
    cdef sigaction_t action
    cdef sigset_t alarms
    memset(&action, 0, sizeof(action))
    action.sa_handler = on_signal
    sigaction(SIGALRM, &action, NULL)
    # A cut file raises SIGBUS where it is read, a damaged one any of these.
    sigaction(SIGBUS, &action, NULL)
    sigaction(SIGSEGV, &action, NULL)
    sigaction(SIGABRT, &action, NULL)
    sigaction(SIGFPE, &action, NULL)
    sigaction(SIGPROF, &action, NULL)
    action.sa_handler = SIG_IGN
    # A log reader that is gone, a file size limit: errors to report, not deaths.
    sigaction(SIGPIPE, &action, NULL)
    sigaction(SIGXFSZ, &action, NULL)
    sigemptyset(&alarms)
    sigaddset(&alarms, SIGALRM)
    sigaddset(&alarms, SIGPROF)
    sigprocmask(SIG_UNBLOCK, &alarms, NULL)
    alarm(LIFE_SECONDS)


cdef const char *value_of(const char *entry, const char *name, size_t size) noexcept nogil:
    return entry + size + 1 if strncmp(entry, name, size) == 0 and entry[size] == c"=" else NULL


cdef const char *read_environment(Request *q) noexcept nogil:
    """Fill the request; the path of the store. One pass, no copy."""
    cdef const char *ip = NULL
    cdef const char *ip6 = NULL
    cdef const char *store = NULL
    cdef const char *value
    cdef Client scratch
    cdef char **entry = environ
    while entry[0] != NULL:
        if entry[0][0] == c"T":
            value = value_of(entry[0], b"TCPREMOTEIP", 11)
            if value != NULL:
                ip = value
            value = value_of(entry[0], b"TCP6REMOTEIP", 12)
            if value != NULL:
                ip6 = value
            value = value_of(entry[0], b"TCPREMOTEHOST", 13)
            if value != NULL:
                q.name = span(value, strlen(value))
        elif entry[0][0] == c"R":
            if value_of(entry[0], b"RELAYCLIENT", 11) != NULL:
                q.relay = True
        elif entry[0][0] == c"F":
            value = value_of(entry[0], b"FASTGREY_STORE", 14)
            if value != NULL and value[0]:
                store = value
        entry += 1
    if ip != NULL:
        q.client = span(ip, strlen(ip))
    # Some servers give IPv6 clients in the second variable alone.
    if ip6 != NULL and (ip == NULL or parse_client(q.client, 24, 64, &scratch) != 0):
        q.client = span(ip6, strlen(ip6))
    return store if store != NULL else DEFAULT_STORE


cdef void show_version() noexcept nogil:
    cdef char line[200]
    cdef Text t = text_begin(line, sizeof(line))
    text_add(&t, b"qmail-checkenv ")
    text_add(&t, PROGRAM_VERSION)
    text_add(&t, b", ")
    text_add(&t, mdb_version(NULL, NULL, NULL))
    text_char(&t, c"\n")
    write(1, line, t.size)
    _exit(0)


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef timespec clock
    cdef Request *q = &hook.request
    cdef const char *path
    cdef int fault
    if argc == 2 and strcmp(argv[1], b"--version") == 0:
        show_version()
    guard_descriptors()
    guard_signals()
    hook.store.regex_bound = REGEX_MICROSECONDS
    q.name_trusted = -1
    # Through the kernel's shared page it would be quicker, but for the faults of mapping that page for one call.
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &clock)
    q.clock = clock.tv_sec
    q.now = q.clock
    if argc > 1:
        q.sender = span(argv[1], strlen(argv[1]))
    if argc > 2:
        q.recipient = span(argv[2], strlen(argv[2]))
    path = read_environment(q)
    fault = store_path(&hook.store, path)
    if argc != 3:
        fault = BAD_USAGE
    if fault != NO_FAULT:
        leave_faulty(fault)
    decide(&hook.store, q, &hook.verdict)
    environment_leave(&hook.store.passed)
    environment_leave(&hook.store.pending)
    leave()
    return EXIT_DEFER
