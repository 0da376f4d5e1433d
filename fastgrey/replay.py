"""Replay: decide recorded envelopes, each with its own time as the clock."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Self

from . import directory, policy
from ._core import Store
from .errors import EnvelopeError
from .policy import Policy
from .settings import BY_DISK, BY_NAME
from .verdict import Verdict

if TYPE_CHECKING:
    from .shared.throwaway import Checks

COLUMNS = (b"time", b"client_ip", b"client_name", b"sender", b"recipient")
TIME_MAX = (1 << 40) - 1
TIME_DIGITS = 20


class Envelopes:
    """An envelope file: tab-separated, with a header line naming its columns; those it does not know are ignored.

    Iterating gives (row number from 1, time, client address, client name, sender, recipient); all but the numbers are
    bytes. Empty lines count as none. Raises EnvelopeError, naming file and line, at the first that cannot be read.
    """

    def __init__(self, name: str):
        self.name = "standard input" if name == "-" else name
        try:
            self._file: BinaryIO = sys.stdin.buffer if name == "-" else open(name, "rb")
            self.size = 0 if name == "-" else os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise EnvelopeError(f"cannot read {name}: {error.strerror}; name a file of envelopes") from None
        self.position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def __iter__(self) -> Iterator[tuple[int, int, bytes, bytes, bytes, bytes]]:
        header = self._fields(self._file.readline())
        places = [self._place(header, column) for column in COLUMNS]
        row = 0
        for number, line in enumerate(self._file, 2):
            self.position += len(line)
            fields = self._fields(line)
            if fields == [b""]:
                continue
            row += 1
            if len(fields) <= max(places):
                raise self._error(number, f"{len(fields)} fields, expected {len(header)}")
            time, client, name, sender, recipient = (fields[place] for place in places)
            # Python refuses to read a number of thousands of digits.
            if not time.isdigit() or len(time) > TIME_DIGITS or int(time) > TIME_MAX:
                raise self._error(number, f"time is {time[:40].decode('ascii', 'backslashreplace')!r}, "
                                          "expected Unix seconds")
            yield row, int(time), client, name, sender, recipient

    @staticmethod
    def _fields(line: bytes) -> list[bytes]:
        return line.removesuffix(b"\n").removesuffix(b"\r").split(b"\t")

    def _place(self, header: list[bytes], column: bytes) -> int:
        if column not in header:
            raise EnvelopeError(f"{self.name} line 1: no column {column.decode()}; expected a header line with "
                                f"{', '.join(c.decode() for c in COLUMNS)}, tab-separated")
        return header.index(column)

    def _error(self, line: int, what: str) -> EnvelopeError:
        return EnvelopeError(f"{self.name} line {line}: {what}; mend or remove the line")


@contextmanager
def replay_store(path: str | None, settings: dict[str, int], rules: Policy | None = None) -> Iterator[Store]:
    """The store at path, or an empty one with these settings, or this policy, that is gone afterwards."""
    if path is not None:
        with directory.open_store(path) as store:
            yield store
        return
    # Nothing of it is flushed: memory serves best, where there is such a file system.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    parent = tempfile.mkdtemp(prefix="fastgrey-replay-", dir=memory)
    try:
        root = os.path.join(parent, "store")
        directory.create(root, _with_room(settings))
        store = Store(root, throw_away=True)
        try:
            if rules is not None:
                policy.apply(store, replace(rules, settings=_with_room(rules.settings)))
            yield store
        finally:
            store.close()
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _with_room(settings: dict[str, int]) -> dict[str, int]:
    """The settings with all the room there can be, where that goes by the disk: a disk must not change a verdict."""
    if settings.get("pending_size", BY_DISK) != BY_DISK:
        return settings
    return settings | {"pending_size": BY_NAME["pending_size"].most}


def replay(envelopes: Envelopes, store: "Store | Checks") -> Iterator[tuple[int, Verdict]]:
    """Decide the envelopes in order; gives row numbers and verdicts."""
    check = store.check
    for number, time, client, name, sender, recipient in envelopes:
        yield number, check(client=client, sender=sender, recipient=recipient, client_name=name, now=time)
