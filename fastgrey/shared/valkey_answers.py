"""What can be wrong with a Valkey server, and what to do about each: in its own words, and for people."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator

from valkey.exceptions import ResponseError
from valkey.exceptions import TimeoutError as ClientTimeoutError

from .valkey_link import SilentError

# Errors that a server answers with by the word that they begin with.
REMEDIES = {
    "NOAUTH": "it wants a password: name the file that holds it (password_file)",
    "WRONGPASS": "user or password is another one: see the URL and the file of the password",
    "NOPERM": "allow its user what is used: ACL SETUSER USER ~{fastgrey}* +@read +@write +@connection +@scripting "
              "+info +wait +role",
    "READONLY": "it is a replica: name its primary, or Sentinels (valkey+sentinel://) that follow a failover",
    "OOM": "it is full: raise its maxmemory, or forget other data that it holds",
    "LOADING": "it has just started and reads its data: wait",
    "MISCONF": "it cannot write its snapshots: see its log and disk",
    "CLUSTERDOWN": "a part of the cluster has no primary: see CLUSTER NODES",
    "MOVED": "it is a node of a cluster: write valkey+cluster:// and its nodes",
    "ASK": "the slot of these keys is being moved to another node: wait until that is done",
    "TRYAGAIN": "the slot of these keys is being moved to another node: wait until that is done",
    "MASTERDOWN": "it is a replica that has lost its primary: name its primary",
    "NOREPLICAS": "it has fewer replicas than it wants before it writes (min-replicas-to-write): see them",
    "BUSY": "somebody's script keeps it busy: see its log, and SCRIPT KILL",
    "DENIED": "it is in protected mode: give it a password, or let it listen on a private address (bind)",
    "ERR AUTH": "it wants no password: leave out user and password",
    "ERR DB": "it has fewer databases: name another number in the URL",
    "ERR max": "it has too many clients: raise its maxclients",
    "ERR unknown": "it lacks a command: Redis 6 and Valkey have all that is used, see whether one is renamed",
}
UNKNOWN = "see its log"
TEXT_MAX = 200


def code(error: ResponseError) -> str:
    """The word that tells what it is, also where a script ran into it."""
    words = str(error).split()
    if words[:1] != ["ERR"]:
        return words[0] if words else ""
    # Versions before 7 put what a script ran into behind a hyphen.
    inner = re.search(r" -([A-Z]+) ", str(error))
    return inner[1] if inner else " ".join(words[:2])


def explained(engine: str, error: BaseException, timeout: float) -> str:
    """What happened with the engine, and what to do: one line."""
    if isinstance(error, ResponseError):
        return f"the engine {engine} answers {_one_line(str(error))!r}; {REMEDIES.get(code(error), UNKNOWN)}"
    if isinstance(error, SilentError | TimeoutError | ClientTimeoutError):
        return (f"the engine {engine} does not answer within {timeout:g}s; see whether it runs, and whether it can be "
                "reached from here")
    for inner in _chain(error):
        if isinstance(inner, ssl.SSLCertVerificationError):
            return (f"the engine {engine} has a certificate that does not count: {inner.verify_message}; name who "
                    "signs it (?ca=FILE in the URL), and the host as its certificate does")
    return (f"cannot reach the engine {engine}: {_reason(error)}; see whether it runs, and whether the address is its "
            "own")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it comes from."""
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = inner.__cause__ or inner.__context__


def _reason(error: BaseException) -> str:
    """In the words of the system where it was the system: the client's own are those of Python."""
    for inner in _chain(error):
        if isinstance(inner, ssl.SSLError):
            return f"no TLS with it: {_one_line(inner.reason or str(inner))}"
        if isinstance(inner, socket.gaierror):
            return str(inner.strerror)
        if isinstance(inner, OSError) and inner.errno is not None and inner.errno in errno.errorcode:
            return os.strerror(inner.errno)
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text[:TEXT_MAX].split())
