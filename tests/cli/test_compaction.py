"""fastgrey compact as those see it who run it at night: when not, how fast, how it ended, and what says so."""

import json
import os
import resource
import subprocess
import sys
import time

import lmdb
import pytest

import aging
import fastgrey
from conftest import write_lock_held
from fastgrey import compaction, directory, last_run
from fastgrey.errors import VerificationError

ONLY_TRIPLETS = ("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")


def earn(path, numbers, now=None):
    """Known triplets, a client and a domain; nothing is flushed."""
    now = int(time.time()) if now is None else now
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        for _ in range(2):
            for number in numbers:
                store.check(client="192.0.2.1", sender="a@example.org", recipient=f"{number}@x.example", now=now)


def last(run_fastgrey):
    return json.loads(run_fastgrey("stats", "--json").stdout)["compaction"]


def findings(run_fastgrey, word):
    found = json.loads(run_fastgrey("doctor", "--json").stdout)["findings"]
    return [(finding["level"], finding["what"]) for finding in found if word in finding["what"]]


def test_success_is_told(make_store, run_fastgrey):
    make_store()
    assert last(run_fastgrey) is None
    assert "compaction" not in run_fastgrey("stats", "--prometheus").stdout.replace("last compaction", "")
    before = int(time.time())
    assert run_fastgrey("compact").returncode == 0
    told = last(run_fastgrey)
    assert (told["result"], told["generation"], told["why"]) == ("done", 2, None)
    assert told["began"] <= told["ended"] == told["succeeded"]
    assert fastgrey.times.seconds(told["succeeded"]) >= before
    assert "  result        done\n" in run_fastgrey("stats").stdout
    lines = run_fastgrey("stats", "--prometheus").stdout.splitlines()
    (result,) = [line for line in lines if line.startswith("fastgrey_compaction_result")]
    assert 'result="done"} 1' in result
    (when,) = [line for line in lines if line.startswith("fastgrey_compaction_success_timestamp_seconds")]
    assert int(when.split()[-1]) >= before
    assert findings(run_fastgrey, "last compaction")[0][0] == "good"


def test_failure_is_told_and_takes_everything_back(make_store, run_fastgrey, path):
    make_store(*ONLY_TRIPLETS)
    assert run_fastgrey("compact").returncode == 0
    success = last(run_fastgrey)["succeeded"]
    earn(path, range(2000))
    done = run_fastgrey("compact", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    assert done.returncode == 1
    assert "cannot write to the store" in done.stderr
    told = last(run_fastgrey)
    assert (told["result"], told["generation"], told["succeeded"]) == ("failed", 2, success)
    assert told["why"] in done.stderr
    ((level, what),) = findings(run_fastgrey, "the last compaction failed")
    assert (level, told["why"] in what) == ("doubt", True)
    assert findings(run_fastgrey, "left over") == findings(run_fastgrey, "taking notes") == []
    assert directory.generations(path) == [1, 2]
    assert run_fastgrey("compact").returncode == 0
    assert findings(run_fastgrey, "the last compaction") == []


def test_killed_is_told(make_store, run_fastgrey, path):
    make_store()
    script = ("import os, signal, sys; from fastgrey import compaction\n"
              "compaction.compact(sys.argv[1], progress=lambda *step: os.kill(os.getpid(), signal.SIGKILL))")
    assert subprocess.run([sys.executable, "-c", script, path]).returncode < 0
    told = last(run_fastgrey)
    assert (told["result"], told["ended"], told["generation"]) == ("killed", None, None)
    assert findings(run_fastgrey, "the last compaction killed")[0][0] == "doubt"


def test_running_is_told(make_store, run_fastgrey, path):
    """While the copy waits for the write lock that somebody else holds."""
    make_store()
    with write_lock_held(path / "passed.000001") as holder:
        process = subprocess.Popen([sys.executable, "-c", "import sys; from fastgrey import compaction\n"
                                    "compaction.compact(sys.argv[1])", path])
        deadline = time.monotonic() + 60
        while last_run.read(path) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert last_run.read(path).result == "running"
        assert last_run.holder(path) == process.pid
        assert run_fastgrey("compact").returncode == 3
        # Who is turned away says nothing in the place of the one that runs.
        assert last_run.read(path).result == "running"
        holder.communicate()
        assert process.wait(60) == 0
    assert last_run.read(path).result == "done"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"result": 1, "x": 2}',
                                     b'{"result": "done", "began": 1, "succeeded": "x"}',
                                     b'{"result": "failed", "began": null}', b"\xff" * 100_000])
def test_status_that_cannot_be_read(make_store, run_fastgrey, path, content):
    make_store()
    (path / "compaction.status").write_bytes(content)
    assert last(run_fastgrey) is None
    assert run_fastgrey("doctor").returncode < 2
    assert run_fastgrey("compact").returncode == 0
    assert last(run_fastgrey)["result"] == "done"


def test_only_if_needed(make_store, run_fastgrey, path):
    make_store(*ONLY_TRIPLETS, "lifetime=1h")
    now = int(time.time())
    earn(path, range(2000), now)
    # 1 of 10 expired, and so few pages free that a small file does not count.
    earn(path, range(2000, 2222), now - 4000)
    assert run_fastgrey("compact", "--if-needed", "--share", "9").returncode == 0
    assert directory.current_number(path) == 2
    earn(path, range(2000, 2222), now - 4000)
    done = run_fastgrey("compact", "--if-needed")
    assert done.returncode == 0
    assert "no compaction is needed" in done.stdout
    assert directory.current_number(path) == 2
    told = last(run_fastgrey)
    assert told["result"] == "declined"
    assert told["why"] in done.stdout
    assert told["succeeded"] == told["ended"]
    assert findings(run_fastgrey, "none was needed")[0][0] == "good"
    assert json.loads(run_fastgrey("compact", "--if-needed", "--json").stdout)["event"] == "declined"
    assert json.loads(run_fastgrey("compact", "--if-needed", "-n", "--json").stdout)["needed"] is False
    assert "no compaction is needed" in run_fastgrey("compact", "--if-needed", "-n").stdout
    # More of them: enough.
    earn(path, range(2222, 3000), now - 4000)
    assert json.loads(run_fastgrey("compact", "--if-needed", "-n", "--json").stdout)["needed"] is True
    assert run_fastgrey("compact", "--if-needed").returncode == 0
    assert directory.current_number(path) == 3


def test_needed_for_free_pages(make_store, run_fastgrey, path):
    make_store(*ONLY_TRIPLETS)
    # Twice as many pages as count at all.
    earn(path, range(40_000))
    with lmdb.open(str(path / "passed.000001"), max_dbs=8, map_size=1 << 26) as table:
        with table.begin(write=True) as txn:
            txn.drop(table.open_db(b"triplet", txn), delete=False)
    assert json.loads(run_fastgrey("compact", "-n", "--json").stdout)["need"]["free"] > 0.9
    assert run_fastgrey("compact", "--if-needed").returncode == 0
    assert directory.current_number(path) == 2


@pytest.mark.parametrize("leave", [lambda path: (path / "passed.000002").mkdir(),
                                   lambda path: (path / "passed.000000.gone").mkdir(),
                                   lambda path: (path / "pending.11111111-2222-3333-4444-555555555555").mkdir()])
def test_needed_for_what_is_left_over(make_store, run_fastgrey, path, leave):
    make_store()
    leave(path)
    left = json.loads(run_fastgrey("compact", "-n", "--json").stdout)
    assert len(left["removed"]) == len(left["need"]["leftovers"]) == 1
    assert run_fastgrey("compact", "--if-needed").returncode == 0
    assert sorted(entry.name for entry in path.iterdir()) == [
        "compaction.lock", "compaction.status", "current", "passed.000001", "passed.000002", "stats"]


def test_rate(make_store, run_fastgrey, path):
    """The store is gone through twice, at no more than so many bytes in a second."""
    make_store(*ONLY_TRIPLETS)
    earn(path, range(20_000))
    size = (path / "passed.000001" / "data.mdb").stat().st_size
    assert run_fastgrey("compact", "--max-rate", "1M").returncode == 0
    told = last_run.read(path)
    assert told.seconds >= 2 * size / (1 << 20)
    for wrong in ("1", "fast", "-1", "1M/s"):
        done = run_fastgrey("compact", "--max-rate", wrong)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "--max-rate" in done.stderr


LEAF = 2


def spoil(path, offset, content):
    """Overwrite something in a page of records in the middle of the new generation."""
    with (path / "passed.000002" / "data.mdb").open("r+b") as file:
        data = file.read()
        # Behind the two pages of meta; the flags of a page are at 10.
        leaves = [page for page in range(2, len(data) // 4096) if data[page * 4096 + 10] == LEAF]
        file.seek(leaves[len(leaves) // 2] * 4096 + offset)
        file.write(content)


@pytest.mark.parametrize(("step", "offset", "content", "what"), [
    # The end of a leaf page is the value of one of its records, its beginning the number that it says it has.
    ("compare", 4090, b"\x01\x02\x03", "not what it was copied from"),
    ("structure", 0, b"\xff\xff", "not sound"),
])
def test_what_is_not_what_it_should_be_never_comes_into_force(make_store, path, step, offset, content, what):
    make_store(*ONLY_TRIPLETS)
    earn(path, range(1000))
    before = aging.records(path / "passed.000001")
    spoiled = []

    def progress(name, done, total):
        if name == step and not spoiled:
            spoiled.append(step)
            spoil(path, offset, content)

    with pytest.raises(VerificationError, match=what) as error:
        compaction.compact(str(path), progress=progress)
    assert error.value.exit_status == 4
    assert directory.generations(path) == [1]
    assert directory.current_number(path) == 1
    after = aging.records(path / "passed.000001")
    assert [after[kind] for kind in ("client", "domain", "triplet", "touched")] == [
        before[kind] for kind in ("client", "domain", "triplet", "touched")]
    assert after["touched"] == {}
    assert last_run.read(path).result == "failed"
    # Without the walk only the records count.
    spoiled.clear()
    if step == "structure":
        assert compaction.compact(str(path), progress=progress, verify="copy").generation == 2


LOCK_HOLDER = """
import os, sys
from fastgrey import maintenance
from pathlib import Path
with maintenance.alone(Path(sys.argv[1])):
    child = os.fork()
    if not child:
        os.close(1)
        sys.stdin.read()
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
"""


def test_lock_dies_with_its_holder_whatever_its_children_do(make_store, run_fastgrey, path):
    make_store()
    holder = subprocess.Popen([sys.executable, "-c", LOCK_HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = int(holder.stdout.readline())
    assert run_fastgrey("compact").returncode == 3
    holder.kill()
    holder.wait()
    os.kill(child, 0)
    assert run_fastgrey("compact").returncode == 0
    os.kill(child, 0)
    holder.communicate()


def test_who_reads_a_generation_keeps_it(make_store, run_fastgrey, path):
    make_store(*ONLY_TRIPLETS)
    earn(path, range(500))
    with lmdb.open(str(path / "passed.000001"), max_dbs=8, readonly=True) as table:
        triplets = table.open_db(b"triplet")
        with table.begin(db=triplets) as txn:
            for _ in range(2):
                assert run_fastgrey("compact").returncode == 0
            assert directory.generations(path) == [2, 3]
            assert not list(path.glob("*.gone"))
            assert sum(1 for _ in txn.cursor()) == 500


def test_memory_does_not_grow_with_the_store(make_store, path):
    """What belongs to no file; pages of files go whenever somebody else needs the room."""
    make_store(*ONLY_TRIPLETS)
    script = ("import sys; from fastgrey import compaction\ncompaction.compact(sys.argv[1], verify='copy')\n"
              "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('RssAnon')][0])")
    own = []
    for number in (1000, 200_000):
        earn(path, range(number))
        done = subprocess.run([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True, check=True)
        own.append(int(done.stdout))
    assert own[1] < own[0] + 8192
