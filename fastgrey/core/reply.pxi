# What some hooks say beside their exit status: SMTP replies, and the commands of qmail-spp.

cdef enum:
    # RFC 5321 section 4.5.3.1.5: 512 bytes, of which the mail server adds CR and LF.
    REPLY_MAX = 510
    SAID_SIZE = 600


cdef const char *text_of(const char *variable, const char *default) noexcept nogil:
    cdef const char *value = getenv(variable)
    return value if value != NULL and value[0] else default


cdef void reply(Text *t, int action, const char *defer_code) noexcept nogil:
    """A reply without its end of line. What is no printable ASCII (RFC 5321 section 4.2) becomes a question mark."""
    cdef size_t end = t.size + REPLY_MAX
    cdef const char *said
    if action == DEFER:
        text_add(t, defer_code)
        text_add(t, b" 4.7.1 ")
        said = text_of(b"FASTGREY_DEFER_TEXT", b"greylisted, please try again later")
    else:
        text_add(t, b"553 5.7.1 ")
        said = text_of(b"FASTGREY_REJECT_TEXT", b"sorry, your mail is not wanted here")
    while said[0] and t.size < end:
        text_char(t, said[0] if 32 <= said[0] < 127 else c"?")
        said += 1


cdef bint variable_is(const char *variable, const char *expected) noexcept nogil:
    cdef const char *value = getenv(variable)
    return value != NULL and strcmp(value, expected) == 0


cdef void spp_trace(Text *t, VerdictState *v) noexcept nogil:
    """A header field that tells why the message passed. Only of the first recipient: it belongs to the message."""
    cdef const char *name = getenv(b"FASTGREY_TRACE")
    if name == NULL or not variable_is(b"SMTPRCPTCOUNT", b"0"):
        return
    if not name[0]:
        name = b"X-Greylist"
    if not is_header_name(name):
        v.notes |= NO_TRACE
        return
    text_char(t, c"H")
    trace_field(t, name, PROGRAM_VERSION, v)
    text_char(t, c"\n")


cdef void spp_commands(Text *t, const Request *q, VerdictState *v) noexcept nogil:
    """For [rcpt] of qmail-spp. Never O or N, which keep the mail server or other plugins from their checks."""
    if v.action == ACCEPT:
        spp_trace(t, v)
        return
    if v.action == DEFER and q.sender.size == 0 and variable_is(b"SMTPRCPTCOUNTALL", b"1"):
        # Who verifies an address (a callout) asks as the null sender and leaves before DATA (Harris 2003). For the
        # first recipient alone: qmail-spp would send one reply for each such command, all of them to one DATA.
        text_add(t, b"LD")
    else:
        text_char(t, c"E")
    reply(t, v.action, b"451")
    text_char(t, c"\n")


cdef int open_channel(int hook) noexcept nogil:
    """Where to say it: standard output for qmail-spp, descriptor 4 for who set USE_FD4 (RCPTCHECK in some qmails); -1
    where that is closed or something else. To be asked before any file is opened, which would get the number."""
    cdef stat_t status
    cdef int fd = 1 if hook == SPP else 4
    if hook != SPP and (hook != RCPTCHECK or getenv(b"USE_FD4") == NULL):
        return -1
    if fcntl(fd, F_GETFL) & O_ACCMODE == O_RDONLY or fstat(fd, &status) != 0:
        return -1
    # Inherited by mistake, 4 could be anything; the mail server makes a pipe.
    return fd if hook == SPP or S_ISFIFO(status.st_mode) else -1


cdef void say(Caller *c, const Request *q, VerdictState *v) noexcept nogil:
    """Say what the exit status does not, and note what could not be said. Once: a signal that comes while it is being
    written ends the process without another word."""
    cdef char said[SAID_SIZE]
    cdef Text t = text_begin(said, SAID_SIZE)
    if c.said:
        return
    if c.hook == SPP:
        spp_commands(&t, q, v)
    elif v.action != ACCEPT:
        reply(&t, v.action, b"450")
        text_char(&t, c"\n")
    c.said = True
    if c.channel >= 0 and t.size:
        c.told = write(c.channel, said, t.size) == <ssize_t>t.size
    v.notes |= untold(c, v.action)
