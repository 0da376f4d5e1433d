"""The address space that the hook takes, and what the servers that run it leave it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .. import _core, directory, settings
from ..sizes import bytes_shown
from . import layout
from .finding import Finding, Place, doubt, good, wrong

# The hook itself, its stack and heap.
PROGRAM = 6 << 20
SERVERS = ("tcpserver", "qmail-smtpd")


def address_space(place: Place, store: _core.Store) -> Iterator[Finding]:
    """A limit on it (softlimit -m or -a, LimitAS=) is reached when the files of the store grow, in a flood."""
    bound = settings.by_name(store.head()["settings"])["pending_size"]
    passed, pending = layout.generation(place)[1].map, layout.pending(place)
    # One lock file for each, of the same number of slots.
    least = PROGRAM + passed + 2 * (place.root / "current" / "lock.mdb").stat().st_size
    now, full = least + (pending.map if pending else 0), least + bound
    yield good(f"the hook takes {bytes_shown(now)} of address space, {bytes_shown(full)} when pending is full")
    for process, name, limit in _servers(place):
        if limit >= full:
            continue
        judged, when = (wrong, "now") if limit < now else (doubt, "when pending is full")
        yield judged(f"{name}, process {process}, limits its address space to {bytes_shown(limit)}, and the hook takes "
                     f"{bytes_shown(now if limit < now else full)} {when}: then every check ends as error",
                     "limit what a process allocates (softlimit -d, chpst -d, LimitDATA=) in place of softlimit -m or "
                     "-a, and start it anew")


def _servers(place: Place) -> Iterator[tuple[int, str, int]]:
    """Process, name and bound in bytes of each server that says this store to the hook and has such a limit."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "comm").read_text().strip()
            if name not in SERVERS:
                continue
            found = re.search(r"^Max address space +(\d+) ", (entry / "limits").read_text(), re.MULTILINE)
            variables = dict(part.partition("=")[::2] for part in
                             (entry / "environ").read_text(errors="surrogateescape").split("\0"))
        except OSError:
            # It has ended, or is another's.
            continue
        named = variables.get("FASTGREY_STORE") or directory.DEFAULT_STORE
        if found and os.path.realpath(named) == os.path.realpath(place.root):
            yield int(entry.name), name, int(found[1])
