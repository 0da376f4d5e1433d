# --version and --help of the executable.

cdef void print_and_exit(const char *text, size_t size) noexcept nogil:
    write(1, text, size)
    _exit(0)


cdef void show_version() noexcept nogil:
    cdef char line[200]
    cdef Text t = text_begin(line, sizeof(line))
    text_add(&t, b"qmail-checkenv ")
    text_add(&t, PROGRAM_VERSION)
    text_add(&t, b", ")
    text_add(&t, mdb_version(NULL, NULL, NULL))
    text_char(&t, c"\n")
    print_and_exit(line, t.size)


cdef void show_help() noexcept nogil:
    cdef const char *page = (
        b"qmail-checkenv: greylisting, run by the mail server for every recipient\n"
        b"\n"
        b"hook              run as                                           accept  defer  reject\n"
        b"checkenv          qmail-checkenv SENDER RECIPIENT                  0       111    100\n"
        b"envelope-scanner  fastgrey-envelope-scanner SENDER RECIPIENT       0       101    100\n"
        b"rcptcheck         fastgrey-rcptcheck, with SENDER and RECIPIENT    0       0      100\n"
        b"                  ... and USE_FD4: replies on descriptor 4         0       100    100\n"
        b"                  ... and FASTGREY_RCPTCHECK=close                 0       111    100\n"
        b"spp               fastgrey-spp in [rcpt]: commands on stdout       0       0      0\n"
        b"postgrey          qmail-postgrey SERVER SENDER RECIPIENT CLIENT    0       10     10\n"
        b"                  NAME\n"
        b"\n"
        b"The name of the program says which hook it is (checkenv, qmail-checkenv and fastgrey-checkenv are\n"
        b"the same), or, before all other arguments, --hook NAME. Alone: --help, --version.\n"
        b"\n"
        b"Environment: TCPREMOTEIP, TCP6REMOTEIP, PROTO, TCPREMOTEHOST, RELAYCLIENT from the server;\n"
        b"FASTGREY_STORE, the store, otherwise ")
    cdef const char *rest = (
        b";\n"
        b"FASTGREY_DEFER_TEXT and FASTGREY_REJECT_TEXT, texts of replies on stdout and descriptor 4;\n"
        b"FASTGREY_TRACE, for spp the name of a header to add (X-Greylist if empty).\n"
        b"\n"
        b"Each decision is a line on standard error. Settings and rules: fastgrey --help\n"
        b"\n"
        b"example: TCPREMOTEIP=192.0.2.7 qmail-checkenv news@example.org you@example.net; echo $?\n")
    cdef char whole[2500]
    cdef Text t = text_begin(whole, sizeof(whole))
    text_add(&t, page)
    text_add(&t, DEFAULT_STORE)
    text_add(&t, rest)
    print_and_exit(whole, t.size)
