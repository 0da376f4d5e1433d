"""Greylisters that are used elsewhere, from Debian's packages, each started for the purpose and asked in its own protocol.

A file a peer. None is a service of the system: each runs in the foreground out of a directory of its own, listens on a socket
there or on a free port of loopback, and is ended by its process number.
"""

from collections.abc import Iterator

from figures import Count, Results
from peers.greylistd import Greylistd
from peers.gross import Gross
from peers.peer import Peer
from peers.postgrey import Postgrey
from peers.sqlgrey import Sqlgrey

PEERS: tuple[type[Peer], ...] = (Postgrey, Sqlgrey, Gross, Greylistd)


def wanted(names: list[str] | None, section: str, results: Results) -> Iterator[type[Peer]]:
    """Those of these names, or all; what is missing here is said and put down."""
    for kind in PEERS:
        if names and kind.name not in names:
            continue
        missing = kind.missing()
        if missing:
            results.add(Count(section, f"{kind.name}, skipped", {"measured": 0}, missing))
            print(f"  {kind.name} is not measured: {missing}", flush=True)
        else:
            yield kind
