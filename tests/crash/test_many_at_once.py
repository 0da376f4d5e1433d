"""Crowds of hooks while everything else is done to the store as well: compactions, rollbacks, `apply` and `stats`.

What must hold is the model's: of all that ask for one new triplet at once, one is the first; of all that retry it, one
promotes it; nobody fails; and what is known at the end is what was promoted, less what rollbacks say was lost by them.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import aging
import effort
import fastgrey
from conftest import FASTGREY
from fastgrey import compaction, directory, settings, verification
from herds import herd, verdicts

pytestmark = pytest.mark.torture

SETTINGS = {"delay": "1m", "pool_hops": 0, "allow_client_after": 0, "allow_domain_after": 0}
KNOWN = 20
# Herds that one phase takes at most until every command has run beside them.
HERDS = 100


class Beside:
    """Commands that follow one another in two strands, for as long as hooks run."""

    def __init__(self, path, folder, rollback):
        self.path = path
        self.stop = threading.Event()
        # Exit code, name, and what was said, in the order in which they ended.
        self.done = []
        configurations = [self.configuration(folder, entry) for entry in ("few.invalid", "many.invalid")]
        self.strands = [
            [["compact", "--json", "--verify", "copy"], ["stats", "--json"]],
            [["apply", "--json", "--config", configurations[0]], ["rollback", "--json"] if rollback else ["stats"],
             ["apply", "--json", "--config", configurations[1]]],
        ]

    @staticmethod
    def configuration(folder, entry):
        file = folder / f"{entry}.toml"
        file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in SETTINGS.items())
                        + f'deny_senders = ["{entry}"]\n')
        return str(file)

    def strand(self, commands):
        while not self.stop.is_set():
            for command in commands:
                done = subprocess.run([FASTGREY, *command, "--store", self.path], capture_output=True, text=True,
                                      timeout=600, env={"PATH": os.environ["PATH"]})
                self.done.append((done.returncode, command[0], done.stdout, done.stderr))

    def wanted(self):
        """Whether some command has not succeeded yet."""
        return {command[0] for strand in self.strands for command in strand} - {
            name for status, name, *_ in self.done if status == 0}

    def said(self, name):
        """What every run of one command that succeeded says, as JSON; compact says how far it is, an object a line."""
        return [json.loads(text.splitlines()[-1] if name == "compact" else text)
                for status, done, text, _ in self.done if done == name and status == 0]


@contextlib.contextmanager
def beside(path, folder, rollback=False):
    """All commands beside what is done within, to their end."""
    work = Beside(path, folder, rollback)
    threads = [threading.Thread(target=work.strand, args=(strand,)) for strand in work.strands]
    for thread in threads:
        thread.start()
    try:
        yield work
    finally:
        work.stop.set()
        for thread in threads:
            thread.join()
    for status, name, _, error in work.done:
        # Who makes a new generation does it alone, and says so to others.
        assert status == 0 or "another compaction" in error, (name, status, error)


def known(path):
    """Known triplets."""
    with fastgrey.open(path) as store:
        return store.known()["triplet"]


def promoted(path):
    """Promotions counted."""
    with fastgrey.open(path) as store:
        return store.counters()["events"]["promoted"]


@pytest.mark.parametrize("number", [1, 8, 64, 512])
def test_many_at_once(in_memory, tmp_path, number):
    """Strangers, the same stranger, retries, the same retry; with rollbacks at last."""
    total = Counter()
    for attempt in range(effort.times(1)):
        folder = Path(tmp_path / str(attempt))
        folder.mkdir()
        crowds(in_memory / "store", folder, number, total)
        shutil.rmtree(in_memory / "store")
    effort.tried(f"{number} at once", **total, lost=0)


def crowds(path, folder, number, total):
    fastgrey.create(path, settings.parse_assignments(f"{name}={value}" for name, value in SETTINGS.items()))
    pending = path / f"pending.{directory.boot_id()}"
    now = int(time.time())
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        for when in (now - 7200, now - 3600):
            for index in range(KNOWN):
                store.check(client="192.0.2.1", sender="a@example.org", recipient=f"known{index}@example.net", now=when)
    compaction.compact(str(path))
    # A generation number belongs to one generation, whoever makes it.
    given = [directory.current_number(path)]
    logs = (folder / f"log{index}" for index in itertools.count())

    def crowd(sender, recipient, index):
        """The log lines of a herd, its number for # in the sender."""
        total["hooks"] += number
        return herd(path, number, sender.replace("#", f"z{index}"), recipient, next(logs), FIXED_CLIENT="192.0.2.1")[1]

    with beside(path, folder) as work:
        herds = 0
        while herds < HERDS and (work.wanted() or not herds):
            assert verdicts(crowd("same@#.example", "b@example.net", herds)) == (
                {"defer new": 1, "defer early": number - 1} if number > 1 else {"defer new": 1})
            assert verdicts(crowd("each@#.example", "r%@example.net", herds)) == {"defer new": number}
            herds += 1
    given += sorted(done["generation"] for done in work.said("compact"))
    assert sum(len(partition) for partition in aging.records(pending).values()) == KNOWN + herds * (number + 1)

    aging.age(path, pending, 100)
    with beside(path, folder) as work:
        for index in range(herds):
            found = verdicts(crowd("same@#.example", "b@example.net", index))
            assert found.pop("accept retry") == 1
            assert set(found) <= {"accept known-triplet"}
    given += sorted(done["generation"] for done in work.said("compact"))
    assert known(path) == promoted(path) == KNOWN + herds

    with beside(path, folder, rollback=True) as work:
        for index in range(herds):
            assert verdicts(crowd("each@#.example", "r%@example.net", index)) == {"accept retry": number}
        deadline = time.monotonic() + 600
        while work.wanted() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not work.wanted()
    given += sorted(done["generation"] for name in ("compact", "rollback") for done in work.said(name))
    losses = [done["loss"] for done in work.said("rollback")]
    lost = sum(loss["added"]["triplet"] - loss["gone"]["triplet"] for loss in losses)
    assert promoted(path) == KNOWN + herds * (number + 1)
    assert known(path) == KNOWN + herds * (number + 1) - lost
    assert given == [*range(2, directory.current_number(path) + 1)]
    assert verification.verify(str(path)).worst == []
    total.update(compactions=len(given) - len(losses), rollbacks=len(losses), taken_back_by_rollbacks=lost)
