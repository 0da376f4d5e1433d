# Arguments and environment: a byte for the number of arguments, then each of them and each variable up to a NUL.

cdef enum:
    ARGUMENTS_MAX = 7
    VARIABLES_MAX = 16


cdef bint is_one_of(const unsigned char *data, char **texts, int size) noexcept nogil:
    """Does data point into one of the texts?"""
    cdef const char *p = <const char *>data
    cdef int k
    for k in range(size):
        if texts[k] <= p <= texts[k] + strlen(texts[k]):
            return True
    return False


cdef void span_holds(Span s, char **arguments, int argc, char **variables, int count) noexcept nogil:
    """Nothing, or a whole text of what came: no copy that could be cut."""
    if s.data == NULL:
        require(s.size == 0, b"nothing has no size")
        return
    require(is_one_of(s.data, arguments, argc) or is_one_of(s.data, variables, count), b"a request looks at what came")
    require(s.data[s.size] == 0, b"and takes it whole")


cdef void fuzz_caller(Input *i) noexcept nogil:
    cdef int argc = take_byte(i) % (ARGUMENTS_MAX + 1), count = 0, k, hook, skip, fault
    cdef char **argv = <char **>own((argc + 1) * sizeof(char *))
    cdef char **variables = <char **>own((VARIABLES_MAX + 1) * sizeof(char *))
    cdef char **before
    cdef const char *name
    cdef const char *path
    cdef Request q
    for k in range(argc):
        argv[k] = take_string(i)
    argv[argc] = NULL
    while i.size and count < VARIABLES_MAX:
        variables[count] = take_string(i)
        count += 1
    variables[count] = NULL
    memset(&q, 0, sizeof(q))
    before = swap_environment(variables)
    skip = read_hook(argc, argv, &hook, &name)
    require(skip == 1 or skip == 3, b"--hook NAME are two arguments")
    require(CHECKENV <= hook <= NO_HOOK, b"a hook or none")
    path = read_environment(&q)
    require(path == DEFAULT_STORE or is_one_of(<const unsigned char *>path, variables, count), b"a store is named")
    # The executable says it is none and goes on as this.
    fault = read_envelope(&q, CHECKENV if hook == NO_HOOK else hook, argc - skip, argv + skip)
    swap_environment(before)
    require(fault == NO_FAULT or fault == BAD_USAGE or fault == NO_ENVELOPE or fault == BAD_POSTGREY_USAGE,
            b"an envelope, or what is wrong with the call")
    require(fault != NO_FAULT or q.sender.data != NULL and q.recipient.data != NULL, b"a sender and a recipient")
    span_holds(q.client, argv, argc, variables, count)
    span_holds(q.name, argv, argc, variables, count)
    span_holds(q.sender, argv, argc, variables, count)
    span_holds(q.recipient, argv, argc, variables, count)


cdef extern from *:
    """
    static char **swap_environment(char **variables) {
        char **before = environ;
        environ = variables;
        return before;
    }
    """
    char **swap_environment(char **variables) nogil
