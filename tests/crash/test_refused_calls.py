"""Every system call of a check refused, one a run: the true verdict or the one of on_error, one line, and the next check
as if nothing had been.

By strace(1), for the executable is static and nothing can be preloaded. What comes before the first call of its own is
the C library's start, in which no program has a say: there a refusal kills it, and is not tried.
"""

import re
from collections import Counter

import pytest

import effort
import ground
from machine import strace

pytestmark = pytest.mark.torture

ERRORS = ("ENOSPC", "EIO", "ENOMEM", "EACCES", "EMFILE", "ENFILE", "EROFS", "EINTR")
FIRST = ("fcntl", "2, F_GETFD")
# A call that ends the process cannot fail, and without the last word there is no line to look at.
LAST = ("write", "exit_group")


def calls(store, who, log):
    """The system calls of a check from its first one on: name, and which of that name it is."""
    assert ground.ask(store, who, strace(), "-o", log).verdict == ground.TRUE[who]
    made = re.findall(r"^(\w+)\((.*)", log.read_text(), re.M)
    begun = next(number for number, (name, rest) in enumerate(made) if (name, rest[:len(FIRST[1])]) == FIRST)
    seen, found = Counter(), []
    for number, (name, _) in enumerate(made):
        seen[name] += 1
        if number >= begun and name not in LAST:
            found.append((name, seen[name]))
    return found


def refuse(name, number, error):
    """The words of a command that runs another one with this call refused."""
    return [strace(), "-qq", "-o", "/dev/null", "-e", f"inject={name}:error={error}:when={number}"]


@pytest.mark.parametrize("who", ["known", "due", "stranger", "waiting", "denied", "allowed"])
def test_every_call_refused(in_memory, who):
    templates = [(on_error, ground.make(in_memory / on_error, on_error, records=8)) for on_error in ("accept", "defer")]
    made = calls(ground.copy(templates[0][1], in_memory / "store"), who, in_memory / "log")
    assert len(made) > 30
    runs = faults = 0
    for place, (name, number) in enumerate(made):
        for nth in range(min(effort.times(1), len(ERRORS))):
            on_error, template = templates[(place + nth) % 2]
            error = ERRORS[(place // 2 + nth) % len(ERRORS)]
            store = ground.copy(template, in_memory / "store")
            answer = ground.ask(store, who, *refuse(name, number, error))
            case = name, number, error, answer
            assert answer.verdict == ground.TRUE[who] or ground.is_fault(answer, on_error), case
            runs += 1
            faults += answer.verdict.endswith(" error")
            ground.goes_on(store, who, answer)
    effort.tried("system calls of a check refused", runs=runs, faults=faults, deaths=0)
    assert 5 < faults < runs - 5


@pytest.mark.parametrize("size", [0, 1, 100, 4095])
@pytest.mark.parametrize("who", ["due", "stranger", "waiting"])
def test_every_write_cut_short(in_memory, who, size):
    """As a disk does that fills up in the middle of one."""
    template = ground.make(in_memory / "template", records=8)
    made = calls(ground.copy(template, in_memory / "store"), who, in_memory / "log")
    writes = [call for call in made if call[0] in ("pwrite64", "pwritev", "writev")]
    assert writes
    for name, number in writes:
        store = ground.copy(template, in_memory / "store")
        answer = ground.ask(store, who, strace(), "-qq", "-o", "/dev/null", "-e",
                            f"inject={name}:retval={size}:when={number}")
        assert answer.verdict == ground.TRUE[who] or ground.is_fault(answer), (name, number, answer)
        ground.goes_on(store, who, answer)


@pytest.mark.parametrize(("error", "who"), [("ENOSPC", "waiting"), ("EIO", "due"), ("EROFS", "stranger"),
                                            ("ENOMEM", "known")])
def test_all_refused_from_one_on(in_memory, who, error):
    """As on a disk that is full from there on, or gone: of all that writes, makes or flushes, every later call too."""
    template = ground.make(in_memory / "template", records=8)
    store = ground.copy(template, in_memory / "store")
    made = calls(store, who, in_memory / "log")
    kinds = sorted({name for name, _ in made} & {"pwrite64", "pwritev", "writev", "ftruncate", "fdatasync", "fsync",
                                                 "mkdir", "openat", "mmap"})
    assert {"openat", "mmap"} <= set(kinds)
    for name in kinds:
        for number in {number for other, number in made if other == name}:
            store = ground.copy(template, in_memory / "store")
            answer = ground.ask(store, who, strace(), "-qq", "-o", "/dev/null", "-e",
                                f"inject={name}:error={error}:when={number}+")
            # Where not even the page of counters can be mapped, on_error is not known, and the default holds.
            blind = name in ("openat", "mmap") and number == 1 and answer.verdict == "accept error"
            assert answer.verdict == ground.TRUE[who] or blind or ground.is_fault(answer), (name, number, answer)
            ground.goes_on(store, who, answer)
