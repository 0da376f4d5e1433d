"""What greylisters are asked: questions whose due answers are known, and the files that `ask` reads them from."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

KINDS = ("known", "new", "mixed")
SEED = 1


class Request(NamedTuple):
    """An envelope; every one of known() and new() is of a network and a sender domain of its own."""

    client: str
    sender: str
    recipient: str


def known(number: int) -> Request:
    """The triplet of that number among those that are known; up to 10^6 of them."""
    return Request(f"{10 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.7", f"someone@known{number}.example",
                   "b@example.net")


def new(number: int) -> Request:
    """The stranger of that number."""
    return Request(f"{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.9", f"someone@new{number}.example",
                   "b@example.net")


class Questions:
    """Files of questions. No stranger is in two of them."""

    def __init__(self, directory: Path, entries: int) -> None:
        """entries: how many triplets are known."""
        self._directory = directory
        self._entries = entries
        self._pick = random.Random(SEED)
        self._strangers = 0
        self._files = 0

    def files(self, kind: str, size: int, number: int) -> list[Path]:
        """So many files of so many questions: all known, all new, or half of each by chance."""
        return [self.file(self.lines(kind, size)) for _ in range(number)]

    def file(self, lines: Iterable[str]) -> Path:
        """A file with these lines."""
        self._files += 1
        file = self._directory / f"questions.{self._files}"
        file.write_text("\n".join(lines) + "\n")
        return file

    def lines(self, kind: str, size: int) -> Iterator[str]:
        """So many questions; the strangers are new ones."""
        kinds = {"known": [True], "new": [False], "mixed": [True, False]}[kind]
        order = [kinds[number % len(kinds)] for number in range(size)]
        # In turn, each of two callers would have one kind for itself.
        self._pick.shuffle(order)
        for is_known in order:
            if is_known:
                yield line(known(self._pick.randrange(self._entries)), "accept")
            else:
                self._strangers += 1
                yield line(new(self._strangers), "defer")


def line(request: Request, due: str) -> str:
    """A question and the answer that is due, accept or defer."""
    return " ".join([due, *request])
