"""LMDB's table of readers, read from the lock file by a struct module that knows nothing of LMDB."""

import os
import struct

# Two cache lines of header, with the number of slots ever in use at once at 56; then a line a slot: snapshot, process,
# thread. A slot of process 0 is free.
HEADER, SLOT, USED_AT = 128, 64, 56
ENTRY = struct.Struct("=QiiQ")


def slots(generation):
    """Process of every slot in use of an LMDB environment."""
    content = (generation / "lock.mdb").read_bytes()
    (used,) = struct.unpack_from("=I", content, USED_AT)
    found = (ENTRY.unpack_from(content, HEADER + SLOT * slot)[1] for slot in range(used))
    return [process for process in found if process]


def stale(generation):
    """Those of processes that are no more."""
    return [process for process in slots(generation) if not os.path.exists(f"/proc/{process}")]
