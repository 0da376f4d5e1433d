"""Power cuts, simulated: whatever the disk kept, a store is the old one or the new one with all that was told as done.

Each operation is recorded as the disk saw it (power/recording.py, power/scenarios.py), cut at every point, and what a
cut may leave there (power/disk.py has the model) is judged by the executable and the commands themselves
(power/judge.py): it opens; it holds what it held at the last exit of a command, or later; who waited is a stranger
again; verify has nothing against it but what is left over, and the next compaction takes that away. Then each flush is
switched off, and some state must be found that will not do: a flush that nobody misses is not needed, or the model is
too weak.
"""

import os
import random
import shutil
import subprocess
import sys

import pytest

import effort
from conftest import FASTGREY, HOOK
from fastgrey import compaction, directory
from machine import in_memory, strace, tool
from power import cuts, scenarios
from power.disk import Choice, Directory, Disk, File, states
from power.recording import MAPPED, Event, record

# Subsets of what is pending at one cut that are looked at, where all are too many.
SUBSETS = 16 * min(effort.EFFORT, 16)

COPY = "the copy in pieces, so that no promotion waits long for its own flush: before the link the last one is for all"
NOTES = "writers take notes only for a compaction that goes on"
MANIFEST = "a generation may have no manifest"
REPORT = "a report on which nothing depends: without it, it may be empty"
EITHER = "another flush before the link is for the same names"
SAME = "what is flushed has not changed"
NOBODY = "for what hooks earn until the damaged one is put aside, which is flushed too; none comes here"
BACK = "the way back, for which there must be room: for this process alone"
# Flushes that can be left out, each by itself, and no promise is broken: by operation, what is flushed and the how
# many-th flush of it that is.
SPARE = {
    **{("compact", "bytes store/compaction.status.new", number): REPORT for number in range(2)},
    **{("compact", "bytes store/passed.000003/data.mdb", number): COPY for number in range(5)},
    **{("compact", "write store/passed.000003/data.mdb", number): COPY for number in range(2)},
    ("compact", "write store/passed.000002/data.mdb", 0): NOTES,
    ("roll_back", "bytes store/passed.000003/data.mdb", 0): COPY,
    ("roll_back_from_damage", "bytes store/passed.000003/data.mdb", 0): COPY,
    ("roll_back_from_damage", "bytes store/stats", 0): SAME,
    ("roll_back_from_damage", "name store/current", 0): NOBODY,
    ("restore", "bytes store/passed.000003/data.mdb", 0): COPY,
    ("restore_anew", "bytes store/passed.000001/data.mdb", 0): COPY,
    ("restore_anew", "bytes store/stats", 1): SAME,
    **{(*flush, number): EITHER for number in range(2) for flush in (
        ("init", "name store/stats"), ("init_below_new_directories", "name var/lib/store/stats"),
        ("restore_anew", "name store/passed.000001/data.mdb"))},
    ("restore", "name store/passed.000003", 0): EITHER, ("restore_anew", "name store/passed.000001", 0): EITHER,
    ("change_sources", "bytes source/sub/.old.c", 1): BACK, ("change_sources", "bytes source/.gone.c", 0): BACK,
}


@pytest.fixture(scope="module")
def tracing():
    """Skips where the kernel, a container or a sandbox lets nobody trace."""
    strace()


@pytest.fixture(scope="module", params=scenarios.OPERATIONS)
def trial(request, tracing):
    """One operation, recorded, and what must hold of it."""
    if request.param == "install" and os.geteuid():
        pytest.skip("needs root to give a program to root")
    with in_memory() as place:
        (place / "work").mkdir()
        court = cuts.Court(place / "work")
        try:
            yield cuts.Trial(cuts.recorded(request.param, place), court)
        finally:
            court.close()


def around(trial, number):
    """The events before a cut, for a message."""
    return [f"{event.kind} {event.path}" for event in trial.recording.events[max(0, number - 4):number]]


def test_all_is_recorded(trial):
    """Done once more after the log, the disk is what it is; nothing else is mapped for writing, so no store is
    missed."""
    *_, (_, disk) = trial.recording.cuts()
    found = Disk(trial.recording.place.root).live()
    live = disk.live()
    assert live.keys() == found.keys()
    assert [path for path, content in found.items() if live[path] != content and not path.endswith("lock.mdb")] == []
    assert [event for event in trial.recording.events if event.kind == "map" and not MAPPED.search(event.path)] == []


@pytest.mark.torture
def test_a_cut_at_every_point(trial):
    found = list(trial.states(SUBSETS, trial.recording.name))
    # All that is not flushed is lost right after something was told as done.
    first = {number: place for place, (number, _) in reversed(list(enumerate(found))) if number in trial.exits}
    pick = random.Random(trial.recording.name)
    chosen = {*first.values(), *pick.sample(range(len(found)), min(effort.times(12), len(found)))}
    ended = [found[place] for place in first.values()]
    tried = [*trial.switches(), *(found[place] for place in sorted(chosen.difference(first.values())))]
    whole = [*((state, True) for state in ended), *((state, place % 4 == 0) for place, state in enumerate(tried))]
    for (number, image), full in whole:
        wrong = trial.wrong(number, image, full)
        assert wrong is None, f"cut after {number}, {around(trial, number)}: {wrong}"
    effort.tried("power cuts", operation=trial.recording.name, cuts=len(trial.recording.events) + 1, states=len(whole),
                 lost=0)


@pytest.mark.torture
def test_each_flush_is_missed_where_it_is_switched_off(trial):
    name, caught, spare = trial.recording.name, 0, 0
    flushes = cuts.flushes(trial.recording)
    assert {flush[1:] for flush in SPARE if flush[0] == name} <= {flush[1:] for flush in flushes}
    for number, what, place in flushes:
        manifest = what.startswith("name ") and what.endswith("/manifest")
        why = MANIFEST if manifest else SPARE.get((name, what, place))
        if why is None:
            assert cuts.missed(trial, number, 60) is not None, f"nothing is lost without flush {place} of {what}"
            caught += 1
        elif effort.EFFORT > 1:
            wrong = cuts.missed(trial, number, effort.times(5))
            assert wrong is None, f"flush {place} of {what} is needed after all: {wrong}"
            spare += 1
    effort.tried("flushes switched off", operation=name, missed=caught, spare=spare)


def test_what_is_there_under_both_names_goes(tmp_path):
    """A cut while a directory was renamed to be removed may leave it twice; the next compaction is not troubled by
    that."""
    place = scenarios.Place(tmp_path / "disk").make_store()
    for former in ("passed.000001", "pending.11111111-2222-4333-8444-555555555555", "passed.000005"):
        for name in (former, former + directory.GONE):
            shutil.copytree(place.store / "passed.000002", place.store / name, dirs_exist_ok=True)
    compaction.compact(str(place.store), verify="copy")
    assert sorted(path.name for path in place.store.glob("passed.*")) == ["passed.000002", "passed.000003"]
    assert [path.name for path in place.store.glob("pending.*")] == [f"pending.{directory.boot_id()}"]


def test_only_opening_goes_by_way_of_what_is_open(tracing, tmp_path):
    """What was opened is known under its own name; any other call that goes there has no model, and is told."""
    (tmp_path / "disk").mkdir()
    around = """if True:
        import os, sys
        os.mkdir("around"), os.mkdir("../view")
        around = os.open("around", os.O_PATH)
        file = os.open("data", os.O_CREAT | os.O_RDWR, dir_fd=around)
        os.symlink(f"/proc/self/fd/{file}", "../view/data")
        os.symlink(f"/proc/self/fd/{around}", "../view/around")
        os.write(os.open("../view/data", os.O_RDWR), b"one")
        os.fsync(os.open("../view/around/data", os.O_RDWR))
        os.unlink("../view/data")
    """
    events, done = record(tmp_path / "disk", sys.executable, "-c", around)
    assert done.returncode == 0, done.stderr
    assert [(event.kind, event.path, event.data) for event in events if event.kind not in ("exit", "mkdir")] == [
        ("make", "around/data", b""), ("write", "around/data", b"one"), ("flush", "around/data", b"")]
    for number, call in enumerate(("os.rename('../view/around/data', 'data')", "os.truncate('../view/data', 0)",
                                   "os.unlink(f'/proc/self/fd/{around}/data')", "os.mkdir('../view/around/new')")):
        root = tmp_path / str(number) / "disk"
        root.mkdir(parents=True)
        with pytest.raises(AssertionError, match="only opening may go there"):
            record(root, sys.executable, "-c", around.replace('os.unlink("../view/data")', call))


IN_ANOTHER_BOOT = 'mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'


def test_what_strangers_left_is_of_another_boot(tracing, tmp_path):
    """Garbage by now, and never opened: not by the hook, nor by a command."""
    place = scenarios.Place(tmp_path / "disk").make_store()
    former = place.store / f"pending.{directory.boot_id()}"
    for file in former.iterdir():
        file.write_bytes(random.Random(file.name).randbytes(file.stat().st_size))
    boot, log = tmp_path / "boot_id", tmp_path / "log"
    boot.write_text("11111111-2222-4333-8444-555555555555\n")
    client, sender, recipient = scenarios.WAITING

    def run(*command):
        traced = [tool("strace"), "-f", "-y", "-A", "-o", log, "-e", "trace=open,openat", *command]
        environment = {"PATH": os.environ["PATH"], "FASTGREY_STORE": str(place.store), "TCPREMOTEIP": client}
        done = subprocess.run(["unshare", "-m", "sh", "-c", IN_ANOTHER_BOOT, "sh", boot, *traced], env=environment,
                              capture_output=True, text=True, timeout=120)
        if "unshare:" in done.stderr or "mount:" in done.stderr:
            pytest.skip(done.stderr)
        return done.returncode, done.stderr

    for status, words in ((111, "defer new"), (0, "accept retry"), (0, "accept known-triplet")):
        found = run(HOOK, sender, recipient)
        assert found[0] == status and words in found[1], found
    assert run(FASTGREY, "list")[0] == 0
    # What is left over is a doubt.
    assert run(FASTGREY, "verify")[0] == 1
    assert run(FASTGREY, "compact")[0] == 0
    assert run(FASTGREY, "verify")[0] == 0
    assert not former.exists()
    opened = [line for line in log.read_text().splitlines() if f"/{former.name}/" in line]
    assert opened == []
    assert "pending.11111111-2222-4333-8444-555555555555/data.mdb" in log.read_text()


def disk_of(*events):
    disk = Disk.__new__(Disk)
    disk.root, disk.known = Directory(), {}
    for event in events:
        disk.apply(event)
    return disk


def left(disk):
    """All that a cut may leave, without what is loose."""
    return [disk.image(choice) for choice in states(disk, 64, 1)]


MADE = (Event("make", "a"), Event("flush", "."))


def test_the_disk_keeps_what_was_flushed_and_any_of_the_rest():
    one, two = Event("write", "a", data=b"1" * 512), Event("write", "a", offset=512, data=b"2" * 512)
    assert {image["a"] for image in left(disk_of(*MADE, one, two, Event("flush", "a")))} == {b"1" * 512 + b"2" * 512}
    found = {image["a"] for image in left(disk_of(*MADE, one, two))}
    # The later one without the earlier one too; what is missing are zeros.
    assert found >= {b"", b"1" * 512, bytes(512) + b"2" * 512, b"1" * 512 + b"2" * 512}
    assert {image["a"] for image in left(disk_of(*MADE, one, Event("flush", "a"), two))} >= {b"1" * 512}
    assert all(image["a"][:512] == b"1" * 512 for image in left(disk_of(*MADE, one, Event("flush", "a"), two)))
    # Flushed by itself, and nothing but that.
    durable = Event("write", "a", offset=512, data=b"2" * 512, durable=True)
    found = {image["a"] for image in left(disk_of(*MADE, one, durable))}
    assert all(content[512:] == b"2" * 512 for content in found)
    assert {content[:512] for content in found} >= {bytes(512), b"1" * 512}


def test_the_disk_tears_writes_at_sectors_and_pages():
    whole = Event("write", "a", data=b"".join(bytes([number]) * 512 for number in range(1, 33)))
    found = [image["a"].ljust(16384, b"\0") for image in left(disk_of(*MADE, whole))]
    sectors = {content[place:place + 512] for content in found for place in range(0, 16384, 512)}
    assert {bytes(512), bytes([1]) * 512} <= sectors
    assert any(0 < content.count(bytes(512)) for content in found)
    # No sector is half the one and half the other, but for noise in the gaps.
    assert all(len(set(sector)) == 1 or len(set(sector)) > 100 for sector in sectors)


def test_the_disk_keeps_names_by_themselves():
    changes = (Event("make", "b"), Event("symlink", "c", to="b"), Event("rename", "c", to="d"))
    found = {tuple(sorted(image)) for image in left(disk_of(*MADE, *changes))}
    assert found >= {("a",), ("a", "b"), ("a", "c"), ("a", "d"), ("a", "b", "d"), ("a", "b", "c", "d")}
    assert {tuple(sorted(image)) for image in left(disk_of(*MADE, *changes, Event("flush", ".")))} == {("a", "b", "d")}
    # A file that is flushed is not there for that; nor is one in a directory whose name is not.
    assert {} in left(disk_of(Event("make", "b"), Event("write", "b", data=b"x"), Event("flush", "b")))
    below = disk_of(Event("mkdir", "e"), Event("make", "e/f"), Event("flush", "e"))
    assert sorted(tuple(image) for image in left(below)) == [(), ("e", "e/f")]


def test_the_disk_starts_with_what_is_there(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    assert Disk(tmp_path).image(Choice(set())) == {"a": b"x", "b": "a"}
    assert File().live == b""
