"""The policy in force beside the configuration that it should come from."""

import os
from collections.abc import Iterator

from .. import _core, configuration, disk, policy, times
from ..errors import PolicyError
from . import layout
from .finding import Finding, Place, doubt, good, wrong


def in_force(place: Place, store: _core.Store) -> Iterator[Finding]:
    """Whether the configuration was applied as it is now."""
    found = policy.in_force(store)
    path = found.files[0] if found.files else configuration.default_path()
    record, _ = store.policy()
    if record is not None and (number := policy.damaged(record)):
        yield wrong(f"{number} rules of policy {found.number} are damaged: a check that meets one of them ends as error",
                    place.run("apply", "--config", path) if found.files else layout.RESTORE)
        return
    what = f"policy {found.number}, applied {times.date(found.applied)}" if found.number else "no policy"
    if not os.path.lexists(path) and not found.files:
        yield good(f"{what} in force, and no configuration at {path}")
        return
    try:
        wanted = configuration.load(path).policy
    except PolicyError as error:
        yield doubt(f"{what} stays in force, because the configuration cannot be applied: {error}",
                    f"mend it, then run: fastgrey apply --config {path}")
        return
    if (disk.settled(wanted.settings, place.root), wanted.rules) == (found.settings, found.rules):
        yield good(f"{what} in force is what {path} says, {len(found.rules)} rules")
    else:
        yield doubt(f"{what} in force is older than {path}, which says something else",
                    place.run("apply", "--config", path))
