# What needs no store: versions, normalising, signals.

def lmdb_version() -> tuple[int, int, int]:
    """Version of the LMDB in use by this process."""
    cdef int major, minor, patch
    mdb_version(&major, &minor, &patch)
    return major, minor, patch


def normalise_sender(address: str | bytes) -> bytes:
    """The form in which an envelope sender is keyed; ValueError where it is too long or holds NUL, CR or LF."""
    return _normalise(as_bytes(address, "address"), True)


def normalise_recipient(address: str | bytes) -> bytes:
    """The form in which an envelope recipient is keyed; ValueError where it is too long or holds NUL, CR or LF."""
    return _normalise(as_bytes(address, "address"), False)


cdef bytes _normalise(bytes address, bint is_sender):
    cdef Address out
    if normalise_address(bytes_span(address), is_sender, &out) != 0:
        raise ValueError(fault_text(BAD_SENDER if is_sender else BAD_RECIPIENT).decode())
    return out.text[:out.size]


def normalise_client(address: str | bytes, int ipv4_prefix=24, int ipv6_prefix=64) -> tuple[int, bytes, bytes]:
    """Family (4 or 6), exact client and network of an IP address, packed; ValueError where it is none."""
    cdef Client out
    cdef bytes text = as_bytes(address, "address")
    if parse_client(bytes_span(text), ipv4_prefix, ipv6_prefix, &out) != 0:
        raise ValueError(fault_text(BAD_CLIENT).decode())
    return out.family, out.exact[:out.size], out.network[:out.size]


def client_name_parent(name: str | bytes, address: str | bytes) -> bytes:
    """The parent of a client name, empty where the name tells nothing about its owner; ValueError as above."""
    cdef Client client
    cdef unsigned char out[NAME_MAX]
    cdef bytes data = as_bytes(name, "name"), text = as_bytes(address, "address")
    if parse_client(bytes_span(text), 24, 64, &client) != 0:
        raise ValueError(fault_text(BAD_CLIENT).decode())
    return out[:name_parent(bytes_span(data), &client, out)]


cdef void on_damage(int number) noexcept nogil:
    cdef const char *line = (b"fastgrey: a file of the store is damaged or was cut short; "
                             b"ask fastgrey doctor, or make the store anew with: fastgrey init\n")
    write(2, line, strlen(line))
    _exit(1)


def leave_on_damage() -> None:
    """Let a cut file end this process with one line and status 1 instead of by SIGBUS. For commands, not libraries."""
    cdef sigaction_t action
    memset(&action, 0, sizeof(action))
    action.sa_handler = on_damage
    sigaction(SIGBUS, &action, NULL)
