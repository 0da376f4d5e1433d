"""Sockets that the service manager has opened already (sd_listen_fds(3))."""

import os
import socket

from fastgrey.errors import ServeError

FIRST = 3
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def inherited() -> list[socket.socket]:
    """The sockets handed to this process, each of its own kind; none where there are none. Once: the variables that
    tell of them go. Raises ServeError for one that cannot be served."""
    found = {name: os.environ.pop(name, "") for name in VARIABLES}
    if found["LISTEN_PID"] != str(os.getpid()) or not found["LISTEN_FDS"].isdigit():
        return []
    return [_taken(descriptor) for descriptor in range(FIRST, FIRST + int(found["LISTEN_FDS"]))]


def _taken(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        taken = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ServeError(f"descriptor {descriptor} of LISTEN_FDS: {error.strerror}; see the socket unit") from None
    stream = taken.type == socket.SOCK_STREAM and taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    datagrams = taken.type == socket.SOCK_DGRAM and taken.family != socket.AF_UNIX
    if not stream and not datagrams:
        raise ServeError(f"descriptor {descriptor} of LISTEN_FDS is no socket that listens; use ListenStream= of the "
                         "socket unit with Accept=no, or ListenDatagram= for IndiMail")
    taken.setblocking(False)
    return taken
