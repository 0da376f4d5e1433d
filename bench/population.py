"""Stores of any size in which every record can be asked for: what runs in a process is measured on them.

Request number N is the same everywhere, and known in a store of more than N triplets. Ten in a row come from one
client and one sender domain. Of these groups every tenth (0, 10, …) has a client with five promotions, every tenth (1, 11, …)
neither client nor domain, the others a known domain: so default settings accept them as KINDS says.
"""

import random
import time
from pathlib import Path

import core
import fastgrey

GROUP = 10
# Which groups modulo 10 a check by default settings accepts for which reason.
KINDS = {"known-client": (0,), "known-triplet": (1,), "known-domain": tuple(range(2, 10))}
# A last-seen time is not written while these stores live: known senders only read.
NO_REFRESH = {"refresh": 10**7}


def make(path: Path, known: int, *, packed: bool = True, expired: int = 0, **settings: int) -> Path:
    """A new store with so many known triplets: 10^7 take a quarter of a minute and 500 MB of memory.

    packed: pages as full as a compaction leaves them; else two thirds full, as hooks leave them. expired: each
    so-manieth triplet is, 0 for none. settings: stored numbers by name, beside NO_REFRESH.
    """
    fastgrey.create(path, NO_REFRESH | settings)
    if known:
        core.load().fill(str(path), known, int(time.time()), packed=packed, expired=expired)
    return path


def request(number: int) -> tuple[bytes, bytes, bytes]:
    """Client, sender and recipient of request `number`."""
    found: tuple[bytes, bytes, bytes] = core.load().triplet(number)
    return found


def some(how_many: int, known: int, kind: str | None = None, seed: int = 1) -> list[tuple[bytes, bytes, bytes]]:
    """Requests drawn at random from the known ones: those of one kind, None for all."""
    chance = random.Random(seed)
    groups = KINDS[kind] if kind else range(10)
    tens = max(1, known // (10 * GROUP))
    number = core.load().triplet
    return [number((chance.randrange(tens) * 10 + chance.choice(groups)) * GROUP + chance.randrange(GROUP))
            for _ in range(how_many)]


def strangers(how_many: int, first: int = 0) -> list[tuple[bytes, bytes, bytes]]:
    """Requests that no store of make() knows, nor anything of them; with another `first`, others."""
    return [core.load().stranger(first + i) for i in range(how_many)]
