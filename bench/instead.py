"""What one would use in place of the hook, as commands that can be set against it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

import stores
from execs import HERE, Command, Spawner

BASELINES = HERE / "baselines"


class Checker(NamedTuple):
    """One of them."""

    name: str
    # By the kind of check of the hook that they are set against.
    commands: dict[str, Command]
    note: str = ""


def checkers(spawner: Spawner, place: Path) -> list[Checker]:
    """Those that this machine has."""
    return [checker for checker in (python(place), shell(place), perl()) if checker]


def python(place: Path) -> Checker:
    """The same checker in Python, with a store in which every sender is known that the hook knows."""
    store = place / "python"
    for name in ("passed", "pending"):
        (store / name).mkdir(parents=True)
    interpreter = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    program: tuple[str | Path, ...] = (
        interpreter, "-I", "-S", BASELINES / "checker.py", sysconfig.get_path("platlib"), store)
    environment = {"TCPREMOTEIP": stores.client(0), "DELAY": "0"}
    # One introduction is enough: all senders of the domain are known with it, and the table has but to be there.
    for status in (111, 0, 0):
        done = subprocess.run([*program, "a@h.example", stores.RECIPIENT], env=environment, capture_output=True)
        if done.returncode != status:
            raise SystemExit(f"bench: {done.stderr.decode()[-300:]}")
    environment = {"TCPREMOTEIP": stores.client(0), "DELAY": "300"}
    return Checker("Python script", {
        "known sender": Command((*program, "a@h.example", stores.RECIPIENT), environment,
                                "checker: accept known-domain ", False),
        "stranger": Command((*program, "x@new%.example", stores.RECIPIENT), environment, "checker: defer new ", False),
    }, "python -I -S with the PyPI packages lmdb and xxhash; no rules, no counters, an empty table")


def shell(place: Path) -> Checker:
    """A directory a client, a file a triplet."""
    store = place / "shell"
    known = store / stores.client(0)
    known.mkdir(parents=True)
    file = known / f"a@h.example:{stores.RECIPIENT}"
    file.touch()
    past = time.time() - 4000
    os.utime(file, (past, past))
    environment = {"TCPREMOTEIP": stores.client(0), "GREYLIST": str(store)}
    program = ("/bin/sh", BASELINES / "checker.sh")
    return Checker("shell script of 2003", {
        "known sender": Command((*program, "a@h.example", stores.RECIPIENT), environment, "checker: accept ", False),
        "stranger": Command((*program, "x@new%.example", stores.RECIPIENT), environment, "checker: defer ", False),
    }, "a directory a client, a file a triplet; nothing normalised, nothing ever known for good")


def perl() -> Checker | None:
    """perl that does nothing: the least that a checker in perl can take."""
    found = shutil.which("perl")
    if found is None:
        print("  perl is not there: left out")
        return None
    return Checker("perl doing nothing", {"known sender": Command((found, "-e", "0"), {}, "", False)})
