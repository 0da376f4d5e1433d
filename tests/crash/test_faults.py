"""Whatever is wrong, the executable answers as on_error says, with one line that names cause and remedy."""

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest

import aging
import fastgrey
import heads
from conftest import HOOK, full_pipe, nothing_said_into, write_lock_held
from fastgrey import directory
from machine import as_nobody, fill_up, needs_root, open_the_way, small_disk


def assert_fault(result, on_error, *parts):
    """One line, the verdict of on_error, and all of parts in it."""
    assert (result.status, result.words) == ((0, ["accept", "error"]) if on_error == "accept" else
                                             (111, ["defer", "error"]))
    assert result.line.endswith("\n")
    assert result.line.count("\n") == 1
    assert "; " in result.line, "no remedy"
    for part in parts:
        assert part in result.line


@pytest.fixture(params=["accept", "defer"])
def on_error(request):
    return request.param


@pytest.fixture
def store(make_store, on_error):
    return make_store(f"on_error={on_error}")


@pytest.mark.parametrize("client", [None, "", "unknown", "1.2.3.4.5", "x" * 100_000])
def test_no_usable_client(store, on_error, run_hook, client):
    assert_fault(run_hook(client=client), on_error, "no IP address", "TCPREMOTEIP")


@pytest.mark.parametrize("ipv4", [None, "", "unknown"])
def test_second_variable_stands_in(store, run_hook, ipv4):
    assert run_hook(client=ipv4, env={"TCP6REMOTEIP": "2001:db8::1"}).words == ["defer", "new"]
    assert run_hook(client="2001:db8::1").words == ["defer", "early"]


def test_first_variable_goes_before_the_second(store, run_hook):
    run_hook(client="192.0.2.1", env={"TCP6REMOTEIP": "2001:db8::1"})
    assert run_hook(client="192.0.2.1").words == ["defer", "early"]
    assert run_hook(client="2001:db8::1").words == ["defer", "new"]


@pytest.mark.parametrize("argv", [[], ["a@example.org"], ["a", "b", "c"], ["a"] * 1000])
def test_wrong_number_of_arguments(store, on_error, run_hook, argv):
    assert_fault(run_hook(argv=argv), on_error, "two arguments", "qmail-checkenv SENDER RECIPIENT")


@pytest.mark.parametrize(("argv", "what"), [
    (["a" * 100_000, "b@example.net"], "the sender is longer than 1000 bytes"),
    (["a@example.org", "b" * 1001], "the recipient is longer than 1000 bytes"),
    (["a\nb@example.org", "b@example.net"], "CR or LF"),
    (["a@example.org", "b\r@example.net"], "CR or LF"),
])
def test_unusable_address(store, on_error, run_hook, argv, what):
    result = run_hook(argv=argv)
    assert_fault(result, on_error, what)
    assert len(result.line) <= 4096


@pytest.mark.parametrize("garbage", [bytes(range(1, 10)) + bytes(range(14, 256)), b"\xff" * 999, b"\x1b[2J@\x07", b" "])
def test_bytes_that_are_no_text(store, run_hook, garbage):
    result = run_hook(argv=[garbage, garbage])
    assert result.words == ["defer", "new"]
    assert result.line.isprintable() or result.line[:-1].isprintable()
    assert run_hook(argv=[garbage, garbage]).words == ["defer", "early"]


def test_relay_client_passes_whatever_is_wrong(store, run_hook):
    for extra in ({"RELAYCLIENT": ""}, {"RELAYCLIENT": "x"}, {"RELAYCLIENT": "", "FASTGREY_STORE": "/nonexistent"}):
        result = run_hook(client="nonsense", env=extra)
        assert (result.status, result.words) == (0, ["accept", "relay"])


def test_no_store(path, run_hook):
    assert_fault(run_hook(), "accept", "there is no store", str(path), "fastgrey init")


def test_path_too_long(run_hook):
    assert_fault(run_hook(env={"FASTGREY_STORE": "/" + "x" * 100_000}), "accept", "too long", "FASTGREY_STORE")


def test_store_is_a_file(path, run_hook):
    path.write_text("x")
    assert_fault(run_hook(), "accept", "there is no store", str(path))


@pytest.mark.parametrize("target", ["nowhere", "passed.000009", "../../etc", "passed.000001/../x", "/etc", "."])
def test_current_points_astray(store, on_error, run_hook, target):
    (store / "current").unlink()
    (store / "current").symlink_to(target)
    assert_fault(run_hook(), on_error, str(store))


def test_other_format_version(store, on_error, run_hook):
    heads.overwrite(store / "passed.000001", 8, struct.pack("=I", 1))
    assert_fault(run_hook(), on_error, "another format version", str(store))
    with pytest.raises(fastgrey.StoreError, match="another format version"):
        fastgrey.open(store)


def test_other_lmdb_format(store, on_error, run_hook):
    data = store / "passed.000001" / "data.mdb"
    content = bytearray(data.read_bytes())
    for page in (0, 4096):
        content[page + 20:page + 24] = struct.pack("=I", 999)
    data.write_bytes(content)
    assert_fault(run_hook(), on_error, "another format version")


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
@pytest.mark.parametrize("size", [0, 1, 100, 4096, 8192, 12_288])
def test_file_cut_short(store, on_error, run_hook, name, size):
    os.truncate(store / "passed.000001" / name, size)
    result = run_hook()
    if name == "lock.mdb":
        # LMDB makes the lock file anew where nobody else uses it.
        assert result.words == ["defer", "new"]
    else:
        assert_fault(result, on_error, str(store))


@pytest.mark.parametrize("size", [1, 100, 4096, 8192, 12_288])
def test_pending_cut_short(store, on_error, run_hook, pending_path, size):
    run_hook()
    os.truncate(pending_path / "data.mdb", size)
    assert_fault(run_hook(), on_error, "(pending)")


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
def test_garbage_in_place_of_a_file(store, on_error, run_hook, name):
    run_hook()
    file = store / "passed.000001" / name
    file.write_bytes(os.urandom(file.stat().st_size))
    result = run_hook()
    assert result.status in (0, 111)
    if name == "data.mdb":
        assert_fault(result, on_error, str(store))


@pytest.mark.parametrize("name", ["current", "passed.000001", "passed.000001/data.mdb", "passed.000001/lock.mdb"])
@pytest.mark.parametrize("kind", ["missing", "directory", "symlink to itself", "empty"])
def test_something_else_in_place_of_a_file(store, on_error, run_hook, name, kind):
    file = store / name
    directory.remove(file)
    if kind == "directory":
        file.mkdir()
    elif kind == "empty":
        file.touch()
    elif kind != "missing":
        file.symlink_to(file)
    result = run_hook()
    if name.endswith("lock.mdb") and kind in ("missing", "empty"):
        assert result.words == ["defer", "new"]
    else:
        assert_fault(result, "accept" if name == "stats" else on_error, str(store))


@pytest.mark.parametrize("how", ["missing", "empty", "directory", "other"])
def test_counters_are_not_needed(make_store, run_hook, how):
    store = make_store()
    (store / "stats").unlink()
    if how == "directory":
        (store / "stats").mkdir()
    elif how != "missing":
        (store / "stats").write_bytes(b"" if how == "empty" else b"x" * 4096)
    assert run_hook().words == ["defer", "new"]


def test_nobody_to_ask(make_store, on_error, run_hook):
    """Where records are shared; what else may answer or not is in tests/native/test_shared_hook.py."""
    store = make_store(f"on_error={on_error}", "shared=true")
    assert_fault(run_hook(), on_error, "no answer from fastgrey serve", f"{store} (serve.sock): No such file",
                 "start it with: fastgrey serve")
    (store / "serve.sock").symlink_to("elsewhere")
    assert_fault(run_hook(), on_error, "a link stands where", "(serve.sock)", "remove it")


@needs_root
def test_user_outside_the_group(store, run_hook, tmp_path):
    open_the_way(tmp_path)
    # Even on_error cannot be read, so the default holds.
    assert_fault(run_hook(**as_nobody()), "accept", "Permission denied", "group")


@needs_root
def test_store_that_may_only_be_read(store, on_error, run_hook, tmp_path):
    open_the_way(tmp_path)
    for entry in [store, *store.rglob("*")]:
        if not entry.is_symlink():
            entry.chmod(0o755 if entry.is_dir() else 0o644)
    assert_fault(run_hook(**as_nobody()), "accept", "Permission denied")


@needs_root
def test_unprivileged_hook_shares_the_store_with_root_s_compaction(make_store, run_hook, run_fastgrey, tmp_path, path,
                                                                   pending_path):
    open_the_way(tmp_path)
    group = 12_345
    make_store("delay=1s", group=group)
    member = as_nobody(group)
    assert run_hook(**member).words == ["defer", "new"]
    time.sleep(1.1)
    assert run_hook(**member).words == ["accept", "retry"]
    for _ in range(3):
        assert run_fastgrey("compact").returncode == 0
        assert run_hook(**member).words == ["accept", "known-domain"]
        assert run_hook(sender=f"x@{time.time_ns()}.example", **member).words == ["defer", "new"]
    time.sleep(1.1)
    assert run_hook(sender="late@other.example", **member).words == ["defer", "new"]
    time.sleep(1.1)
    # A promotion into a generation that root made.
    assert run_hook(sender="late@other.example", **member).words == ["accept", "retry"]
    for entry in [path, *path.rglob("*")]:
        assert entry.lstat().st_gid == group, entry
        if not entry.is_symlink():
            assert entry.stat().st_mode & 0o007 == 0, entry


@needs_root
def test_pending_made_by_root_serves_the_group(make_store, run_hook, tmp_path):
    open_the_way(tmp_path)
    make_store(group=12_345)
    assert run_hook(umask=0o077).words == ["defer", "new"]
    assert run_hook(**as_nobody(12_345)).words == ["defer", "early"]


@needs_root
def test_full_disk(tmp_path, run_hook, on_error):
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        store = disk / "store"
        fastgrey.create(store, {"on_error": int(on_error == "defer"), "delay": 0})
        environment = {"FASTGREY_STORE": str(store)}
        # A sender known from before the disk is full, and due for a refresh.
        assert run_hook(sender="friend@friend.example", env=environment).words == ["defer", "new"]
        assert run_hook(sender="friend@friend.example", env=environment).words == ["accept", "retry"]
        fill_up(disk / "filler")
        for number in range(20):
            result = run_hook(sender=f"new@host{number}.example", env=environment)
            if result.words[1] == "error":
                break
        assert_fault(result, on_error, "cannot write to the store", "No space left", str(store))
        known = run_hook(sender="friend@friend.example", env=environment)
        assert (known.status, known.words) == (0, ["accept", "known-domain"])
        (disk / "filler").unlink()
        healthy = run_hook(sender="after@after.example", env=environment)
        assert healthy.words == ["defer", "new"]
        assert run_hook(sender="after@after.example", env=environment).words == ["accept", "retry"]


@needs_root
def test_known_sender_passes_where_its_refresh_cannot_be_written(tmp_path, run_hook):
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        store = disk / "store"
        fastgrey.create(store, {"on_error": 1, "delay": 0, "refresh": 0})
        environment = {"FASTGREY_STORE": str(store)}
        assert [run_hook(env=environment).words[1] for _ in range(2)] == ["new", "retry"]
        fill_up(disk / "filler")
        refreshes = [run_hook(env=environment) for _ in range(6)]
        assert {(result.status, *result.words) for result in refreshes} == {(0, "accept", "known-domain")}
        assert "last-seen time not written: No space left" in refreshes[-1].line


def test_file_size_limit(store, on_error, run_hook):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    assert_fault(run_hook(preexec_fn=limit), on_error, str(store))


@pytest.mark.parametrize("files", [3, 4, 5, 6, 7])
def test_too_few_descriptors(store, on_error, run_hook, files):
    run_hook(sender="first@first.example")

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    result = run_hook(preexec_fn=limit)
    # With three not even the page that holds on_error can be opened.
    assert_fault(result, "accept" if files == 3 else on_error, "Too many open files")


@pytest.mark.parametrize("megabytes", [2, 3, 4, 6])
def test_little_memory(store, on_error, run_hook, megabytes):
    """qmail-smtpd runs under softlimit; what does not fit is an error and not a crash."""
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    run_hook(sender="first@first.example")
    result = run_hook(preexec_fn=limit)
    if result.words[1] != "new":
        assert_fault(result, on_error, "Cannot allocate memory", "memory limits")


OUTGROWN = """
import fastgrey, resource, sys
from fastgrey._core import Store
request = dict(client="192.0.2.1", sender="a@example.org")
store = fastgrey.open(sys.argv[1])
store.check(**request, recipient="first@example.net")
print("open", flush=True)
sys.stdin.readline()
used = int(open("/proc/self/statm").read().split()[0]) * 4096
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used, hard))
tight = [store.check(**request, recipient="second@example.net") for _ in range(5)]
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
roomy = store.check(**request, recipient="second@example.net")
print([verdict.reason for verdict in tight], roomy.reason)
"""


def test_map_that_cannot_grow_with_the_store(make_store, path):
    """A store that stays open meets a larger map than its memory limit allows: errors, no crash, then it goes on."""
    make_store("allow_client_after=0", "allow_domain_after=0", "pool_hops=0", "delay=0s")
    process = subprocess.Popen([sys.executable, "-c", OUTGROWN, str(path)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        for now in (1000, 1001):
            for number in range(60_000):
                store.check(client="192.0.2.1", sender="a@example.org", recipient=f"b{number}@x.example", now=now)
    said, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert said.split() == [*("['error',", *["'error',"] * 3, "'error']"), "new"]


def test_enough_memory_is_little(store, run_hook):
    """Eight megabytes of address space are enough for a stranger in a small store."""
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (8 << 20, 8 << 20))

    assert run_hook(preexec_fn=limit).words == ["defer", "new"]


@pytest.mark.parametrize("closed", [(2,), (0, 2), (0, 1, 2), (1, 2)])
def test_closed_descriptors_never_reach_the_store(store, path, closed):
    """Without a guard the data file would be opened as descriptor 2, and the log line written into it."""
    script = "exec " + " ".join(f"{number}>&-" for number in closed) + '; exec "$@"'
    command = ["sh", "-c", script, "sh", HOOK]
    environment = {"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}
    for number in range(30):
        done = subprocess.run([*command, f"a@h{number}.example", "b@example.net"], env=environment, timeout=60)
        assert done.returncode == 111
    nothing_said_into(path)
    with fastgrey.open(path) as opened:
        assert opened.counters()["verdicts"] == {"defer new": 30}


def test_nobody_reads_the_log(store, path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([HOOK, "a@b.example", "c@d.example"],
                          env={"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}, stderr=writer, timeout=60)
    os.close(writer)
    assert done.returncode == 111


def test_log_that_is_full_ends_the_wait(store, path):
    """A log reader that stopped: the verdict stands, after the bound of seconds."""
    reader, writer = full_pipe()
    started = time.monotonic()
    done = subprocess.run([HOOK, "a@b.example", "c@d.example"],
                          env={"FASTGREY_STORE": str(path), "TCPREMOTEIP": "192.0.2.1"}, stderr=writer, timeout=60)
    os.close(reader)
    os.close(writer)
    assert done.returncode == 111
    assert time.monotonic() - started < 20


def test_stopped_holder_of_the_lock(store, on_error, run_hook, pending_path):
    """A process that stopped inside a write transaction stops strangers for seconds, not for ever."""
    run_hook(sender="first@first.example")
    with write_lock_held(pending_path) as holder:
        holder.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        # Found without the lock.
        assert run_hook(sender="first@first.example").words == ["defer", "early"]
        assert time.monotonic() - started < 5
        assert_fault(run_hook(sender="second@second.example"), on_error, "in time", "(pending)")
        assert time.monotonic() - started < 20
    # The kernel hands the lock of the dead to the next.
    assert run_hook(sender="second@second.example").words == ["defer", "new"]


def test_blocked_and_ignored_signals(store, path, pending_path, run_hook):
    """A parent that blocked SIGALRM must not switch off the bound."""
    run_hook()

    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    with write_lock_held(pending_path):
        assert run_hook(sender="second@second.example", preexec_fn=block).words[1] == "error"


def test_map_of_passed_grows(make_store, path, run_hook):
    """Many promotions fill the first megabyte; checks that opened the old size go on."""
    make_store("delay=0s", "allow_client_after=0", "allow_domain_after=0", "pool_hops=0")
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        for step in (1000, 1001):
            for number in range(40_000):
                verdict = store.check(client="192.0.2.1", sender="a@example.org", recipient=f"b{number}@x.example",
                                      now=step)
                assert verdict.cause is None
        assert store.known()["triplet"] == 40_000
    assert (path / "passed.000001" / "data.mdb").stat().st_size > 1 << 20
    assert run_hook(recipient="b77@x.example").words == ["defer", "new"]
    assert len(aging.records(path / "passed.000001")["triplet"]) == 40_000


def test_flood_stays_within_its_bound(make_store, path, pending_path, run_hook, run_fastgrey):
    """A full pending gives up its oldest partition and goes on; known senders and friends notice nothing."""
    make_store("pending_size=4M", "pool_hops=0")
    day = 86_400
    with fastgrey.open(path) as store:
        start = 1_700_000_000
        for number in range(25_000):
            assert store.check(client="192.0.2.1", sender=f"a@{number}.example", recipient="b@example.net",
                               now=start)[:2] == ("defer", "new")
        for number in range(60_000):
            assert store.check(client="192.0.2.1", sender=f"c@{number}.example", recipient="b@example.net",
                               now=start + 2 * day)[:2] == ("defer", "new")
        events = store.counters()["events"]
        assert events["partitions given up"] >= 1
        assert events["not recorded"] == 0
        last = store.check(client="192.0.2.1", sender="c@59999.example", recipient="b@example.net", now=start + 2 * day)
        assert last[:2] == ("defer", "early")
    assert (pending_path / "data.mdb").stat().st_size <= 4 << 20
    assert run_hook().words == ["defer", "new"]
    assert "partitions given up" in run_fastgrey("doctor").stdout


def test_reader_slots_of_the_killed_are_reclaimed(store, run_hook, path):
    """The table holds 8192 readers; slots that killed processes left must not fill it."""
    holder = subprocess.Popen([sys.executable, "-c", "import fastgrey, sys, time\n"
                               f"s = fastgrey.open({str(path)!r})\ns.known()\nprint(flush=True)\ntime.sleep(60)"],
                              stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        # A table as a storm of kills leaves it: every slot taken by a process that is no more.
        lock = path / "passed.000001" / "lock.mdb"
        dead = subprocess.Popen(["true"])
        dead.wait()
        with open(lock, "r+b") as file:
            slots = (lock.stat().st_size - 128) // 64
            # Two cache lines of header, with the number of slots in use at 56; then a line a slot: snapshot, process,
            # thread.
            file.seek(56)
            assert struct.unpack("=I", file.read(4)) == (1,)
            file.seek(56)
            file.write(struct.pack("=I", slots))
            for slot in range(1, slots):
                file.seek(128 + 64 * slot)
                file.write(struct.pack("=QiiQ", 1, dead.pid, 0, 1))
        assert run_hook().words == ["defer", "new"]
    finally:
        holder.kill()
        holder.communicate()


def test_store_removed_and_made_again(make_store, run_hook, path):
    make_store()
    assert run_hook().words == ["defer", "new"]
    shutil.rmtree(path)
    assert run_hook().words == ["accept", "error"]
    make_store()
    assert run_hook().words == ["defer", "new"]


def test_pending_of_another_boot_is_not_read(make_store, run_hook, path, pending_path, run_fastgrey):
    make_store()
    assert run_hook().words == ["defer", "new"]
    other = path / "pending.00000000-0000-0000-0000-000000000000"
    pending_path.rename(other)
    assert run_hook().words == ["defer", "new"]
    assert run_hook().words == ["defer", "early"]
    assert run_fastgrey("compact").returncode == 0
    assert not other.exists()
    assert run_hook().words == ["defer", "early"]
    assert directory.boot_id() in pending_path.name
