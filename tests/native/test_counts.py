"""What a check does of the kernel, counted: a change that adds a system call or a page fault says so here.

Counts do not shake as times do. What the C library does in every process is taken off: an empty static executable,
built and counted here too. So a C library or a kernel that does more or less of its own changes nothing.
"""

import shutil
from collections import Counter

import pytest

import calls
import execs
import fastgrey
import stores
from fastgrey import policy

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

# Faults are counted without chance in the addresses, and in files that are in memory. What is left to the kernel is how
# many pages around one that faults it maps with it, which goes by how they lie in the page cache: one window more or
# less for the executable and one for the tables.
LEEWAY = 2

DENIED = "a@denied.example"
WAITING = "first@host.example"
# Guarding itself, the clock, the counters, the generation in force and its two files, a reader's slot, the line.
KNOWN = {"fcntl": 4, "rt_sigaction": 8, "rt_sigprocmask": 1, "alarm": 1, "clock_gettime": 1, "openat": 3, "pread64": 3,
         "mmap": 3, "close": 1, "readlink": 1, "getpid": 1, "umask": 2, "lseek": 1, "fstatfs": 1, "uname": 1,
         "write": 1}
# The boot's number and the two files of pending, opened for writing.
EARLY = dict(Counter(KNOWN) + Counter({"fcntl": 3, "openat": 4, "mmap": 4, "pread64": 2, "umask": 2, "close": 1,
                                       "getpid": 1, "lseek": 1, "fstatfs": 1, "uname": 1, "read": 1}))
# Four pages and half a one that makes them count; pages that lie side by side are written in one piece.
PAGES = ("lseek", "pwrite64", "writev")
# The number of the rule that decided.
REJECTED = dict(Counter(KNOWN) + Counter({"openat": 1, "newfstatat": 1, "mmap": 1, "close": 1, "munmap": 1}))
# By kind of check: sender, client, how it is decided; system calls, and page faults at most. So few because an executable
# that does nothing has its C library in the order in which it happens to come (fastgrey/order.ld).
KINDS = {
    "known sender": ("a@h#.example", stores.client(0), "accept known-domain", KNOWN, 2),
    "known client": ("x@y.example", stores.KNOWN_CLIENT, "accept known-client", KNOWN, 2),
    "denied": (DENIED, stores.client(0), "reject denied", REJECTED, 2),
    "early": (WAITING, stores.client(0), "defer early", EARLY, 9),
    "stranger": ("x@new%.example", stores.client(0), "defer new", EARLY, 13),
}


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    """What an executable does that does nothing."""
    return calls.counted(execs.Spawner(tmp_path_factory.mktemp("spawner")).empty())


@pytest.fixture
def store(path):
    """A store with known senders, and one that waits in pending."""
    stores.made(path, 0)
    with fastgrey.open(path) as opened:
        opened.check(client=stores.client(0), sender=WAITING, recipient=stores.RECIPIENT)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_calls_and_faults(store, nothing, kind):
    sender, client, says, expected, faults = KINDS[kind]
    if kind == "denied":
        with fastgrey.open(store) as opened:
            policy.put(opened, {"deny_senders": [DENIED]})
    found = calls.counted(execs.hook(store, sender, client, stores.RECIPIENT, says)).beyond(nothing)
    if kind == "stranger":
        pages = sum(found.calls.pop(name, 0) for name in PAGES)
        assert pages <= sum(expected.get(name, 0) for name in PAGES) + 5
        expected = {name: times for name, times in expected.items() if name not in PAGES}
    assert dict(found.calls) == expected
    assert found.faults <= faults + LEEWAY
