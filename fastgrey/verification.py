"""Is a store whole? Every part of it looked at to its end, at rest or while hooks work.

Findings are those of doctor, with a remedy each: doctor looks at what surrounds the store as well and at few of its
records, this looks at every byte.
"""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import _core, directory, manifest, policy, settings, soundness, succession
from .errors import FastgreyError, ManifestError, StoreError
from .health import layout, upkeep
from .health.finding import Finding, Place, Trouble, doubt, good, run, wrong
from .soundness import Contents, Progress

# Compactions, however fast they follow each other, may take a generation away while it is looked at.
TRIES = 10
# Strangers are worth no longer look: while it lasts, pages of partitions that are dropped are not free.
PENDING_SECONDS = 10


class Report(NamedTuple):
    """status: 0 whole, 1 something is in doubt, 2 something is wrong. findings: in the order of the parts."""

    status: int
    findings: list[Finding]

    @property
    def worst(self) -> list[Finding]:
        """The findings that made the status, none where all is good."""
        return [finding for finding in self.findings if finding.level == ("good", "doubt", "wrong")[self.status]
                and self.status]


def verify(path: str, progress: Progress = soundness.nothing) -> Report:
    """Look at all of the store at path. This process must not have it open."""
    place = Place(Path(path))
    for _ in range(TRIES):
        before = _link(place)
        findings = list(_guarded(place, progress))
        if _link(place) == before or all(finding.level == "good" for finding in findings):
            break
    levels = [("good", "doubt", "wrong").index(finding.level) for finding in findings]
    return Report(max(levels, default=0), findings)


def _link(place: Place) -> int:
    try:
        return directory.current_number(place.root)
    except StoreError:
        return 0


def _guarded(place: Place, progress: Progress) -> Iterator[Finding]:
    for part in (_in_force, _before, _pending, _leftovers):
        try:
            yield from part(place, progress)
        except Trouble as trouble:
            yield trouble.finding
            if part is _in_force and not _readable(place):
                # Without a link that names one there is no generation to look at, and none before it.
                return
        except FastgreyError as error:
            what, _, remedy = str(error).partition("; ")
            yield wrong(what, remedy or layout.RESTORE)
        except PermissionError as error:
            yield doubt(f"could not look at {error.filename or place.root}: {error.strerror}", layout.AS_ROOT)
        except OSError as error:
            yield wrong(f"{error.filename or place.root}: {error.strerror}", layout.RESTORE)


def _readable(place: Place) -> bool:
    try:
        return bool(layout.current(place))
    except Trouble:
        return False


def _in_force(place: Place, progress: Progress) -> Iterator[Finding]:
    """The generation in force, and what stands beside it and belongs to it."""
    number = layout.current(place)
    try:
        layout.generation(place)
    except Trouble as trouble:
        if trouble.finding.level == "wrong":
            raise Trouble(wrong(trouble.finding.what, _go_back(place, number))) from None
        raise
    path = place.root / directory.generation_name(number)
    found = succession.healthy(path, number, progress, in_force=True)
    if not isinstance(found, Contents):
        yield wrong(f"{path.name}, which is in force, is damaged: {found}", _go_back(place, number))
        return
    records = sum(found.manifest.records.values())
    yield good(f"{path.name} is in force: {records} known records, {found.manifest.parts['window'].number} windows, "
               f"policy {found.facts.policy} with {found.facts.rules} rules")
    for what in found.doubts:
        yield doubt(f"{path.name}: {what}", "if the clock is wrong now, set it; if it was, let time pass")
    yield from _manifest(path)
    yield from _counters(place, found)
    yield from _hits(place, found)


def _before(place: Place, progress: Progress) -> Iterator[Finding]:
    """The generation that is kept to go back to."""
    number = layout.current(place) - 1
    path = place.root / directory.generation_name(number)
    if not path.exists():
        return
    found = succession.healthy(path, number, progress)
    if isinstance(found, Contents):
        findings = [good(f"{path.name} is there to go back to: {sum(found.manifest.records.values())} known records"),
                    *_manifest(path)]
    else:
        findings = [doubt(f"{path.name}, which is kept to go back to, is damaged: {found}", place.run("compact"))]
    # What a compaction took away under this look was not damaged, and is not kept any more.
    if path.exists():
        yield from findings


def _manifest(generation: Path) -> Iterator[Finding]:
    path = generation / manifest.NAME
    try:
        manifest.read(generation)
    except ManifestError as error:
        yield doubt(str(error).partition("; ")[0], run("rm", str(path)))
    except OSError as error:
        yield doubt(f"{path}: {error.strerror}", run("rm", "-r", str(path)))


def _counters(place: Place, found: Contents) -> Iterator[Finding]:
    file = place.root / "stats"
    try:
        page = _core.read_counters(str(file))
    except (FileNotFoundError, IsADirectoryError):
        page = None
    on_error = settings.by_name(found.facts.settings)["on_error"]
    if page is None:
        remedy = place.run("init")
        if os.path.lexists(file):
            remedy = f"{run('rm', '-r', str(file))} && {remedy.removeprefix('run: ')}"
        yield wrong(f"the page of counters {file} is missing, damaged or of another version", remedy)
    elif page["defer_on_error"] != bool(on_error):
        yield wrong("the page of counters has another on_error than the settings",
                    place.run("init", "--set", f"on_error={settings.BY_NAME['on_error'].show(on_error)}"))
    else:
        yield good("the page of counters can be used")


def _hits(place: Place, found: Contents) -> Iterator[Finding]:
    if not found.facts.rules:
        return
    path = policy.hits_path(place.root, found.facts.policy)
    try:
        status = path.lstat()
    except FileNotFoundError:
        size = 0
    else:
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            # What the remedy below would cut is then another file.
            yield doubt(f"{path} is no regular file: what rules decide is not counted", run("rm", "-r", str(path)))
            return
    if size < policy.HIT.size * found.facts.rules:
        yield doubt(f"{path} is missing or cut short: what rules decide is not counted",
                    run("truncate", "-s", str(policy.HIT.size * found.facts.rules), str(path)))


def _pending(place: Place, progress: Progress) -> Iterator[Finding]:
    """What strangers left since the machine was started. Never flushed: its structure is all there is to say."""
    if layout.pending(place) is None:
        yield good("no strangers since the machine was started")
        return
    path = layout.pending_path(place)
    end = time.monotonic() + PENDING_SECONDS

    def follow(step: str, done: int, total: int) -> None:
        progress("pending", done, total)
        if time.monotonic() > end:
            raise _Enough

    try:
        with soundness.pinned(path):
            problems = soundness.structure(path, follow)
    except _Enough:
        yield good(f"{path.name}: nothing wrong in what could be looked at within {PENDING_SECONDS} seconds")
        return
    except StoreError as error:
        problems = [str(error)]
    if problems:
        yield wrong(f"{path.name} is damaged: {problems[0]}", layout.remove(path))
    else:
        yield good(f"{path.name} holds what strangers left")


class _Enough(Exception):
    pass


def _leftovers(place: Place, progress: Progress) -> Iterator[Finding]:
    yield from upkeep.put_aside(place)
    # That a compaction runs is good, and no part of the store.
    findings = [finding for finding in upkeep.leftovers(place) if finding.level != "good"]
    for name in ("current.new", "stats.new"):
        if (path := place.root / name).is_symlink() or path.exists():
            findings.append(doubt(f"{name} is left over of something that was killed", run("rm", str(path))))
    # One that began under this look is at work on what was found, and takes away itself what was left by another.
    if upkeep.running(place) is None:
        yield from findings


def _go_back(place: Place, number: int) -> str:
    """The remedy for a generation in force that is damaged."""
    earlier = [other for other in directory.generations(place.root) if other < number]
    if earlier and isinstance(succession.healthy(place.root / directory.generation_name(earlier[-1]), earlier[-1]),
                              Contents):
        return place.run("rollback")
    return layout.RESTORE
