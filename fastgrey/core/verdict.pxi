# What a decision can be: action, reason, seconds to wait, and for an error its cause.

cdef enum Action:
    ACCEPT = 0
    DEFER = 1
    REJECT = 2

cdef enum Reason:
    RELAY = 0
    ALLOWED = 1
    OPTED_OUT = 2
    EXPECTED = 3
    KNOWN_CLIENT = 4
    KNOWN_DOMAIN = 5
    KNOWN_TRIPLET = 6
    KNOWN_PAIR = 7
    RETRY = 8
    POOL = 9
    LEARN = 10
    ERROR = 11
    NEW = 12
    EARLY = 13
    DENIED = 14

# A fault is what keeps a decision from being made. Every one has a line in fault_text and fault_remedy.
cdef enum Fault:
    NO_FAULT = 0
    BAD_USAGE = 1
    BAD_CLIENT = 2
    BAD_SENDER = 3
    BAD_RECIPIENT = 4
    BAD_CLOCK = 5
    PATH_TOO_LONG = 6
    NO_STORE = 7
    NOT_A_STORE = 8
    OTHER_VERSION = 9
    CANNOT_OPEN = 10
    CANNOT_READ = 11
    CANNOT_WRITE = 12
    NO_BOOT_ID = 13
    UNSTABLE = 14
    TOO_SLOW = 15
    DAMAGED = 16
    RULE_FAILED = 17
    MISLED = 18
    OTHER_MACHINE = 19
    TOO_MANY_READERS = 20
    BAD_HOOK = 21
    NO_ENVELOPE = 22
    BAD_POSTGREY_USAGE = 23
    NO_VIEW = 24
    NO_SERVER = 25
    NO_ENGINE = 26

# What went wrong beside a verdict that stands all the same.
cdef enum Note:
    NO_NOTE = 0
    NOT_REFRESHED = 1
    NOT_RECORDED = 2
    GAVE_UP_PARTITION = 4
    # The mail server cannot be told the verdict (docs/hooks.md).
    DEFERRED_IN_VAIN = 8
    REJECTED_IN_VAIN = 16
    SESSION_CUT = 32
    NOT_TOLD = 64
    NO_TRACE = 128
    LAST_NOTE = 128

# What a quick decision left to another one, because it would be flushed.
cdef enum Left:
    NOTHING_LEFT = 0
    # A last-seen time; the verdict stands.
    REFRESH_LEFT = 1
    # A promotion; there is no verdict yet, and nothing is counted.
    PROMOTION_LEFT = 2


# Texts of the process that decided, where that was another one. Both end with NUL; each of the notes begins with "; ".
cdef struct Told:
    char cause[CAUSE_SIZE]
    char notes[NOTES_SIZE]


cdef struct VerdictState:
    int action
    int reason
    int64_t wait
    # Of what retry or pool accepts: the seconds since its first attempt.
    int64_t waited
    int fault
    int error
    int notes
    int left
    # The key of the triplet under the client's network, also the one in the log line.
    unsigned char key[KEY_SIZE]
    bint has_key
    # What fastgrey serve said, which decided and counted it; NULL for what was decided here.
    const Told *told
    # The rule that decided: its number from 1 in the policy, 0 for none, and its FILE:LINE. The text comes last: it is
    # not cleared (decide.pxi).
    uint32_t rule_number
    char rule[PLACE_SIZE]


cdef void answer(VerdictState *v, int action, int reason, int64_t wait) noexcept nogil:
    v.action = action
    v.reason = reason
    v.wait = wait


cdef const char *action_name(int action) noexcept nogil:
    if action == ACCEPT:
        return b"accept"
    if action == DEFER:
        return b"defer"
    return b"reject"


cdef const char *reason_name(int reason) noexcept nogil:
    if reason == RELAY:
        return b"relay"
    elif reason == ALLOWED:
        return b"allowed"
    elif reason == OPTED_OUT:
        return b"opted-out"
    elif reason == EXPECTED:
        return b"expected"
    elif reason == KNOWN_CLIENT:
        return b"known-client"
    elif reason == KNOWN_DOMAIN:
        return b"known-domain"
    elif reason == KNOWN_TRIPLET:
        return b"known-triplet"
    elif reason == KNOWN_PAIR:
        return b"known-pair"
    elif reason == RETRY:
        return b"retry"
    elif reason == POOL:
        return b"pool"
    elif reason == LEARN:
        return b"learn"
    elif reason == NEW:
        return b"new"
    elif reason == EARLY:
        return b"early"
    elif reason == DENIED:
        return b"denied"
    return b"error"


cdef const char *fault_text(int fault) noexcept nogil:
    if fault == BAD_USAGE:
        return b"wants exactly two arguments, SENDER and RECIPIENT"
    elif fault == BAD_CLIENT:
        return b"the client address is no IP address"
    elif fault == BAD_SENDER:
        return b"the sender is longer than 1000 bytes or holds NUL, CR or LF"
    elif fault == BAD_RECIPIENT:
        return b"the recipient is longer than 1000 bytes or holds NUL, CR or LF"
    elif fault == BAD_CLOCK:
        return b"the time is before 1970 or after the year 36000"
    elif fault == PATH_TOO_LONG:
        return b"the path of the store is too long"
    elif fault == NO_STORE:
        return b"there is no store"
    elif fault == NOT_A_STORE:
        return b"this is not a fastgrey store, or it is damaged"
    elif fault == OTHER_VERSION:
        return b"the store has another format version"
    elif fault == CANNOT_OPEN:
        return b"cannot open the store"
    elif fault == CANNOT_READ:
        return b"cannot read the store"
    elif fault == CANNOT_WRITE:
        return b"cannot write to the store"
    elif fault == NO_BOOT_ID:
        return b"cannot read /proc/sys/kernel/random/boot_id"
    elif fault == UNSTABLE:
        return b"the store was swapped or resized again and again"
    elif fault == TOO_SLOW:
        return b"no answer from the store in time"
    elif fault == RULE_FAILED:
        return b"a regular expression of the rules took too long or too much memory"
    elif fault == MISLED:
        return b"a link stands where the store has a file or directory of its own"
    elif fault == OTHER_MACHINE:
        return b"the store was made by a machine of another byte order or word size"
    elif fault == BAD_HOOK:
        return b"there is no hook named"
    elif fault == NO_ENVELOPE:
        return b"sender and recipient are not in the environment"
    elif fault == BAD_POSTGREY_USAGE:
        return b"wants as arguments SERVER, SENDER, RECIPIENT, CLIENT and, where there is one, NAME"
    elif fault == TOO_MANY_READERS:
        return b"too many processes read the store at once"
    elif fault == NO_VIEW:
        return b"cannot make a directory of two links in /dev/shm, /tmp or /var/tmp, by which a store is opened"
    elif fault == NO_SERVER:
        return b"no answer from fastgrey serve, which decides where records are shared:"
    elif fault == NO_ENGINE:
        return b"the engine that holds the shared records does not answer"
    return b"a file of the store is damaged or was cut short"


cdef const char *fault_remedy(int fault) noexcept nogil:
    if fault == BAD_USAGE:
        return b"call it as: qmail-checkenv SENDER RECIPIENT, or say first who calls: --hook NAME"
    elif fault == BAD_CLIENT:
        return b"run it under tcpserver, or set TCPREMOTEIP or TCP6REMOTEIP"
    elif fault == BAD_SENDER or fault == BAD_RECIPIENT:
        return b"nothing to do here: the client sent it"
    elif fault == BAD_CLOCK:
        return b"set the clock"
    elif fault == PATH_TOO_LONG:
        return b"set FASTGREY_STORE to a path of fewer than 390 bytes"
    elif fault == NO_STORE:
        return b"make one with: fastgrey init, or set FASTGREY_STORE"
    elif fault == OTHER_VERSION:
        return b"use the fastgrey that made it, or make a new store with: fastgrey init"
    elif fault == CANNOT_OPEN or fault == CANNOT_WRITE:
        return b"check free space, memory limits, and that this user is in the store's group; ask: fastgrey doctor"
    elif fault == NO_BOOT_ID:
        return b"mount /proc where the hook runs"
    elif fault == TOO_SLOW:
        return b"look for a stopped process that holds the store, and for a slow disk"
    elif fault == RULE_FAILED:
        return b"write that rule in a simpler way, or list what it stands for; then: fastgrey apply"
    elif fault == MISLED:
        return b"see who made it (find STORE -type l -o -links +1 -type f), and remove it"
    elif fault == OTHER_MACHINE:
        return b"move it away, and make a new one here with: fastgrey init"
    elif fault == BAD_HOOK:
        return (b"call it checkenv, envelope-scanner, rcptcheck, spp or postgrey, alone or after qmail- or fastgrey-, "
                b"or say one of them first: --hook NAME")
    elif fault == NO_ENVELOPE:
        return b"run it as RCPTCHECK (SENDER, RECIPIENT), or in [rcpt] of qmail-spp (SMTPMAILFROM, SMTPRCPTTO)"
    elif fault == BAD_POSTGREY_USAGE:
        return b"let the qmail-smtpd of s/qmail run it, as POSTGREY says"
    elif fault == TOO_MANY_READERS:
        return b"look for those that do not end: fuser -v STORE/*/lock.mdb; ask: fastgrey doctor"
    elif fault == NO_VIEW:
        return b"make room in one of them, and let this user write there"
    elif fault == NO_SERVER:
        return b"start it with: fastgrey serve, or set shared = false and: fastgrey apply"
    elif fault == NO_ENGINE:
        return b"see the log of fastgrey serve, which names it"
    return b"ask: fastgrey doctor"


cdef const char *note_text(int note) noexcept nogil:
    if note == NOT_REFRESHED:
        return b"last-seen time not written"
    elif note == NOT_RECORDED:
        return b"pending is full, this triplet was not recorded"
    elif note == GAVE_UP_PARTITION:
        return b"pending is full, its oldest partition was given up"
    elif note == DEFERRED_IN_VAIN:
        return b"accepted all the same: this hook cannot defer"
    elif note == REJECTED_IN_VAIN:
        return b"deferred only: this hook cannot reject"
    elif note == SESSION_CUT:
        return b"the session is cut: this hook cannot defer one recipient"
    elif note == NOT_TOLD:
        return b"accepted all the same: standard output cannot be written"
    return b"FASTGREY_TRACE is no name of a header, none was added"
