"""A recorded operation, cut at every point: the states that a cut may leave, and what is wrong with them."""

import collections
import copy
import hashlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from fastgrey import directory
from power import judge, scenarios
from power.disk import LOOSE, PAGE, SECTOR, Choice, Disk, put, states
from power.recording import Event, record

# The directory of strangers is recorded under the name of this boot, and found under that of an earlier one.
FORMER = "pending.11111111-2222-4333-8444-555555555555"
JUDGE = Path(__file__).with_name("judge.py")


@dataclass
class Recording:
    """What one operation did: the disk before it, and events."""

    name: str
    place: scenarios.Place
    start: Disk
    events: list[Event]

    def cuts(self, events=None):
        """The disk after so many events, for each number of them."""
        disk = copy.deepcopy(self.start)
        yield 0, disk
        for number, event in enumerate(self.events if events is None else events, 1):
            disk.apply(event)
            yield number, disk


def recorded(name, folder):
    """Do the operation of this name, below the directory folder."""
    place = scenarios.Place(folder / "disk")
    events, start = [], None
    for words, environment, status in scenarios.OPERATIONS[name](place):
        start = start or Disk(place.root)
        found, done = record(place.root, *words, env=environment)
        assert done.returncode == status, (words, done.stderr)
        events += found
    return Recording(name, place, start, events)


class Court:
    """Tells what is wrong with states. work: a directory, best in memory. Ended with close()."""

    def __init__(self, work):
        self.work = work
        self.numbers = itertools.count()
        self.process = None
        self.judged = 0

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(60)
            self.process.stdout.close()
            self.process = None

    def lay_out(self, image):
        """A directory with that image, strangers under the name of the former boot."""
        place = self.work / str(next(self.numbers))
        put({path.replace(f"pending.{directory.boot_id()}", FORMER): content for path, content in image.items()}, place)
        return place

    def look(self, image, store, full):
        """What judge.py says of it."""
        place = self.lay_out(image)
        self.judged += 1
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, JUDGE, scenarios.HOOK], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True,
                                            env={"PYTHONPATH": str(JUDGE.parents[1])})
        order = {"place": str(place), "store": str(place / store), "waiting": scenarios.WAITING, "full": full}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if answer:
            return json.loads(answer)
        status = self.process.wait(60)
        self.close()
        return {"error": f"reading it ended by {signal.Signals(-status).name if status < 0 else status}"}


class Trial:
    """A recording and what must hold of it."""

    def __init__(self, recording, court):
        self.recording, self.court = recording, court
        self.store = str(recording.place.store.relative_to(recording.place.root))
        exits = [number for number, event in enumerate(recording.events, 1) if event.kind == "exit"]
        self.exits = [0, *exits]
        self.truths, self.wholes, self.counted, self.links = [], [], [], []
        known = {}
        for _, disk in recording.cuts():
            image = disk.live()
            key = digest({path: content for path, content in image.items()
                          if re.search(r"/current$|/passed\.\d+/data\.mdb$", path)})
            if key not in known:
                place = court.lay_out(image)
                try:
                    known[key] = judge.truth(place / self.store)
                except judge.UNREADABLE:
                    known[key] = DAMAGED
            self.truths.append(known[key])
            self.links.append(image.get(f"{self.store}/current"))
            self.counted.append(f"{self.store}/stats" in image)
            self.wholes.append([image.get(path) for path in recording.place.whole])

    def before(self, number):
        """The exit before a cut after so many events."""
        return max(exit for exit in self.exits if exit <= number)

    def after(self, number):
        """The exit behind it."""
        return min((exit for exit in self.exits if exit > number), default=self.exits[-1])

    def wrong(self, number, image, full=False):
        """What is wrong with a state that a cut after so many events left; None where it will do."""
        before, after = self.before(number), self.after(number)
        if number == before:
            after = before
        for paths, content in self.recording.place.somewhere:
            if content not in map(image.get, paths):
                return f"what must be in {' or '.join(paths)} is lost"
        for place, path in enumerate(self.recording.place.whole):
            if image.get(path) not in (self.wholes[before][place], self.wholes[after][place]):
                return f"{path} is neither the old one nor the new one"
        if not any(path == self.store for path in self.recording.start.live()) and set(self.truths) == {None}:
            return None
        found = self.court.look(image, self.store, full)
        allowed = self.truths[before:number + 1]
        if found["error"]:
            same = self.truths[before] == DAMAGED and image.get(f"{self.store}/current") == self.links[before]
            return None if same else found["error"]
        if found["truth"] not in allowed:
            return f"it holds {found['truth']}, and what was done is {' or '.join(map(str, dict.fromkeys(allowed)))}"
        if found["truth"] is None:
            return None
        if found["said"] != ["111 defer new", "0 accept retry", "0 accept known-triplet"][:len(found["said"])]:
            return f"the hook said {found['said']}"
        for level, what in found["findings"]:
            if not self.excused(level, what, before, after):
                return f"{level}: {what}"
        return None

    def excused(self, level, what, before, after):
        """Left over of what was cut, which the next compaction takes away. While settings change, the page of counters
        may have the other on_error; it may be missing where it was."""
        if level == "doubt":
            return bool(LEFT.search(what)) or "is damaged" in what and DAMAGED == self.truths[before]
        if "another on_error" in what:
            return self.truths[before] != self.truths[after]
        return self.truths[before] is not None and not self.counted[before] and "is missing" in what

    def states(self, most, seed, events=None, numbers=None):
        """Each state that a cut may leave, once: after how many events, its image."""
        seen = set()
        for number, disk in self.recording.cuts(events):
            if numbers is not None and number not in numbers:
                continue
            for choice in states(disk, most, f"{seed} {number}"):
                image = disk.image(choice)
                key = self.before(number), digest(image)
                if key not in seen:
                    seen.add(key)
                    yield number, image


    def switches(self):
        """The same right behind each change of the link, with one pending change lost and all others there: what the
        link names may not be whole yet."""
        for number, disk in self.recording.cuts():
            if number and self.recording.events[number - 1].to.endswith("/current"):
                numbers = set(range(len(disk.reachable())))
                for lost in numbers:
                    yield number, disk.image(Choice(numbers - {lost}))


LEFT = re.compile(r" is left over of | put aside")
# What mkstemp adds.
TEMPORARY = re.compile(r"\.[a-z0-9_]{8}$")
DAMAGED = "damaged"


def digest(image):
    """Of what a program can tell apart."""
    whole = hashlib.sha256()
    for path, content in sorted(image.items()):
        whole.update(f"{path}\0{type(content).__name__}\0".encode())
        # What is loose may be anything.
        if isinstance(content, str | bytes):
            whole.update(b"%d\0" % len(content) + (content.encode() if isinstance(content, str) else content))
    return whole.digest()


def flushes(recording):
    """All that flushes something of what is no LOOSE file: (number of the event, what it flushes, the how many-th
    flush of this it is, from 0). What: 'write PATH' of a write that flushes itself, 'bytes PATH' of a file, 'name
    PATH' of a directory, by the name in it that was changed last."""
    found, changed, counts = [], {}, collections.Counter()
    for number, event in enumerate(recording.events, 1):
        for path in filter(None, (event.path, event.kind == "rename" and event.to)):
            if event.kind not in ("write", "store", "cut", "map", "flush"):
                changed[os.path.dirname(path) or "."] = path
        if LOOSE.search(event.path):
            continue
        if event.durable or event.kind == "flush":
            what = (f"write {event.path}" if event.durable else f"name {changed[event.path]}" if event.path in changed
                    else f"bytes {TEMPORARY.sub('', event.path)}")
            found.append((number, what, counts[what]))
            counts[what] += 1
    return found


def without(events, number):
    """The events with the flush that has this number switched off."""
    event = events[number - 1]
    off = replace(event, durable=False) if event.durable else Event("nothing")
    return [*events[:number - 1], off, *events[number:]]


def missed(trial, number, most):
    """What is wrong with some state that a cut may leave where the flush with this number is switched off, and that it
    cannot leave otherwise; None where most states of the kind will do."""
    recording, pick = trial.recording, random.Random(number)
    events = without(recording.events, number)
    path = recording.events[number - 1].path
    cuts = []
    for (after, disk), (_, flushed) in zip(recording.cuts(events), recording.cuts(), strict=True):
        if after < number:
            continue
        if after == number:
            its, other = disk.find(path), flushed.find(path)
        pending = disk.reachable()
        mine = [place for place, (inode, _, _) in enumerate(pending) if inode is its]
        # The earlier ones are what the flush would have kept.
        mine = mine[:len(mine) - sum(inode is other for inode, _, _ in flushed.reachable())]
        if mine:
            images = [disk.image(choice) for choice in worst(mine, len(pending), pick)]
            cuts.append((weight(recording.events[after - 1]), after, images))
    # The worst of each cut before the next worst of any.
    tried = sorted(((rank // 2 + weight, after, rank) for weight, after, images in cuts for rank in range(len(images))))
    images = {after: images for _, after, images in cuts}
    seen = set()
    for _, after, rank in tried:
        image = images[after][rank]
        if (key := (trial.before(after), digest(image))) in seen:
            continue
        seen.add(key)
        if wrong := trial.wrong(after, image, full=rank % 2 == 0):
            return wrong
        if len(seen) >= most:
            break
    return None


def weight(event):
    """How early a cut right behind the event is tried: what was just told as done, or became visible, before the
    rest."""
    return ("exit", "rename").index(event.kind) if event.kind in ("exit", "rename") else 3 - event.durable


def worst(mine, size, pick):
    """Choices that lose some of those changes of a disk with so many pending ones."""
    everything = set(range(size))
    yield Choice(everything - set(mine))
    for number in pick.sample(mine, min(len(mine), 4)):
        yield Choice(everything - {number})
        yield Choice(everything, {number: (pick.choice((SECTOR, PAGE)), pick.random())}, "zeros")
    yield Choice(everything - set(mine), gap="zeros")
    yield Choice(set())
