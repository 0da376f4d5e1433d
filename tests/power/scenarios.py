"""What is recorded: for each operation of docs/format.md commands that do it, on a store with something in every part.

An operation is a function that takes a Place and yields commands, (words, environment, exit status that it must have).
What they earn, apply or write counts as done from their exit on.
"""

import sys
import time
from pathlib import Path

import fastgrey
from conftest import FASTGREY, HOOK
from fastgrey import backup, compaction, directory, policy, settings, windows

SETTINGS = ("delay=0s", "lifetime=1h", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
# Who has tried once before everything that is recorded.
WAITING = ("198.51.100.77", "a@waiting.example", "b@example.net")
FOREIGN = b"#!/bin/sh\n# another's\nexit 0\n"

MEANWHILE = """
import subprocess, sys
from fastgrey import compaction
store, hook = sys.argv[1:]
def earn(who):
    for _ in range(2):
        subprocess.run([hook, f"a@{who}.example", "b@example.net"], check=False,
                       env={"FASTGREY_STORE": store, "TCPREMOTEIP": "203.0.113.9"})
earned = []
def progress(step, done, total):
    if step in ("compare", "structure") and step not in earned:
        earned.append(step)
        earn(step)
compaction.compact(store, progress=progress)
earn("later")
"""

INSTALL = """
import sys
from pathlib import Path
from fastgrey import hooks
from fastgrey.installation import files
from fastgrey.installation.job import Job
folder, hook, verb = sys.argv[1:]
job = Job(hooks.HOOKS["checkenv"], Path(folder), Path(folder), "root", "root", None, "")
if verb == "put":
    files.put(job, Path(hook).read_bytes(), False)
else:
    files.take_away(job, False)
"""

CHANGE = """
import sys
from pathlib import Path
from fastgrey.file_set import Change, carry_out
source = Path(sys.argv[1])
carry_out([Change(source / "new.c", None, b"new" * 3000),
           Change(source / "sub" / "old.c", b"old" * 3000, b"other" * 3000),
           Change(source / "gone.c", b"gone", None)])
"""


class Place:
    """The directory that is recorded. whole: files of which a command leaves the old one or the new one. somewhere:
    what must never be lost, as names of which one has it and its content."""

    whole = ()
    somewhere = ()

    def __init__(self, root):
        self.root = root
        self.store = root / "store"
        self.saved = root / "saved"
        root.mkdir()

    def fastgrey(self, *words, status=0):
        environment = {"FASTGREY_STORE": str(self.store), "FASTGREY_CONFIG": str(self.configuration)}
        return [FASTGREY, *words], environment, status

    def script(self, text, *words):
        return [sys.executable, "-c", text, *map(str, words)], {}, 0

    def hook(self, who, status, recipient="b@example.net"):
        environment = {"FASTGREY_STORE": str(self.store), "TCPREMOTEIP": "192.0.2.9"}
        return [HOOK, f"a@{who}.example", recipient], environment, status

    def earn(self, who):
        """A stranger comes, and comes back."""
        return [self.hook(who, 111), self.hook(who, 0)]

    @property
    def configuration(self):
        """Beside what is recorded."""
        return self.root.with_name("fastgrey.toml")

    def configure(self, text):
        pairs = (pair.split("=") for pair in SETTINGS)
        lines = [f"{name} = {value}\n" if value.isdigit() else f'{name} = "{value}"\n' for name, value in pairs]
        self.configuration.write_text(text + "".join(lines))

    def make_store(self, rules=("denied.example",)):
        """Generation 2 in force and 1 before it; known records, some expired; rules, a window, a backup, and who
        waits."""
        fastgrey.create(self.store, settings.parse_assignments(SETTINGS))
        now = int(time.time())
        with fastgrey.open(self.store) as store:
            for name, number, when in (("old", 3, now - 4000), ("young", 6, now)):
                for index in range(number):
                    for _ in range(2):
                        store.check(client=f"192.0.2.{index}", sender=f"a@{name}{index}.example",
                                    recipient="b@example.net", now=when)
                if name == "old":
                    compaction.compact(str(self.store), now=when, verify="copy")
            if rules:
                policy.put(store, {"deny_senders": rules})
            windows.open_window(store, "open@example.net", None, "1h")
            store.check(client=WAITING[0], sender=WAITING[1], recipient=WAITING[2])
        backup.backup(str(self.store), self.saved)
        return self


def init(place):
    yield place.fastgrey("init", *(word for pair in SETTINGS for word in ("--set", pair)))
    yield from place.earn("one")


def init_below_new_directories(place):
    place.store = place.root / "var" / "lib" / "store"
    yield from init(place)


def hooks(place):
    place.make_store()
    yield from place.earn("one")
    yield from place.earn("two")
    yield place.hook("one", 0)
    yield place.hook("denied", 100)


def apply(place):
    place.make_store()
    place.configure('deny_senders = ["denied.example", "bulk.example"]\non_error = "defer"\n')
    yield place.fastgrey("apply")
    yield place.hook("bulk", 100)
    yield from place.earn("one")
    place.configure('deny_senders = ["bulk.example", "more.example"]\n')
    yield place.fastgrey("apply")
    yield place.hook("denied", 111)


def change_of_a_setting(place):
    place.make_store(rules=())
    yield place.fastgrey("init", "--set", "on_error=defer")
    yield from place.earn("one")


def counters_made_anew(place):
    place.make_store()
    (place.store / "stats").unlink()
    yield place.fastgrey("init")
    yield from place.earn("one")


def compact(place):
    place.make_store()
    yield place.script(MEANWHILE, place.store, HOOK)
    yield from place.earn("one")


def change(place):
    """Another policy than that of the generation before, and of the backup."""
    values = settings.parse_assignments((*SETTINGS, "on_error=defer"))
    with fastgrey.open(place.store) as store:
        policy.put(store, {"deny_senders": ["other.example"]}, values)


def roll_back(place):
    place.make_store()
    change(place)
    yield place.fastgrey("rollback")
    yield from place.earn("one")


def roll_back_from_damage(place):
    place.make_store()
    data = place.store / "passed.000002" / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192] + bytes(data.stat().st_size - 8192))
    yield place.fastgrey("rollback")
    yield from place.earn("one")


def restore(place):
    place.make_store()
    change(place)
    yield place.fastgrey("restore", str(place.saved))
    yield from place.earn("one")


def restore_anew(place):
    place.make_store()
    for path in place.store.iterdir():
        directory.remove(path)
    place.store.rmdir()
    yield place.fastgrey("restore", str(place.saved))
    yield from place.earn("one")


def back_up(place):
    place.make_store()
    place.whole = ("saved",)
    with fastgrey.open(place.store) as store:
        store.check(client="192.0.2.200", sender="a@more.example", recipient="b@example.net")
        store.check(client="192.0.2.200", sender="a@more.example", recipient="b@example.net")
    yield place.fastgrey("backup", str(place.saved))


def by_hand(place):
    place.make_store()
    yield place.fastgrey("pass", "192.0.2.9", "a@passed.example", "b@example.net")
    yield place.fastgrey("forget", "192.0.2.1", "a@young1.example", "b@example.net")
    yield place.fastgrey("forget", "-", "a@young2.example", "b@example.net", status=1)


def expect(place):
    place.make_store()
    yield place.fastgrey("expect", "soon@example.net", "--for", "15m")
    yield place.fastgrey("expect", "open@example.net", "--close")


def install(place):
    folder = place.root / "bin"
    folder.mkdir()
    (folder / "qmail-checkenv").write_bytes(FOREIGN)
    place.whole = ("bin/qmail-checkenv", "bin/qmail-checkenv.before-fastgrey")
    place.somewhere = ((place.whole, FOREIGN),)
    yield place.script(INSTALL, folder, HOOK, "put")
    yield place.script(INSTALL, folder, HOOK, "take away")


def change_sources(place):
    source = place.root / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "old.c").write_bytes(b"old" * 3000)
    (source / "gone.c").write_bytes(b"gone")
    place.whole = ("source/new.c", "source/sub/old.c", "source/gone.c")
    yield place.script(CHANGE, source)


OPERATIONS = {operation.__name__: operation for operation in (
    init, init_below_new_directories, hooks, apply, change_of_a_setting, counters_made_anew, compact, roll_back,
    roll_back_from_damage, restore, restore_anew, back_up, by_hand, expect, install, change_sources)}
