"""Storms of kills: hooks, compactions and `fastgrey apply` end by SIGKILL at drawn moments, many at once.

Half of them at a time after their start, drawn from all of the time that they take; half at a call, drawn from all of
those that they make: of a hook any system call, of a command any that changes the store. After each round the store is
looked at by those who come next.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

import effort
import fastgrey
import interposer
import killing
import readers
from conftest import FASTGREY, HOOK
from fastgrey import directory, policy, settings, verification
from machine import strace

pytestmark = [pytest.mark.torture,
              pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")]

ALIVE, EXPIRED = 300, 200
DAY = 86_400
# A command, and the hooks that are killed while it runs.
STEPS, HOOKS = 6, 5
# Every so many rounds a compaction is let live.
CLEAN = 4
SETTINGS = ("delay=0s", "pool_hops=0")
RULES = {"few": 1, "many": 400}
COMMANDS = {"compact": ["compact"], "compact, copy": ["compact", "--verify", "copy"],
            "apply few": ["apply", "--config", "few"], "apply many": ["apply", "--config", "many"]}

HOLDER = """
import sys, fastgrey
with fastgrey.open(sys.argv[1]) as store:
    store.check(client="203.0.113.1", sender="a@holder.example", recipient="b@example.net", dry_run=True)
    store.partitions()
    print(flush=True)
    sys.stdin.read()
"""


def request(number):
    """Client, sender and recipient of a triplet that shares neither client nor domain with another."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", f"a@h{number}.example", "b@example.net"


class Storm:
    """A store under kills, and what it has promised."""

    def __init__(self, path, folder, library, pick):
        self.path, self.folder, self.library, self.pick = path, folder, library, pick
        self.killed = Counter()
        # Numbers of triplets whose hook said retry and exited 0: they were promised, and those that were tried at all.
        self.earned = set(range(ALIVE))
        self.next_number = ALIVE + EXPIRED
        self.generation = 1
        # The policies of which one must be in force, by name; None for that of a new store.
        self.policies = {None}
        self.claimed = []

    def prepare(self):
        """Make the store, and measure what is to be killed: seconds and calls."""
        fastgrey.create(self.path, settings.parse_assignments(SETTINGS))
        now = int(time.time())
        with fastgrey._core.Store(str(self.path), throw_away=True) as store:
            for number in range(ALIVE + EXPIRED):
                client, sender, recipient = request(number)
                for _ in range(2):
                    store.check(client=client, sender=sender, recipient=recipient,
                                now=now if number < ALIVE else now - 100 * DAY)
        for name, rules in RULES.items():
            lines = [line.replace("=", " = ", 1).replace("0s", '"0s"') for line in SETTINGS]
            entries = ", ".join(f'"{name}{number}.invalid"' for number in range(rules))
            (self.folder / name).write_text("\n".join([*lines, f"deny_senders = [{entries}]", ""]))
        self.spans, self.calls = {}, {}
        for name in COMMANDS:
            log = self.folder / "calls"
            assert self.run_command(name, number=0, log=log)[0] == 0
            self.calls[name] = len(log.read_text().splitlines())
            started = time.monotonic()
            assert self.run_command(name, seconds=None)[0] == 0
            self.spans[name] = time.monotonic() - started
        # The last to be measured.
        self.policies = {"many"}
        self.generation = directory.current_number(self.path)
        for step in ("new", "retry"):
            client, sender, recipient = request(self.next_number)
            self.calls[step] = killing.at_call(0, [HOOK, sender, recipient], env=self.environment(client))[2]
        self.next_number += 1
        self.spans["hook"] = sorted(self.living_hook() for _ in range(9))[4]

    def living_hook(self):
        """Seconds that a stranger's hook takes."""
        client, sender, recipient = request(self.next_number)
        self.next_number += 1
        started = time.monotonic()
        killing.after(None, [HOOK, sender, recipient], env=self.environment(client))
        return time.monotonic() - started

    def environment(self, client):
        return {"FASTGREY_STORE": str(self.path), "TCPREMOTEIP": client}

    def run_command(self, name, seconds=None, number=None, log=""):
        """A command that is killed after so many seconds, or at that call that changes the store; exit code and what it
        says on standard error."""
        environment = {"FASTGREY_STORE": str(self.path), "PATH": os.environ["PATH"]}
        words = [str(self.folder / word) if word in RULES else word for word in COMMANDS[name]]
        if number is None:
            return killing.after(seconds, [FASTGREY, *words], env=environment)
        return killing.after(None, [sys.executable, "-c", interposer.COMMAND, str(self.path), str(number), "0",
                                    str(log), "fastgrey", *words], env=environment | {"LD_PRELOAD": str(self.library)})

    def plan(self):
        """One step: a command and how it ends, and the hooks of two strands: when they begin, and how they end."""
        name = self.pick.choice([*COMMANDS])
        span = self.spans[name]
        how = {"number": self.pick.randint(1, self.calls[name])} if self.pick.random() < 0.5 else {
            "seconds": self.pick.uniform(0, 1.1) * span}
        strands = [[], []]
        for place in range(HOOKS):
            # Two that may be killed, so that the second is a retry of what the first could record; then two that live.
            ends = [("call", self.pick.randint(1, self.calls[step])) if self.pick.random() < 0.5 else
                    ("time", self.pick.uniform(0, 1.2) * self.spans["hook"]) for step in ("new", "retry")]
            strands[place % 2].append((self.next_number, self.pick.uniform(0, 2) * span / HOOKS, ends))
            self.next_number += 1
        return name, how, strands

    def strand(self, hooks):
        """Run hooks one after the other. Gives the numbers promised, and how many were killed by time and at a call."""
        promised, killed, refused = [], Counter(), []
        for number, pause, ends in hooks:
            client, sender, recipient = request(number)
            time.sleep(pause)
            for how, when in [*ends, ("time", None), ("time", None)]:
                run = killing.at_call if how == "call" else killing.after
                status, line, *_ = run(when, [HOOK, sender, recipient], env=self.environment(client))
                if status == -signal.SIGKILL:
                    killed[f"hooks by {how}"] += 1
                    continue
                words = line.split()[1:3]
                if status == 0 and words == [b"accept", b"retry"]:
                    promised.append(number)
                elif status == 0 and words != [b"accept", b"known-domain"] or status not in (0, 111):
                    refused.append((number, status, line))
                elif number in promised and words != [b"accept", b"known-domain"]:
                    refused.append((number, "was promised", line))
        return promised, killed, refused

    def round(self):
        """Some dozen kills."""
        with ThreadPoolExecutor(3) as pool:
            for name, how, strands in [self.plan() for _ in range(STEPS)]:
                command = pool.submit(self.run_command, name, **how)
                done = [future.result() for future in [pool.submit(self.strand, strand) for strand in strands]]
                self.ended(name, how, *command.result())
                for promised, killed, refused in done:
                    assert refused == []
                    self.earned.update(promised)
                    self.killed += killed

    def ended(self, name, how, status, said):
        command, _, which = name.partition(" ")
        if status == -signal.SIGKILL:
            self.killed[f"{command.strip(',')} by {'call' if 'number' in how else 'time'}"] += 1
            self.policies |= {which} if command == "apply" else set()
        else:
            assert status == 0, (name, how, status, said)
            self.policies = {which} if command == "apply" else self.policies

    def look(self):
        """What whoever comes next finds."""
        report = verification.verify(str(self.path))
        left = [finding.what for finding in report.findings if finding.level != "good"]
        assert [what for what in left if "is left over of" not in what] == []
        assert report.status < 2
        # No lock is stuck: a stranger and a promotion are written.
        client, sender, recipient = request(self.next_number)
        for words in ([b"defer", b"new"], [b"accept", b"retry"], [b"accept", b"known-domain"]):
            line = killing.after(None, [HOOK, sender, recipient], env=self.environment(client))[1]
            assert line.split()[1:3] == words, line
        self.earned.add(self.next_number)
        self.next_number += 1
        with fastgrey.open(self.path) as store:
            found = policy.in_force(store)
            assert len(found.rules) in {RULES.get(name, 0) for name in self.policies}
            self.policies = {name for name in self.policies if RULES.get(name, 0) == len(found.rules)}
            vanished = [number for number in self.earned if not known(store, number)]
            assert vanished == []
            records = store.known()
            # A promotion is made whole or not at all.
            assert records["triplet"] == records["domain"] == records["client"] >= len(self.earned)
        number = directory.current_number(self.path)
        assert number >= self.generation
        self.generation = number

    def clean_up(self):
        """A compaction that lives leaves nothing of the killed ones."""
        done = subprocess.run([FASTGREY, "compact", "--json", "--store", self.path], capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, done.stderr
        generation = json.loads(done.stdout.splitlines()[-1])["generation"]
        assert generation == self.generation + 1
        assert verification.verify(str(self.path)).worst == []
        assert [entry.name for entry in self.path.iterdir() if "gone" in entry.name or "new" in entry.name] == []
        assert directory.generations(self.path) == [self.generation, generation]
        self.generation = generation


def known(store, number):
    client, sender, recipient = request(number)
    return store.check(client=client, sender=sender, recipient=recipient, dry_run=True).reason == "known-domain"


def tables(path):
    """The directories of the environments in use."""
    return path / (path / "current").readlink(), path / f"pending.{directory.boot_id()}"


@contextlib.contextmanager
def held_open(path):
    """A process that has the store open, so that no opener finds itself alone."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"\n"
            yield
        finally:
            holder.kill()


def made_anew(storm):
    """Who is alone makes the table anew; a child of a killed command may take a while to notice that it has no parent,
    and then it is the next one who is alone."""
    deadline = time.monotonic() + 120
    while any(readers.stale(table) for table in tables(storm.path)):
        assert time.monotonic() < deadline
        storm.living_hook()


def test_kill_storm(in_memory, tmp_path):
    strace()
    library = interposer.build(tmp_path / "fault.so")
    with effort.chance("kill storm") as pick:
        storm = Storm(in_memory / "store", tmp_path, library, pick)
        storm.prepare()
        rounds = stale = 0
        while storm.killed.total() < effort.times(1000):
            rounds += 1
            # In every other round somebody stays, and stale slots with it, until a compaction.
            with held_open(storm.path) if rounds % 2 else contextlib.nullcontext():
                storm.round()
                storm.look()
                stale += sum(len(readers.stale(table)) for table in tables(storm.path))
                if rounds % CLEAN == 1:
                    storm.clean_up()
                    assert [readers.stale(table) for table in tables(storm.path)] == [[], []]
            if rounds % 2 == 0:
                made_anew(storm)
        storm.clean_up()
    kinds = {kind: number for kind, number in sorted(storm.killed.items())}
    assert len(kinds) == 6, kinds
    effort.tried("kill storm", kills=storm.killed.total(), **kinds, rounds=rounds, promised=len(storm.earned), lost=0,
                 generations=storm.generation, stale_slots_found=stale, seed=effort.SEED)
