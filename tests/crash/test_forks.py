"""A store that is open while its process forks: the child is refused by name, whatever the parent was just doing; the
parent, and everybody else, goes on."""

import subprocess
import sys

import pytest

import fastgrey
import readers
from fastgrey import settings

# What every child must be told, and then do: its own store.
CHILD = """
import os, sys, fastgrey
from fastgrey import _core, amend, explanation, policy, statistics, windows

PATH = sys.argv[1]
REQUEST = dict(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
USES = [
    lambda store: store.check(**REQUEST), lambda store: store.head(), lambda store: store.known(),
    lambda store: store.alive(0), lambda store: store.counters(), lambda store: store.partitions(),
    lambda store: store.policy(), lambda store: store.configure([0] * 32), lambda store: store.drop_expired(0),
    lambda store: _core.explain(store, **REQUEST), lambda store: _core.windows(store),
    lambda store: _core.open_window(store, "b@example.net", None, 1, 2), lambda store: _core.pages_in_use(store),
    lambda store: _core.reader_table(store, False), lambda store: _core.count_after(store, True, 0, 1),
    lambda store: _core.follow_settings(store), lambda store: _core.supersede(store, 2, None),
    lambda store: policy.put(store, {}),
]


def in_child(store):
    for use in USES:
        try:
            use(store)
        except fastgrey.ForkedError as error:
            assert str(error).startswith(f"store {PATH} was opened by process {os.getppid()} and carried over a fork "
                                         f"into process {os.getpid()}; open it anew there"), error
        else:
            raise AssertionError("not refused")
    # Takes nothing away from the parent.
    store.close()
    assert not store.is_open
    with fastgrey.open(PATH) as own:
        assert own is not store
        mine = REQUEST | {"sender": f"a@c{os.getpid()}.example"}
        assert [own.check(**mine).reason for _ in range(3)] == ["new", "retry", "known-domain"]


def whole(store, forks):
    "Of the parent, once its children are gone."
    assert store.check(**REQUEST).reason == "known-domain"
    assert store.known()["domain"] >= forks + 1, store.known()
    print(store.counters()["verdicts"])
"""

FORKS = CHILD + """
store = fastgrey.open(PATH)
for _ in range(3):
    store.check(**REQUEST)
for _ in range(20):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            in_child(store)
            del store
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
whole(store, 20)
"""

# Threads check without pause, strangers and promotions, so that forks fall into reads, writes and flushes.
THREADS = CHILD + """
import threading
store = fastgrey.open(PATH)
for _ in range(3):
    store.check(**REQUEST)
stop, wrong = threading.Event(), []

def check(worker):
    number = 0
    while not stop.is_set():
        number += 1
        request = dict(client=f"10.{worker}.{number >> 8 & 255}.{number & 255}", sender=f"a@w{worker}x{number}.example",
                       recipient="b@example.net")
        found = [store.check(**request).reason for _ in range(3)]
        if found != ["new", "retry", "known-domain"]:
            wrong.append(found)

def fork():
    for _ in range(20):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                in_child(store)
                status = 0
            except BaseException as error:
                print(repr(error), file=sys.stderr)
            finally:
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        if status:
            wrong.append(status)

checking = [threading.Thread(target=check, args=(worker,)) for worker in range(3)]
forking = [threading.Thread(target=fork) for _ in range(2)]
for thread in checking + forking:
    thread.start()
for thread in forking:
    thread.join()
stop.set()
for thread in checking:
    thread.join()
assert wrong == [], wrong
whole(store, 40)
"""

MULTIPROCESSING = CHILD + """
import multiprocessing
if __name__ == "__main__":
    store = fastgrey.open(PATH)
    for _ in range(3):
        store.check(**REQUEST)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=in_child, args=(store,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    with context.Pool(2) as pool:
        assert pool.map(len, ["ab", "c"]) == [2, 1]
        try:
            pool.apply(in_child, (store,))
        except TypeError as error:
            assert str(error) == f"store {PATH} cannot be handed to another process; open it anew there", error
        else:
            raise AssertionError("not refused")
    whole(store, 4)
"""


@pytest.mark.parametrize("script", [FORKS, THREADS, MULTIPROCESSING], ids=["fork", "threads", "multiprocessing"])
def test_fork(in_memory, script, run_hook):
    path = in_memory / "store"
    fastgrey.create(path, settings.parse_assignments(("delay=0s", "pool_hops=0", "allow_client_after=0")))
    # Newer Pythons warn of every fork beside threads, which is what is tried here.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "error" not in done.stdout
    for words in (["defer", "new"], ["accept", "retry"]):
        assert run_hook(sender="a@later.example", env={"FASTGREY_STORE": str(path)}).words == words


# The parent is killed; its children, which carry its store over, live.
ORPHANED = """
import os, sys, fastgrey
store = fastgrey.open(sys.argv[1])
store.check(client="192.0.2.1", sender="a@example.org", recipient="b@example.net")
if os.fork() == 0:
    print(flush=True)
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def test_a_child_holds_nothing_of_its_parent_s(make_store, path, run_hook, run_fastgrey):
    """Neither a lock nor a slot: those are the parent's, and go with it."""
    make_store("delay=0s", "pool_hops=0")
    with subprocess.Popen([sys.executable, "-c", ORPHANED, str(path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"\n"
        parent.wait(60)
        assert run_hook(sender="a@later.example").words == ["defer", "new"]
        assert run_hook(sender="a@later.example").words == ["accept", "retry"]
        assert readers.stale(path / "passed.000001") == []
        assert run_fastgrey("compact").returncode == 0
        assert run_fastgrey("verify").returncode == 0
