"""Work in a child process: a damaged table may end whoever reads it, a stopped process may hold its lock for ever."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SECONDS = 30

T = TypeVar("T")


class Ended(Exception):
    """The child ended by a signal, of which this has the name."""


class Late(Exception):
    """The child gave nothing for SECONDS."""


def results(work: Callable[[], Iterable[T]]) -> Iterator[T]:
    """What work yields in a child. Raises what work raises, Ended and Late."""
    # Forked, not started anew: work need not be importable, and has what it closes over.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(work, sender), daemon=True)
    child.start()
    sender.close()
    try:
        while receiver.poll(SECONDS):
            kind, value = receiver.recv()
            if kind == "raised":
                raise value
            if kind == "end":
                return
            yield value
        raise Late
    except EOFError:
        child.join()
        raise Ended(_name(child.exitcode)) from None
    finally:
        child.kill()
        child.join()
        receiver.close()


def _work(work: Callable[[], Iterable[T]], sender: "Connection[Any, Any]") -> None:
    # The command's own answer to a cut file would be a line and an exit; here the signal is the answer.
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A failed assertion of LMDB says so on standard error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        for value in work():
            sender.send(("value", value))
        sender.send(("end", None))
    except Exception as error:
        sender.send(("raised", error))


def _name(exitcode: int | None) -> str:
    return signal.Signals(-exitcode).name if exitcode and exitcode < 0 else f"exit status {exitcode}"
