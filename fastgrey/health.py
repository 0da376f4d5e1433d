"""Health: what is wrong with a store, or soon will be, and what to do about it."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from . import _core, directory, settings
from .errors import StoreError

HOOK = "qmail-checkenv"
# LMDB needs locks and shared maps that network file systems do not have.
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs"}
LITTLE_SPACE = 64 << 20


class Finding(NamedTuple):
    """One fact. level is 'good', 'doubt' or 'wrong'; remedy is empty for what is good."""

    level: str
    what: str
    remedy: str = ""


def examine(path: str) -> list[Finding]:
    """All findings about the store at path and the programs that use it."""
    root = Path(path)
    findings = [_library(), _executable()]
    if not os.path.isdir(root):
        return [*findings, Finding("wrong", f"there is no directory {root}", "make a store with: fastgrey init")]
    findings += [*_permissions(root), *_file_system(root)]
    try:
        number = directory.current_number(root)
        with directory.open_store(path) as store:
            findings += [*_head(store), *_counters(store), *_readers(store), *_pending(root, store)]
    except StoreError as error:
        return [*findings, Finding("wrong", str(error), "restore the directory from a backup, or move it away and make "
                                                        "a new store; senders then wait once more")]
    return [*findings, *_generations(root, number)]


def _library() -> Finding:
    return Finding("good", f"LMDB {'.'.join(map(str, _core.lmdb_version()))} in this program")


def find_executable() -> str | None:
    """qmail-checkenv beside this Python's programs, else on the path."""
    beside = os.path.join(os.path.dirname(sys.executable), HOOK)
    return beside if os.access(beside, os.X_OK) else shutil.which(HOOK)


def _executable() -> Finding:
    name = find_executable()
    if name is None:
        return Finding("doubt", f"{HOOK} is neither beside {sys.executable} nor on the path",
                       "install it, or ignore this where only the Python API is used")
    try:
        answer = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("wrong", f"{name} does not run: {error}", "install fastgrey again")
    return Finding("good", f"{name}: {answer.strip()}")


def _permissions(root: Path) -> list[Finding]:
    mode = stat.S_IMODE(root.stat().st_mode)
    if mode & stat.S_ISGID and mode & 0o070 == 0o070 and not mode & 0o007:
        return [Finding("good", f"mode {mode:o} of {root}")]
    return [Finding("wrong", f"mode {mode:o} of {root} instead of 2770", f"run: chmod 2770 {root}")]


def _file_system(root: Path) -> list[Finding]:
    found = []
    kind = _file_system_kind(root)
    if kind in NETWORK_FILE_SYSTEMS:
        found.append(Finding("wrong", f"{root} is on {kind}", "LMDB needs a local file system: move the store"))
    free = shutil.disk_usage(root).free
    if free < LITTLE_SPACE:
        found.append(Finding("wrong", f"{free >> 20} MiB free below {root}", "make room"))
    else:
        found.append(Finding("good", f"{free >> 20} MiB free on {kind or 'its file system'}"))
    return found


def _file_system_kind(root: Path) -> str:
    best, kind = "", ""
    real = os.path.realpath(root)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place, name = line.split()[1:3]
        if (real + "/").startswith(place.rstrip("/") + "/") and len(place) >= len(best):
            best, kind = place, name
    return kind


def _head(store: _core.Store) -> list[Finding]:
    head = store.head()
    values = dict(zip(settings.BY_NAME, head["settings"], strict=True))
    found = [Finding("good", f"format {head['version']}, {head['generation']} in force")]
    found += [Finding("doubt", doubt, "change it with: fastgrey init --set") for doubt in settings.doubts(values)]
    counters = store.counters()
    if counters is not None and counters["defer_on_error"] != bool(values["on_error"]):
        shown = settings.BY_NAME["on_error"].show(values["on_error"])
        found.append(Finding("wrong", "the page of counters has another on_error than the settings",
                             f"run: fastgrey init --set on_error={shown}"))
    return found


def _counters(store: _core.Store) -> list[Finding]:
    counters = store.counters()
    if counters is None:
        return [Finding("wrong", f"the page of counters {store.path}/stats is missing, damaged or of another version",
                        "run: fastgrey init")]
    found = []
    for name, remedy in (
        ("partitions given up", "raise pending_size with: fastgrey init --set pending_size=SIZE"),
        ("not recorded", "raise pending_size with: fastgrey init --set pending_size=SIZE"),
        ("not refreshed", "look for write errors in the log of the hook"),
    ):
        if counters["events"][name]:
            found.append(Finding("doubt", f"{name}: {counters['events'][name]} since the store was made", remedy))
    errors = sum(number for name, number in counters["verdicts"].items() if name.endswith(" error"))
    if errors:
        found.append(Finding("doubt", f"{errors} checks ended as error since the store was made",
                             "look for their causes in the log of the hook"))
    return found


def _readers(store: _core.Store) -> list[Finding]:
    used, freed = store.readers()
    return [Finding("good", f"{used} reader slots were in use at once at most, {freed} stale ones freed just now")]


def _pending(root: Path, store: _core.Store) -> list[Finding]:
    partitions = store.partitions()
    records = sum(partition["records"] for partition in partitions)
    return [Finding("good", f"{records} records pending in {len(partitions)} partitions")]


def _generations(root: Path, current: int) -> list[Finding]:
    return [Finding("doubt", f"{path.name} is left over", "the next compaction removes it: fastgrey compact")
            for path in directory.leftovers(root, current)]
