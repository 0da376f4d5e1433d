"""All that a command does to the files below one directory, as strace(1) sees it: system calls with the bytes they
write.

Nothing is put into the process that is looked at, so a static executable, Python and whatever they start are recorded
in the same way. What a process stores through a shared map makes no call: which files are mapped for writing is
recorded, and what they hold when the command has ended is taken for what was stored (MAPPED).

A file may be opened by way of links that lead through /proc/self/fd, as the extension opens its tables. What was opened
is what the kernel calls the descriptor then, whatever the name was. Only opening may go that way: what else does has no
model.
"""

import os
import re
import subprocess
from dataclasses import dataclass

CALLS = ("open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,truncate,ftruncate,fallocate,fsync,"
         "fdatasync,sync_file_range,msync,sync,syncfs,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,"
         "mkdir,mkdirat,symlink,symlinkat,mmap,sendfile,copy_file_range,splice,execve")
# Calls that the product does not make; a recording with one of them would need a model of it.
UNKNOWN = {"openat2", "creat", "pwritev", "pwritev2", "truncate", "fallocate", "sync_file_range", "sync", "syncfs",
           "sendfile", "copy_file_range", "splice", "renameat2"}
# No write is longer.
LONGEST = 8 << 20
# Files that the store maps for writing: counters, hits of rules, LMDB's lock files.
MAPPED = re.compile(r"(^|/)(stats|hits\.\d+|lock\.mdb)$")

# What a descriptor that a call returns stands for is behind its number.
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (0x[0-9a-f]+|-?\d+)(?:<((?:\\x[0-9a-f]{2})*)>)?")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)$")
_ENDED = re.compile(r"(\d+) +\+\+\+ exited with (\d+) \+\+\+")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"(-?\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")
# Calls that open what they name.
OPENING = ("open", "openat", "openat2", "creat")
# Where a name leads to what a process has open.
_OPEN_FILES = re.compile(r"/proc/(self|thread-self|\d+)(/task/\d+)?/fd(/|$)")


@dataclass(frozen=True)
class Event:
    """One thing that was done. path, to: below the directory that was recorded.

    kind: 'make', 'mkdir', 'symlink' (to: its target), 'link', 'rename', 'unlink', 'rmdir', 'write' (data at offset;
    durable: flushed by the call itself, O_DSYNC), 'cut' (to offset bytes), 'store' (data through a map), 'flush' (of a
    file or a directory), 'map', 'exit' (of a program: words, status).
    """

    kind: str
    path: str = ""
    to: str = ""
    offset: int = 0
    data: bytes = b""
    durable: bool = False
    words: tuple[str, ...] = ()
    status: int = 0


@dataclass
class _Open:
    """An open file. Its place is that of the open file description, which a child and a thread share."""

    place: int
    durable: bool
    append: bool


def _bytes(escaped):
    return bytes.fromhex(escaped.replace("\\x", ""))


def record(root, *command, env=None):
    """Run the command in the directory root; the events, and the finished process with its texts."""
    log = root.parent / "strace.log"
    traced = ["strace", "-f", "-y", "-xx", "-s", str(LONGEST), "-o", log, "-e", f"trace={CALLS}", "-e", "signal=none",
              "--seccomp-bpf", "--", *command]
    done = subprocess.run(traced, cwd=root, capture_output=True, text=True, timeout=120,
                          env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | (env or {}))
    events = _Log(root).events(log.read_text())
    log.unlink()
    return list(_with_stores(root, events)), done


def _with_stores(root, events):
    """Behind the first map of a file, what it held when the command had ended."""
    stored = set()
    for event in events:
        yield event
        if event.kind == "map" and event.path not in stored and (root / event.path).is_file():
            stored.add(event.path)
            yield Event("store", event.path, data=(root / event.path).read_bytes())


class _Log:
    """A log of strace, line by line."""

    def __init__(self, root):
        self.root = root
        self.found = []
        self.open = {}
        self.begun = {}
        self.words = {}
        self.maps = {}
        # Links elsewhere that lead to what a process has open.
        self.links = set()

    def events(self, text):
        for line in text.splitlines():
            if match := _BEGUN.match(line):
                self.begun[match[1]] = f"{match[1]} {match[2]}({match[3]}"
                continue
            if match := _RESUMED.match(line):
                line = self.begun.pop(match[1]) + match[2]
            if match := _ENDED.match(line):
                if match[1] in self.words:
                    self.found.append(Event("exit", words=self.words.pop(match[1]), status=int(match[2])))
            elif match := _LINE.match(line):
                if not match[4].startswith("-"):
                    self.call(*match.groups())
        return self.found

    def call(self, process, name, arguments, result, opened):
        texts = [_bytes(text) for text in _TEXT.findall(arguments)]
        if name == "execve":
            self.words[process] = tuple(text.decode() for text in texts[1:])
            return
        if name == "msync":
            if path := self.maps.get(int(arguments.split(",")[0], 0)):
                self.add("flush", path)
            return
        paths = [self.below(_bytes(opened))] if name in OPENING else self.paths(name, arguments, texts)
        below = [path for path in paths if path is not None]
        if not below:
            return
        assert name not in UNKNOWN, f"{name} of {below}"
        getattr(self, f"on_{name}")(process, arguments, texts, int(result, 0), paths)

    def absolute(self, path):
        return os.path.normpath(os.path.join(self.root, os.fsdecode(path)))

    def below(self, path):
        """The path below the root, None outside it."""
        path = self.absolute(path)
        assert not self.leads(path), f"by way of {path}: only opening may go there"
        return os.path.relpath(path, self.root) if f"{path}/".startswith(f"{self.root}/") else None

    def leads(self, path):
        """Does the name lead through what a process has open? A link itself does not."""
        return _OPEN_FILES.match(path) or any(path.startswith(f"{link}/") for link in self.links)

    def paths(self, name, arguments, texts):
        """Of the call: by its descriptors where it has one, else by names, which may be relative to one."""
        places = [_bytes(path) for _, path in _DESCRIPTOR.findall(arguments)]
        if name in ("symlink", "symlinkat"):
            link = os.path.join(*places[:1], texts[1])
            if _OPEN_FILES.match(os.fsdecode(texts[0])):
                self.links.add(self.absolute(link))
            return [self.below(link)]
        if name == "truncate":
            assert self.absolute(texts[0]) not in self.links, f"truncate of {texts[0]}: only opening may go there"
        if name in ("rename", "link", "unlink", "mkdir", "rmdir", "truncate"):
            return [self.below(text) for text in texts]
        if name.endswith("at") or name == "renameat2":
            return [self.below(os.path.join(place, text)) for place, text in zip(places, texts, strict=False)]
        return [self.below(place) for place in places if place.startswith(b"/")]

    def add(self, kind, path, **more):
        self.found.append(Event(kind, path, **more))

    def descriptor(self, process, arguments):
        number, path = _DESCRIPTOR.search(arguments).groups()
        return self.open.get((process, number)) or self.open[number, path]

    def on_openat(self, process, arguments, texts, result, paths):
        self.opened(process, arguments, texts, result, paths)

    def opened(self, process, arguments, texts, result, paths):
        flags = arguments.rpartition('"')[2].split(",")[1].strip().split("|")
        assert "O_TMPFILE" not in flags, f"a file without a name in {paths[0]}"
        if "O_CREAT" in flags:
            self.add("make", paths[0])
        if "O_TRUNC" in flags:
            self.add("cut", paths[0])
        name = "".join(f"\\x{byte:02x}" for byte in os.fsencode(self.root / paths[0]))
        opened = _Open(0, bool({"O_DSYNC", "O_SYNC"} & set(flags)), "O_APPEND" in flags)
        self.open[process, str(result)] = self.open[str(result), name] = opened

    on_open = opened

    def on_lseek(self, process, arguments, texts, result, paths):
        self.descriptor(process, arguments).place = result

    def on_write(self, process, arguments, texts, result, paths):
        opened = self.descriptor(process, arguments)
        assert not opened.append
        data = b"".join(texts)[:result]
        assert len(data) == result, f"{paths[0]}: strace shows less than was written"
        self.add("write", paths[0], offset=opened.place, data=data, durable=opened.durable)
        opened.place += result

    on_writev = on_write

    def on_pwrite64(self, process, arguments, texts, result, paths):
        offset = int(arguments.rpartition(",")[2])
        self.add("write", paths[0], offset=offset, data=texts[0][:result],
                 durable=self.descriptor(process, arguments).durable)

    def on_ftruncate(self, process, arguments, texts, result, paths):
        self.add("cut", paths[0], offset=int(arguments.rpartition(",")[2]))

    def on_fsync(self, process, arguments, texts, result, paths):
        self.add("flush", paths[0])

    on_fdatasync = on_fsync

    def on_mmap(self, process, arguments, texts, result, paths):
        if "MAP_SHARED" in arguments and "PROT_WRITE" in arguments:
            self.maps[result] = paths[0]
            self.add("map", paths[0])

    def on_mkdir(self, process, arguments, texts, result, paths):
        self.add("mkdir", paths[0])

    on_mkdirat = on_mkdir

    def on_symlink(self, process, arguments, texts, result, paths):
        self.add("symlink", paths[0], to=os.fsdecode(texts[0]))

    on_symlinkat = on_symlink

    def on_rename(self, process, arguments, texts, result, paths):
        assert None not in paths, "from or to another directory"
        self.add("rename", paths[0], to=paths[1])

    on_renameat = on_rename

    def on_link(self, process, arguments, texts, result, paths):
        self.add("link", paths[0], to=paths[1])

    on_linkat = on_link

    def on_unlink(self, process, arguments, texts, result, paths):
        self.add("unlink", paths[0])

    def on_rmdir(self, process, arguments, texts, result, paths):
        self.add("rmdir", paths[0])

    def on_unlinkat(self, process, arguments, texts, result, paths):
        self.add("rmdir" if "AT_REMOVEDIR" in arguments else "unlink", paths[0])
