# The executable: a request from its mail server in, the verdict in that server's terms and one log line out.
#
# qmail-smtpd runs it for every recipient with whatever descriptors, signals, limits and files happen to be there,
# so nothing here may hang, die by a signal or write where it should not.

cdef enum:
    # Below the ten seconds after which a caller may kill it: then its verdict would be lost.
    LIFE_SECONDS = 8
    # For all regular expressions together; one that apply lets through may take a tenth of a second at worst.
    REGEX_MICROSECONDS = 500000


cdef struct Hook:
    StoreState store
    Request request
    VerdictState verdict
    Caller caller
    bint decided
    # The page of counters is being touched for a fault.
    bint counting

# All zero at start, as the executable needs it.
cdef Hook hook
# By itself, for fastgrey/order.ld: a hook that asks nobody does not touch it.
cdef Told told


cdef void leave() noexcept nogil:
    """Say, log and exit. LMDB is not closed: with the reader slots given back the kernel does all else, and quicker."""
    # On the stack, where the decision has left pages that cost no fault any more.
    cdef char line[LINE_SIZE]
    cdef Text t = text_begin(line, LINE_SIZE)
    hook.decided = True
    if hook.caller.hook >= RCPTCHECK:
        say(&hook.caller, &hook.request, &hook.verdict)
    log_line(&t, &hook.store, &hook.request, &hook.verdict)
    # A line that had to be cut still ends as a line.
    line[t.size - 1] = c"\n"
    write(2, line, t.size)
    _exit(exit_status(&hook.caller, hook.verdict.action))


cdef void leave_faulty(int fault) noexcept nogil:
    hook.counting = True
    decide_error(&hook.store, &hook.verdict, fault)
    count_verdict(&hook.store, &hook.verdict, hook.request.clock)
    hook.counting = False
    leave()


cdef void on_signal(int number) noexcept nogil:
    if hook.counting:
        # That page is the damaged file: without it.
        hook.counting = False
        hook.store.counters = NULL
        decide_error(&hook.store, &hook.verdict, hook.verdict.fault)
        leave()
    if hook.decided:
        if hook.caller.hook >= RCPTCHECK:
            say(&hook.caller, &hook.request, &hook.verdict)
        _exit(exit_status(&hook.caller, hook.verdict.action))
    # A second signal, while the line is made, finds the verdict that stands.
    hook.decided = True
    hook.store.error = 0
    if number == SIGPROF:
        leave_faulty(RULE_FAILED)
    leave_faulty(TOO_SLOW if number == SIGALRM else DAMAGED)


cdef void on_assertion(MDB_env *env, const char *text) noexcept nogil:
    on_signal(SIGABRT)


cdef void guard_descriptors() noexcept nogil:
    """Where standard error is closed, the next file opened would take its number, and the log line end in a table."""
    cdef int fd = 0
    if fcntl(2, F_GETFD) >= 0:
        return
    while fd >= 0 and fd < 2:
        fd = open(b"/dev/null", O_RDWR)


cdef void guard_signals() noexcept nogil:
    cdef sigaction_t action
    cdef sigset_t handled
    global on_broken_assertion
    on_broken_assertion = on_assertion
    memset(&action, 0, sizeof(action))
    action.sa_handler = on_signal
    # A fault of memory in its own handler would kill.
    action.sa_flags = SA_NODEFER
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
    # What a parent blocked stays so through exec: the alarm would never come, and the kernel kills for a fault of
    # memory that is blocked.
    sigemptyset(&handled)
    sigaddset(&handled, SIGALRM)
    sigaddset(&handled, SIGPROF)
    sigaddset(&handled, SIGBUS)
    sigaddset(&handled, SIGSEGV)
    sigaddset(&handled, SIGFPE)
    sigprocmask(SIG_UNBLOCK, &handled, NULL)
    alarm(LIFE_SECONDS)


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef timespec clock
    cdef Request *q = &hook.request
    cdef const char *path
    cdef const char *name
    cdef int fault = NO_FAULT, usage_fault, store_fault, skip
    if argc == 2 and argv[1][0] == c"-":
        if strcmp(argv[1], b"--version") == 0:
            show_version()
        if strcmp(argv[1], b"--help") == 0:
            show_help()
    skip = read_hook(argc, argv, &hook.caller.hook, &name)
    if hook.caller.hook == NO_HOOK:
        hook.caller.hook = CHECKENV
        hook.store.part = name
        fault = BAD_HOOK
    hook.caller.channel = open_channel(hook.caller.hook)
    hook.caller.cuts = hook.caller.hook == RCPTCHECK and variable_is(b"FASTGREY_RCPTCHECK", b"close")
    guard_descriptors()
    guard_signals()
    hook.store.regex_bound = REGEX_MICROSECONDS
    hook.store.told = &told
    q.name_trusted = -1
    # Through the kernel's shared page it would be quicker, but for the faults of mapping that page for one call.
    if syscall(SYS_clock_gettime, CLOCK_REALTIME, &clock) == 0:
        q.clock = clock.tv_sec
        q.now = q.clock
    else:
        # At 0, the year 1970, whoever is promoted would be forgotten at once.
        q.now = -1
    path = read_environment(q)
    if hook.caller.hook == SPP and (q.relay or variable_is(b"SMTPRCPTHOSTSOK", b"0")):
        _exit(EXIT_ACCEPT)
    usage_fault = read_envelope(q, hook.caller.hook, argc - skip, argv + skip)
    store_fault = store_path(&hook.store, path)
    if fault == NO_FAULT:
        fault = usage_fault if usage_fault != NO_FAULT else store_fault
    if fault != NO_FAULT:
        leave_faulty(fault)
    decide(&hook.store, q, &hook.verdict)
    environment_leave(&hook.store.passed)
    environment_leave(&hook.store.pending)
    leave()
    return EXIT_DEFER
