"""Greylisters that are used elsewhere, from Debian's packages, each started for the purpose and asked in its protocol.

A file a peer. None is a service of the system: each runs in the foreground out of a directory of its own, listens on a
socket there or on a free port of loopback, and ends with the benchmark.
"""

from typing import Protocol

from figures import Count, Results
from peers.greylistd import Greylistd
from peers.gross import Gross
from peers.peer import Peer
from peers.postgrey import Postgrey
from peers.sqlgrey import Sqlgrey

PEERS: tuple[type[Peer], ...] = (Postgrey, Sqlgrey, Gross, Greylistd)


class Installed(Protocol):
    """What a machine has or has not: a peer, an engine."""

    @property
    def name(self) -> str: ...

    def missing(self) -> str:
        """What keeps it from being measured here, in a few words; empty where nothing does."""
        ...


def is_here(kind: type[Peer] | Installed, section: str, results: Results) -> bool:
    """Whether it can be measured; what is missing is said and put down."""
    missing = kind.missing()
    if missing:
        print(f"  {kind.name} is not measured: {missing}", flush=True)
        results.add(Count(section, f"{kind.name}, skipped", {"measured": 0}, missing))
    return not missing
