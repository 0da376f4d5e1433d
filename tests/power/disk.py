"""A disk that a power cut leaves in the worst of all states that the standard allows.

The model is that of two papers that look for such bugs in other programs: Pillai and others, "All File Systems Are Not
Created Equal" (OSDI 2014), whose abstract persistence model this is at its weakest, and Mohan and others, "Finding
Crash-Consistency Bugs with Bounded Black-Box Crash Testing" (OSDI 2018), who cut after each flush and let a checker say
what a state must hold. In it:

- What was flushed is there: fsync, fdatasync and msync of a file make its bytes and its size durable, and no name;
  fsync of a directory makes all its names durable, and nothing below them. A write to a descriptor with O_DSYNC is a
  write and a flush of what that call wrote.
- Of what was not flushed any subset is there, whatever came first: each write of a file and each change of a name by
  itself.
- A write may be torn: any subset of its sectors (512 bytes) or of its pages (4,096 bytes, of the file). A sector is
  whole.
- The size of a file may be that after a write of which no byte arrived; in the gap there are zeros or bytes of others.
- A rename may leave both names, never none of them. A symbolic link is there with its target or not at all: no call
  flushes one.
- A change of modes and owners is not followed: it is there at once.

LOOSE files, which the program says it never flushes or whose content it may not rely on (strangers, LMDB's lock files),
hold what they held, zeros, or noise.
"""

import itertools
import random
import re
from dataclasses import dataclass, field
from typing import NamedTuple

SECTOR, PAGE = 512, 4096
LOOSE = re.compile(r"(^|/)(pending\.[^/]*/.*|lock\.mdb)$")


@dataclass(eq=False)
class File:
    """A file or a symbolic link (target). pending: writes, (offset, data) or (size, None) for another size, since the
    last flush."""

    durable: bytes = b""
    live: bytes = b""
    pending: list = field(default_factory=list)
    target: str | None = None


@dataclass(eq=False)
class Directory:
    """Names and what they stand for. pending: changes, name to what it stands for then or to None, since the last
    flush."""

    durable: dict = field(default_factory=dict)
    live: dict = field(default_factory=dict)
    pending: list = field(default_factory=list)


class Loose(NamedTuple):
    """The content of a LOOSE file, made only where it is looked at: size bytes of noise, or what it held."""

    held: bytes
    noise: object

    def content(self):
        if self.noise is None:
            return self.held
        return bytes(len(self.held)) if self.noise == "zeros" else _noise(self.noise, len(self.held))


class Choice:
    """Which of the pending changes are there: by number, in the order of reachable(); all where none are named.

    tears: number of a write to (size of a piece, a seed that picks its pieces). gap: what is where a file has grown and
    nothing was written: None lets it be as long as what is there. noise: seed of LOOSE files, None for what they held.
    """

    def __init__(self, kept=None, tears=None, gap=None, noise=None):
        self.kept, self.tears, self.gap, self.noise = kept, tears or {}, gap, noise

    def keeps(self, number):
        return self.kept is None or number in self.kept


EVERYTHING = Choice()


class Disk:
    """What is on it, as whoever looks sees it, and as a cut would leave it."""

    def __init__(self, root):
        """With what is in the directory root now, all of it flushed."""
        self.root = _read(root)
        # What had a name once can still be written to.
        self.known = {}

    def at(self, path):
        """The file or directory of this name."""
        place = self.root
        for part in [] if path == "." else path.split("/"):
            place = place.live.get(part) if isinstance(place, Directory) else None
        return place

    def find(self, path):
        """The same, also of what had that name last and has none any more."""
        return self.at(path) or self.known.get(path)

    def split(self, path):
        parent, _, name = path.rpartition("/")
        return self.at(parent or "."), name

    def name(self, path, inode):
        directory, name = self.split(path)
        self.change(directory, {name: inode})

    def change(self, directory, names):
        directory.pending.append(names)
        _name(directory.live, names)

    def apply(self, event):
        """Do what was done."""
        kind, path = event.kind, event.path
        inode = self.find(path)
        if kind == "make":
            if self.at(path) is None:
                self.name(path, File())
            self.known[path] = self.at(path)
        elif kind == "mkdir":
            self.name(path, Directory())
        elif kind == "symlink":
            self.name(path, File(target=event.to))
        elif kind == "link":
            self.name(event.to, inode)
        elif kind == "rename":
            (old, old_name), (new, new_name) = self.split(path), self.split(event.to)
            assert old is new, "renamed to another directory: two changes, of which the model would have to keep one"
            self.change(old, {new_name: inode, old_name: None})
        elif kind in ("unlink", "rmdir"):
            self.known[path] = inode
            self.name(path, None)
        elif kind in ("write", "store"):
            self.write(inode, event.offset, event.data, event.durable)
        elif kind == "cut":
            if len(inode.live) != event.offset:
                inode.pending.append((event.offset, None))
                inode.live = _sized(inode.live, event.offset)
        elif kind == "flush":
            inode.durable, inode.pending = inode.live.copy() if isinstance(inode, Directory) else inode.live, []

    def write(self, file, offset, data, durable):
        file.live = _put(file.live, offset, data)
        if durable:
            file.durable = _put(file.durable, offset, data)
            # What was written there before and not flushed must not come back over it.
            file.pending = [change for old in file.pending for change in _around(old, offset, data)]
        else:
            file.pending.append((offset, data))

    def reachable(self):
        """Each pending change that could matter to who looks: (its file or directory, the change, path). Not of LOOSE
        files."""
        seen, found = set(), []

        def look(inode, path):
            if id(inode) in seen:
                return
            seen.add(id(inode))
            if isinstance(inode, File):
                if not LOOSE.search(path):
                    found.extend((inode, change, path) for change in inode.pending)
                return
            found.extend((inode, change, path) for change in inode.pending)
            for names in [inode.durable, *inode.pending]:
                for name, below in names.items():
                    if below is not None:
                        look(below, f"{path}/{name}" if path else name)

        look(self.root, "")
        return found

    def image(self, choice=EVERYTHING):
        """What a cut leaves, {path: content}: bytes or Loose, None for a directory, a text for a symbolic link."""
        chosen = {}
        for number, (inode, change, _) in enumerate(self.reachable()):
            chosen.setdefault(id(inode), []).append((number, change))
        found = {}

        def look(inode, path):
            changes = chosen.get(id(inode), [])
            if isinstance(inode, File):
                found[path] = inode.target if inode.target is not None else _content(inode, changes, choice, path)
                return
            if path:
                found[path] = None
            names = dict(inode.durable)
            for number, change in changes:
                if choice.keeps(number):
                    # Both names of a rename.
                    both = number in choice.tears
                    _name(names, {name: to for name, to in change.items() if to is not None or not both
                                  or len(change) == 1})
            for name, below in sorted(names.items()):
                look(below, f"{path}/{name}" if path else name)

        look(self.root, "")
        return found

    def live(self):
        """What who looks sees: {path: content}."""
        return self.image()


def states(disk, most, seed):
    """Choices for a cut now: all subsets where they are at most so many, else the extremes and a sample."""
    pending = disk.reachable()
    numbers = range(len(pending))
    pick = random.Random(seed)
    noise = itertools.cycle((None, "zeros", seed))
    if 1 << len(pending) <= most:
        for size in range(len(pending) + 1):
            for kept in itertools.combinations(numbers, size):
                yield Choice(set(kept), noise=next(noise))
    else:
        yield Choice(set(), noise=next(noise))
        yield Choice(noise=next(noise))
        # Where all are too many: each alone lost, or kept.
        for number in pick.sample(numbers, min(len(pending), most // 4)):
            yield Choice(set(numbers) - {number}, noise=next(noise))
            yield Choice({number}, noise=next(noise))
        for _ in range(most // 2):
            share = pick.random()
            yield Choice({number for number in numbers if pick.random() < share}, noise=next(noise))
    writes = [number for number in numbers if isinstance(pending[number][1], tuple)]
    renames = [number for number in numbers if isinstance(pending[number][1], dict) and len(pending[number][1]) > 1]
    for number in renames:
        yield Choice(tears={number: None}, noise=next(noise))
    for _ in range(min(4, len(writes)) * max(1, most // 16)):
        share = pick.random()
        kept = {number for number in numbers if pick.random() < share}
        torn = pick.choice(writes)
        yield Choice(kept | {torn}, {torn: (pick.choice((SECTOR, PAGE)), pick.random())},
                     pick.choice((None, "zeros", pick.random())), next(noise))


def _content(file, changes, choice, path):
    if LOOSE.search(path):
        return Loose(file.live, choice.noise)
    content, longest = file.durable, len(file.durable)
    for number, (offset, data) in changes:
        if data is None:
            if choice.keeps(number):
                content = _sized(content, offset)
                longest = offset
        else:
            longest = max(longest, offset + len(data))
            if choice.keeps(number):
                for start, piece in _pieces(offset, data, choice.tears.get(number)):
                    content = _put(content, start, piece, choice.gap)
    if choice.gap is not None and longest > len(content):
        content += _gap(choice.gap, longest - len(content))
    return content


def _pieces(offset, data, tear):
    if tear is None:
        return [(offset, data)]
    size, seed = tear
    pick, found, start = random.Random(seed), [], offset
    while start < offset + len(data):
        end = min(offset + len(data), (start // size + 1) * size)
        if pick.random() < 0.5:
            found.append((start, data[start - offset:end - offset]))
        start = end
    return found


def _put(content, offset, data, gap=None):
    if offset > len(content):
        content += _gap(gap, offset - len(content))
    return content[:offset] + data + content[offset + len(data):]


def _around(change, offset, data):
    """What is left of a write where another has come over it."""
    start, before = change
    if before is None:
        return [change]
    end = offset + len(data)
    pieces = [(start, before[:max(0, offset - start)]), (max(start, end), before[max(0, end - start):])]
    return [piece for piece in pieces if piece[1]]


def _gap(gap, size):
    return bytes(size) if gap in (None, "zeros") else _noise(gap, size)


def _noise(seed, size):
    return random.Random(seed).randbytes(size)


def _sized(content, size):
    return content[:size] + bytes(max(0, size - len(content)))


def _name(names, change):
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _read(path):
    if path.is_symlink():
        return File(target=str(path.readlink()))
    if path.is_file():
        content = path.read_bytes()
        return File(content, content)
    names = {entry.name: _read(entry) for entry in path.iterdir()}
    return Directory(names, dict(names))


def put(image, root):
    """Make a directory of an image."""
    root.mkdir()
    for path, content in image.items():
        place = root / path
        if content is None:
            place.mkdir()
        elif isinstance(content, str):
            place.symlink_to(content)
        else:
            place.write_bytes(content.content() if isinstance(content, Loose) else content)
