"""A hostile environment: the same verdict, the same line, and the same files opened as with a plain one."""

import os
import re
import resource
import subprocess

import pytest

from conftest import HOOK
from machine import strace
from raw_exec import raw_exec

PLAIN = {"TCPREMOTEIP": "192.0.2.1"}
HOSTILE = {
    "loader": {"LD_PRELOAD": "{evil}", "LD_LIBRARY_PATH": "{folder}", "LD_AUDIT": "{evil}", "LD_DEBUG": "all",
               "LD_DEBUG_OUTPUT": "{folder}/debug", "LD_PROFILE": "libc.so.6", "LD_PROFILE_OUTPUT": "{folder}",
               "LD_BIND_NOW": "1", "LD_ORIGIN_PATH": "{folder}", "LD_SHOW_AUXV": "1", "LD_HWCAP_MASK": "0"},
    "library": {"GCONV_PATH": "{folder}", "GETCONF_DIR": "{folder}", "HOSTALIASES": "{evil}", "LANG": "de_DE.UTF-8",
                "LC_ALL": "{folder}", "LOCPATH": "{folder}", "NLSPATH": "{folder}/%N", "MALLOC_TRACE": "{folder}/trace",
                "MALLOC_CHECK_": "3", "MALLOC_ARENA_MAX": "0", "MALLOC_PERTURB_": "255",
                "MALLOC_TOP_PAD_": "99999999999",
                "MALLOC_MMAP_THRESHOLD_": "1", "RESOLV_HOST_CONF": "{evil}", "RES_OPTIONS": "debug",
                "TMPDIR": "{folder}",
                "TZDIR": "{folder}", "TZ": ":{evil}", "LOCALDOMAIN": "evil.example", "POSIXLY_CORRECT": "1"},
    "tunables": {"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.perturb=255:glibc.malloc.tcache_count=0"},
    "tunables cut": {"GLIBC_TUNABLES": "glibc.malloc.mxfast=glibc.malloc.mxfast=" + "A" * 4000},
    "shell": {"IFS": "/", "PATH": "{folder}", "ENV": "{evil}", "BASH_ENV": "{evil}", "SHELLOPTS": "xtrace",
              "PS4": "$(id)",               "CDPATH": "/", "HOME": "{folder}", "USER": "root", "PWD": "{folder}"},
    "python": {"PYTHONPATH": "{folder}", "PYTHONHOME": "{folder}", "PYTHONSTARTUP": "{evil}"},
}


@pytest.fixture
def evil(tmp_path):
    """A library that says that it was loaded, in a folder that has it under many names."""
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.c").write_text('#include <unistd.h>\n__attribute__((constructor)) void f(void)'
                                   '{ write(2, "EVIL\\n", 5); }\n')
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "evil.so", folder / "evil.c"], check=True)
    for name in ("libc.so.6", "liblmdb.so.0", "gconv-modules", "de_DE.UTF-8"):
        (folder / name).write_bytes((folder / "evil.so").read_bytes())
    return folder / "evil.so"


def trace(log, store, environment):
    """Line and status of a check, and the paths of all system calls that have one."""
    done = subprocess.run([strace(), "-f", "-e", "trace=%file", "-o", log, *(word for name, value in environment.items()
                           for word in ("-E", f"{name}={value}")), HOOK, "a@example.org", "b@example.net"],
                          env={"PATH": os.environ["PATH"], "FASTGREY_STORE": str(store)}, capture_output=True,
                          timeout=60)
    paths = re.findall(r'"([^"]*)"', "\n".join(line for line in log.read_text().splitlines() if "execve(" not in line))
    return done.stderr, done.returncode, done.stdout, paths


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_changes(make_store, run_hook, tmp_path, evil, name):
    store = make_store("delay=1d")
    # The stranger is recorded, so that all that follow find the same.
    run_hook()
    log = tmp_path / "trace"
    plain = trace(log, store, PLAIN)
    hostile = {key: value.format(evil=evil, folder=evil.parent) for key, value in HOSTILE[name].items()}
    found = trace(log, store, PLAIN | hostile)
    assert plain[0].startswith(b"fastgrey: defer early") and plain[3]
    # The seconds left may be fewer by now.
    assert re.sub(rb"wait=\d+", b"", found[0]) == re.sub(rb"wait=\d+", b"", plain[0])
    assert found[1:] == plain[1:]
    assert not [path for path in found[3] if path.startswith(str(evil.parent))]
    assert not set(os.listdir(evil.parent)) & {"debug", "trace"}


def test_enormous(make_store, path):
    """As much as the kernel passes on: one variable of 128 kB less a page, or 100,000 of them."""
    make_store()
    limit = resource.getrlimit(resource.RLIMIT_STACK)
    if limit[0] != resource.RLIM_INFINITY and limit[0] < 8 << 20:
        pytest.skip("the stack may not be as large as it takes to pass so much on (setrlimit(2))")
    envelope = [f"FASTGREY_STORE={path}", "TCPREMOTEIP=192.0.2.1"]
    for filling in ([f"X{number}={'x' * 120_000}" for number in range(12)],
                    [f"X{number}=" for number in range(100_000)],
                    ["T" * 100_000, "TCPREMOTEI", "R" * 50_000, "F" * 1000]):
        done = subprocess.run([HOOK, "a@example.org", "b@example.net"], capture_output=True, timeout=60,
                              env=dict(item.partition("=")[::2] for item in [*filling, *envelope]))
        assert done.returncode == 111 and done.stderr.startswith(b"fastgrey: defer ") and done.stderr.count(b"\n") == 1


def test_no_variables_as_they_should_be(make_store, path):
    """Without `=`, empty, given twice: the first counts, as for getenv(3)."""
    make_store()
    plain = [f"FASTGREY_STORE={path}", "TCPREMOTEIP=192.0.2.1"]
    for environ in (["", "=", "=x", "TCPREMOTEIP", "FASTGREY_STORE", *plain],
                    [*plain, "TCPREMOTEIP=198.51.100.9", "FASTGREY_STORE=/nowhere", "RELAYCLIENTS=", "XRELAYCLIENT="]):
        done = raw_exec(str(HOOK), ["qmail-checkenv", "a@example.org", "b@example.net"], environ)
        assert done.returncode == 111, done
        assert b"client=192.0.2.1 " in done.stderr
