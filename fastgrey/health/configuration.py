"""What the head of the generation in force says, and the page of counters."""

from collections.abc import Iterator

from .. import _core, policy, settings
from .finding import Finding, Place, doubt, good, run, wrong

# Now and then a client sends an address that cannot be used; more than one check in so many is more than that.
ERRORS_USUAL = 1000


def head(place: Place, store: _core.Store) -> Iterator[Finding]:
    """Format version and generation."""
    found = store.head()
    yield good(f"format {found['version']}, {found['generation']} in force")


def settings_hardly_meant(place: Place, store: _core.Store) -> Iterator[Finding]:
    """Settings that are allowed and hardly meant."""
    for text in settings.doubts(settings.by_name(store.head()["settings"])):
        yield doubt(text, policy.change(store, "change it"))


def counters(place: Place, store: _core.Store) -> Iterator[Finding]:
    """The page of counters, its copy of on_error, and what it counted that should not happen."""
    page, file = store.counters(), place.root / "stats"
    if page is None:
        remedy = place.run("init")
        if file.is_dir():
            remedy = f"{run('rm', '-r', str(file))} && {remedy.removeprefix('run: ')}"
        yield wrong(f"the page of counters {file} is missing, damaged or of another version", remedy)
        return
    values = settings.by_name(store.head()["settings"])
    on_error = values["on_error"]
    if page["defer_on_error"] != bool(on_error):
        yield wrong("the page of counters has another on_error than the settings",
                    place.run("init", "--set", f"on_error={settings.BY_NAME['on_error'].show(on_error)}"))
    larger = policy.change(store, "raise pending_size", "pending_size=SIZE")
    yield from _events(page["events"], page["verdicts"], larger)


def strangers(place: Place, store: _core.Store) -> Iterator[Finding]:
    """How many wait."""
    partitions = store.partitions()
    records = sum(partition["records"] for partition in partitions)
    yield good(f"{records} records pending in {len(partitions)} partitions")


def _events(events: dict[str, int], verdicts: dict[str, int], larger: str) -> Iterator[Finding]:
    for name, remedy in (("partitions given up", larger), ("not recorded", larger),
                         ("not refreshed", "look for write errors in the log of the hook")):
        if events[name]:
            yield doubt(f"{name}: {events[name]} since the store was made", remedy)
    checks = sum(verdicts.values())
    errors = sum(number for name, number in verdicts.items() if name.endswith(" error"))
    what = f"{errors} of {checks} checks ended as error since the store was made"
    yield doubt(what, "look for their causes in the log of the hook") if errors * ERRORS_USUAL > checks else good(what)
