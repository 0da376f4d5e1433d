"""What a check does of the kernel, counted: a change that adds a system call or a page fault says so here.

Counts do not shake as times do. What the C library does in every process is taken off: an empty static executable,
built and counted here too. So a C library or a kernel that does more or less of its own changes nothing.
"""

import contextlib
import mmap
import resource
import shutil
from collections import Counter

import pytest

import calls
import execs
import fastgrey
import stores
from fastgrey import policy
from listening import listening
from machine import strace

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

# Faults are counted without chance in the addresses, where that may be turned off, and in files that are in memory. What
# is left to the kernel is one or two, by file system and by whether the file was read from a disk. Without order.ld
# there are eight more.
LEEWAY = 4
# What the kernel maps around a page that faults, where nobody told it otherwise.
WINDOW = 1 << 16

DENIED = "a@denied.example"
ANSWER = b"verdict=defer new 300\nkey=0123456789ab\n\n"
WAITING = "first@host.example"
# Guarding itself, the clock, the counters, the generation in force and its two files, a reader's slot, the line.
KNOWN = {"fcntl": 4, "rt_sigaction": 8, "rt_sigprocmask": 1, "alarm": 1, "clock_gettime": 1, "openat": 3, "pread64": 3,
         "mmap": 3, "close": 1, "readlink": 1, "getpid": 1, "umask": 2, "lseek": 1, "fstatfs": 1, "write": 1}
# The boot's number and the two files of pending, opened for writing.
EARLY = dict(Counter(KNOWN) + Counter({"fcntl": 3, "openat": 4, "mmap": 4, "pread64": 2, "umask": 2, "close": 1,
                                       "getpid": 1, "lseek": 1, "fstatfs": 1, "read": 1}))
# Four pages and half a one that makes them count; pages that lie side by side are written in one piece.
PAGES = ("lseek", "pwrite64", "writev")
# The number of the rule that decided.
REJECTED = dict(Counter(KNOWN) + Counter({"openat": 1, "newfstatat": 1, "mmap": 1, "close": 1, "munmap": 1}))
# A socket with a bound, the socket in the store by its name, the time twice, the exchange.
ASKING = dict(Counter(KNOWN) + Counter({"clock_gettime": 2, "socket": 1, "setsockopt": 1, "openat": 1, "connect": 1,
                                        "sendto": 1, "poll": 1, "recvfrom": 1, "close": 2}))
# By kind of check: sender, client, how it is decided; system calls, and page faults at most. So few because an executable
# that does nothing has its C library in the order in which it happens to come (fastgrey/order.ld).
KINDS = {
    "known sender": ("a@h#.example", stores.client(0), "accept known-domain", KNOWN, 2),
    "known client": ("x@y.example", stores.KNOWN_CLIENT, "accept known-client", KNOWN, 2),
    "denied": (DENIED, stores.client(0), "reject denied", REJECTED, 2),
    "early": (WAITING, stores.client(0), "defer early", EARLY, 9),
    "stranger": ("x@new%.example", stores.client(0), "defer new", EARLY, 13),
    "shared": ("x@new%.example", stores.client(0), "defer new", ASKING, 2),
}


@pytest.fixture(scope="module")
def in_windows(tmp_path_factory):
    """Whether the kernel maps what is around a page that faults: the numbers below are of such kernels."""
    file = tmp_path_factory.mktemp("windows") / "file"
    file.write_bytes(b"x" * 16 * WINDOW)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        sum(pages[place] for place in range(0, len(pages), mmap.PAGESIZE))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 32


@pytest.fixture(scope="module")
def page_by_page(tmp_path_factory):
    """Let a command run a copy of its executable that lies in memory page by page: a file that was written in large
    pieces may lie there in large pieces too, and each that faults is mapped whole, whatever of it is wanted."""

    def copied(command):
        source, *words = command.words
        target = tmp_path_factory.mktemp("copy") / source.name
        content = source.read_bytes()
        with target.open("wb", buffering=0) as file:
            for place in range(0, len(content), mmap.PAGESIZE):
                file.write(content[place:place + mmap.PAGESIZE])
        target.chmod(0o755)
        return command._replace(words=(target, *words))

    return copied


@pytest.fixture(scope="module")
def nothing(tmp_path_factory, page_by_page):
    """What an executable does that does nothing."""
    strace()
    return calls.counted(page_by_page(execs.Spawner(tmp_path_factory.mktemp("spawner")).empty()))


@pytest.fixture
def store(path):
    """A store with known senders, and one that waits in pending."""
    stores.made(path, 0)
    with fastgrey.open(path) as opened:
        opened.check(client=stores.client(0), sender=WAITING, recipient=stores.RECIPIENT)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_calls_and_faults(store, run_fastgrey, nothing, page_by_page, in_windows, kind):
    sender, client, says, expected, faults = KINDS[kind]
    if kind == "shared":
        assert run_fastgrey("init", "--set", "shared=true").returncode == 0
    if kind == "denied":
        with fastgrey.open(store) as opened:
            policy.put(opened, {"deny_senders": [DENIED]})
    command = page_by_page(execs.hook(store, sender, client, stores.RECIPIENT, says))
    with listening(store, ANSWER) if kind == "shared" else contextlib.nullcontext():
        found = calls.counted(command).beyond(nothing)
    # Of each table on ext2 to ext4 alone LMDB asks which kernel it is: some had a fault there.
    assert found.calls.pop("uname", 0) in (0, expected["fstatfs"])
    if kind == "stranger":
        pages = sum(found.calls.pop(name, 0) for name in PAGES)
        assert pages <= sum(expected.get(name, 0) for name in PAGES) + 5
        expected = {name: times for name, times in expected.items() if name not in PAGES}
    assert dict(found.calls) == expected
    if not in_windows:
        pytest.skip("the kernel maps one page at a time, faults are not counted")
    assert found.faults <= faults + LEEWAY
