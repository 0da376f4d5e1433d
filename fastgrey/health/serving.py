"""fastgrey serve, as the hooks of a store find it whose records are shared."""

import os
import socket
import time
from collections.abc import Iterator

from .. import _core, settings
from .finding import Finding, Place, good, wrong

# As long as a hook waits (core/ask.pxi).
PATIENCE = 5
ANSWER_MAX = 4096
# Nobody's address (RFC 5737); it is decided, and neither recorded nor counted.
QUESTION = b"request=fastgrey\nclient_address=192.0.2.1\nsender=\nrecipient=postmaster\ndry_run=yes\n\n"


def server(place: Place, store: _core.Store) -> Iterator[Finding]:
    """Whether it answers where it is asked."""
    path = place.root / "serve.sock"
    shared = settings.by_name(store.head()["settings"])["shared"]
    if not shared:
        if _there(os.fspath(path)):
            yield good(f"fastgrey serve listens at {path}; hooks decide without it (shared = false)")
        return
    try:
        answer = _ask(os.fspath(path))
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
        yield wrong(f"records are shared, but nobody answers hooks at {path}: {why}; they do what on_error says",
                    f"{place.run('serve')}; or set shared = false and run: fastgrey apply")
        return
    verdict, *lines = answer.split("\n")
    cause = next((line.removeprefix("cause=") for line in lines if line.startswith("cause=")), None)
    if not verdict.startswith("verdict="):
        yield wrong(f"what answers at {path} is not fastgrey serve", f"see who made it, remove it, and {place.run('serve')}")
    elif cause:
        what, _, remedy = cause.partition("; ")
        yield wrong(f"fastgrey serve answers at {path} and cannot decide: {what}", remedy)
    else:
        yield good(f"fastgrey serve answers hooks at {path}")


def _there(path: str) -> bool:
    try:
        _connected(path).close()
    except OSError:
        return False
    return True


def _ask(path: str) -> str:
    """What is answered; nothing of what is behind the bound. OSError."""
    answer, until = b"", time.monotonic() + PATIENCE
    with _connected(path) as connection:
        connection.sendall(QUESTION)
        while not answer.endswith(b"\n\n") and len(answer) < ANSWER_MAX and (part := connection.recv(ANSWER_MAX)):
            answer += part
            if time.monotonic() > until:
                raise TimeoutError
    return answer.decode("ascii", "replace")


def _connected(path: str) -> socket.socket:
    """A connection to a socket, to which no link is followed, whatever its path is long. OSError."""
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(f"/proc/self/fd/{place}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(place)
    return connection
