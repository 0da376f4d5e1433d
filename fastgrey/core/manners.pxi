# The hooks of the field: their names, and what their exit statuses mean to who runs them (docs/hooks.md).
#
# The same status means opposite things to them: 111 defers under CHECKENV, accepts under ENVELOPE_SCANNER and cuts
# the session under RCPTCHECK.

cdef enum HookName:
    CHECKENV = 0
    ENVELOPE_SCANNER = 1
    RCPTCHECK = 2
    SPP = 3
    POSTGREY = 4
    NO_HOOK = 5

cdef enum:
    EXIT_ACCEPT = 0
    EXIT_GREYLISTED = 10
    EXIT_REJECT = 100
    EXIT_ENVELOPE_DEFER = 101
    EXIT_DEFER = 111


cdef struct Caller:
    int hook
    # Where replies or commands go, -1 where there is no such descriptor.
    int channel
    # FASTGREY_RCPTCHECK=close: a deferral that cannot be said cuts the session.
    bint cuts
    # What was to be said has been said, or at least tried; it got through.
    bint said
    bint told


cdef const char *hook_name(int hook) noexcept nogil:
    if hook == CHECKENV:
        return b"checkenv"
    elif hook == ENVELOPE_SCANNER:
        return b"envelope-scanner"
    elif hook == RCPTCHECK:
        return b"rcptcheck"
    elif hook == SPP:
        return b"spp"
    return b"postgrey"


cdef int hook_named(const char *name) noexcept nogil:
    """The hook of that short name, NO_HOOK where there is none."""
    cdef int hook = CHECKENV
    while hook < NO_HOOK and strcmp(name, hook_name(hook)) != 0:
        hook += 1
    return hook


cdef const char *base_name(const char *path) noexcept nogil:
    cdef const char *name = path
    while path[0]:
        if path[0] == c"/":
            name = path + 1
        path += 1
    return name


cdef int hook_of_program(const char *name) noexcept nogil:
    if strncmp(name, b"qmail-", 6) == 0:
        return hook_named(name + 6)
    return hook_named(name + 9 if strncmp(name, b"fastgrey-", 9) == 0 else name)


cdef int exit_status(const Caller *c, int action) noexcept nogil:
    """What to leave with, after what had to be said."""
    if action == ACCEPT or c.hook == SPP:
        return EXIT_ACCEPT
    if c.hook == POSTGREY:
        return EXIT_GREYLISTED
    if action == REJECT:
        return EXIT_REJECT
    if c.hook == ENVELOPE_SCANNER:
        return EXIT_ENVELOPE_DEFER
    if c.hook == RCPTCHECK:
        if c.told:
            return EXIT_REJECT
        return EXIT_DEFER if c.cuts else EXIT_ACCEPT
    return EXIT_DEFER


cdef int untold(const Caller *c, int action) noexcept nogil:
    """The note for a verdict that does not reach the mail server as it stands."""
    if action == ACCEPT or c.told:
        return NO_NOTE
    if c.hook == SPP:
        return NOT_TOLD
    if c.hook == POSTGREY and action == REJECT:
        return REJECTED_IN_VAIN
    if c.hook == RCPTCHECK and action == DEFER:
        return SESSION_CUT if c.cuts else DEFERRED_IN_VAIN
    return NO_NOTE
