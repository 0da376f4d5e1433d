"""What fastgrey needs of the machine."""

from collections.abc import Iterator

from .. import directory
from .finding import Finding, Place, good, run, wrong


def proc(place: Place) -> Iterator[Finding]:
    """The boot id, which names pending: without it no stranger can be recorded."""
    try:
        yield good(f"/proc is mounted, this is boot {directory.boot_id()}")
    except OSError as error:
        yield wrong(f"cannot read {error.filename}: {error.strerror}", run("mount", "-t", "proc", "proc", "/proc"))
