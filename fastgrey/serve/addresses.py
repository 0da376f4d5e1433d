"""Addresses to listen on: unix:PATH, tcp:HOST:PORT, udp:HOST:PORT."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from fastgrey.errors import ServeError

# As many as the system lets wait (net.core.somaxconn).
BACKLOG = 1 << 16
PATH_MAX = 107


@dataclass(frozen=True)
class Address:
    """One address: kind 'unix' with a path as place, or 'tcp' or 'udp' with host and port."""

    kind: str
    place: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.place}"
        host = f"[{self.place}]" if ":" in self.place else self.place
        return f"{self.kind}:{host}:{self.port}"


def parse(text: str) -> Address:
    """The address that text names. Raises ServeError."""
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest and "\0" not in rest:
        return Address(kind, rest)
    host, colon, port = rest.rpartition(":")
    if kind in ("tcp", "udp") and colon and port.isascii() and port.isdigit() and int(port) < 65536:
        return Address(kind, host.removeprefix("[").removesuffix("]"), int(port))
    raise ServeError(f"{text!r}: no address to listen on; expected unix:PATH, tcp:HOST:PORT or udp:HOST:PORT")


def bind(address: Address, mode: int = 0o666) -> socket.socket:
    """A socket bound to the address, listening where it is one of connections. mode: of a unix socket. Raises
    ServeError."""
    try:
        return _bind_unix(address.place, mode) if address.kind == "unix" else _bind_inet(address)
    except OSError as error:
        raise ServeError(f"cannot listen on {address}: {error.strerror or error}; stop what listens there, or name "
                         "another address") from None


@contextlib.contextmanager
def within(path: str) -> Iterator[str]:
    """The path, or a shorter name for it: an address has room for 107 bytes (unix(7))."""
    if len(os.fsencode(path)) <= PATH_MAX:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def _bind_unix(path: str, mode: int) -> socket.socket:
    with within(path) as name, _made(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        _clear(name)
        mask = os.umask(0o777 & ~mode)
        try:
            made.bind(name)
        finally:
            os.umask(mask)
        made.listen(BACKLOG)
    return made


@contextlib.contextmanager
def _made(family: int, kind: int) -> Iterator[socket.socket]:
    """A socket to be bound; closed where that fails."""
    made = socket.socket(family, kind)
    try:
        made.setblocking(False)
        yield made
    except BaseException:
        made.close()
        raise


def _clear(path: str) -> None:
    """Remove the socket of a server that is gone; OSError where one still answers there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full backlog is a server too.
        probe.setblocking(False)
        try:
            with within(path) as name:
                probe.connect(name)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _bind_inet(address: Address) -> socket.socket:
    kind = socket.SOCK_STREAM if address.kind == "tcp" else socket.SOCK_DGRAM
    try:
        family, _, _, _, place = socket.getaddrinfo(address.place or None, address.port, type=kind,
                                                    flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise OSError(0, error.strerror) from None
    except UnicodeError:
        raise OSError(0, "no name of a host") from None
    with _made(family, kind) as made:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        if kind == socket.SOCK_STREAM:
            made.listen(BACKLOG)
    return made
