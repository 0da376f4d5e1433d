"""The command line: what it prints, what it returns, and one line for every mistake."""

import json
import os
import time

import pytest

import fastgrey
from terminal import on_terminal

COMMANDS = ["init", "check", "replay", "compact", "stats", "doctor", "list", "show", "forget", "pass"]
HEADER = "time\tclient_ip\tclient_name\tsender\trecipient\tlabel\n"


def said(done, status):
    """The one line that went with a failure."""
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("fastgrey: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_help_names_every_command(run_fastgrey):
    text = run_fastgrey("--help").stdout
    for command in COMMANDS:
        assert command in text
        assert run_fastgrey(command, "--help").returncode == 0


def test_version(run_fastgrey):
    assert run_fastgrey("--version").stdout == "fastgrey 0.1.0\n"


@pytest.mark.parametrize(("arguments", "what"), [
    (["nonsense"], "nonsense"), (["stats", "--nonsense"], "--nonsense"), (["check", "192.0.2.1"], "SENDER"),
    (["replay"], "FILE"), (["init", "--set", "x=1"], "no such setting"), (["init", "--set", "delay=x"], "a duration"),
    (["init", "--group", "no-such-group"], "groupadd"), (["check", "1.2.3.4", "a", "b", "--now", "-5"], "--now"),
    (["replay", "x", "--store", "y", "--set", "delay=1s"], "throw-away"),
])
def test_wrong_usage(run_fastgrey, arguments, what):
    assert what in said(run_fastgrey(*arguments), 2)


@pytest.mark.parametrize("command", [
    ["check", "192.0.2.1", "a", "b"], ["compact"], ["compact", "--dry-run"], ["stats"],
])
def test_no_store(run_fastgrey, command, path):
    line = said(run_fastgrey(*command), 1)
    assert str(path) in line
    assert "fastgrey init" in line


def test_init_makes_then_changes(run_fastgrey, path):
    assert f"{path}: would be created" in run_fastgrey("init", "--set", "delay=2s", "--dry-run").stdout
    assert not path.exists()
    made = json.loads(run_fastgrey("init", "--set", "delay=2s", "--json").stdout)
    assert (made["created"], made["settings"]["delay"]) == (True, "2s")
    assert "would be changed\n  delay  2s -> 5m" in run_fastgrey("init", "--set", "delay=5m", "-n").stdout
    assert "changed\n  delay  2s -> 5m" in run_fastgrey("init", "--set", "delay=5m").stdout
    assert "nothing to change" in run_fastgrey("init", "--set", "delay=5m").stdout
    assert json.loads(run_fastgrey("stats", "--json").stdout)["settings"]["delay"] == "5m"


def test_init_keeps_what_is_remembered(run_fastgrey, run_hook, make_store):
    make_store()
    run_hook()
    run_fastgrey("init", "--set", "delay=1h", "--set", "on_error=defer")
    assert run_hook().words == ["defer", "early"]
    assert run_hook(client="x").words == ["defer", "error"]


def test_init_warns_of_what_is_hardly_meant(run_fastgrey):
    done = run_fastgrey("init", "--set", "retry_window=1m")
    assert done.returncode == 0
    assert "no retry can ever pass" in done.stderr


def test_init_refuses_a_directory_of_other_things(run_fastgrey, path):
    path.mkdir()
    (path / "precious").write_text("x")
    assert "precious" in said(run_fastgrey("init"), 1)
    assert (path / "precious").read_text() == "x"


def test_init_finishes_what_was_begun(run_fastgrey, run_hook, path):
    """A first init that was killed left a generation that nothing points to."""
    (path / "passed.000001").mkdir(parents=True)
    (path / "passed.000001" / "data.mdb").write_bytes(b"half")
    assert run_fastgrey("init").returncode == 0
    assert run_hook().words == ["defer", "new"]


def test_init_where_nothing_may_be_made(run_fastgrey, tmp_path):
    (tmp_path / "file").write_text("")
    line = said(run_fastgrey("init", "--store", str(tmp_path / "file" / "store")), 1)
    assert f"{tmp_path / 'file'}: File exists; name a directory" in line


def test_store_option_goes_before_the_environment(run_fastgrey, tmp_path, path):
    other = tmp_path / "other"
    assert run_fastgrey("init", "--store", str(other)).returncode == 0
    assert other.exists()
    assert not path.exists()


def test_check(run_fastgrey, make_store):
    make_store()
    done = run_fastgrey("check", "192.0.2.1", "a@example.org", "b@example.net", "--now", "1000")
    assert done.stdout.startswith("defer new wait=300 key=")
    answer = json.loads(run_fastgrey("check", "192.0.2.1", "a@example.org", "b@example.net", "--now", "1300",
                                     "--json").stdout)
    assert (answer["action"], answer["reason"], answer["wait"], answer["exit"]) == ("accept", "retry", 0, 0)
    relayed = run_fastgrey("check", "nonsense", "", "b", "--relay")
    assert relayed.stdout == "accept relay\n"
    wrong = run_fastgrey("check", "nonsense", "", "b")
    assert (wrong.returncode, wrong.stdout.split(":")[0]) == (0, "accept error")


def test_check_dry_run(run_fastgrey, make_store):
    make_store()
    for _ in range(2):
        assert run_fastgrey("check", "192.0.2.1", "a@b.c", "d@e.f", "--dry-run").stdout.startswith("defer new")


def test_check_agrees_with_the_hook(run_fastgrey, run_hook, make_store):
    make_store()
    line = run_hook().line
    assert run_fastgrey("check", "192.0.2.1", "a@example.org", "b@example.net").stdout.split()[-1] == line.split()[-1]


def test_stats(run_fastgrey, run_hook, make_store, path):
    make_store("delay=0s")
    for _ in range(3):
        run_hook()
    run_hook(client="x")
    facts = json.loads(run_fastgrey("stats", "--json").stdout)
    assert facts["verdicts"] == {"defer new": 1, "accept retry": 1, "accept known-domain": 1, "accept error": 1}
    assert facts["known"] == {"client": 1, "domain": 1, "triplet": 1, "pair": 0}
    assert facts["events"]["promoted"] == 1
    assert [partition["records"] for partition in facts["pending"]] == [2]
    assert facts["generation"] == "passed.000001"
    assert facts["bytes"]["all"] > facts["bytes"]["in force"] > 0
    text = run_fastgrey("stats").stdout
    for part in (str(path), "accept known-domain", "pending partitions", "passed.000001"):
        assert part in text


def test_damaged_store_ends_a_command_with_one_line(run_fastgrey, make_store):
    store = make_store("delay=0s", "pool_hops=0", "allow_domain_after=0", "allow_client_after=0")
    with fastgrey._core.Store(str(store), throw_away=True) as opened:
        for now in (1, 2):
            for number in range(2000):
                opened.check(client="192.0.2.1", sender="a@b.c", recipient=f"{number}@x.example", now=now)
    os.truncate(store / "passed.000001" / "data.mdb", 40_000)
    line = said(run_fastgrey("compact", "--dry-run"), 1)
    assert "cut short" in line


def test_compact(run_fastgrey, make_store, path):
    make_store("delay=0s", "lifetime=1h", "pool_hops=0")
    now = int(time.time())
    with fastgrey.open(path) as store:
        for domain, when in (("old", now - 4000), ("young", now)):
            for _ in range(2):
                store.check(client="192.0.2.1", sender=f"a@{domain}.example", recipient="b@example.net", now=when)
        # Strangers of a week ago, in a partition of their own.
        store.check(client="192.0.2.1", sender="a@week.example", recipient="b@example.net", now=now - 700_000)
        assert len(store.partitions()) >= 2
        fastgrey._core.open_window(store, "b@example.net", None, now - 100, now - 50)
    files = [file for file in path.rglob("*") if file.name != "lock.mdb"]
    before = {file: file.stat().st_mtime_ns for file in files}
    foretold = json.loads(run_fastgrey("compact", "--dry-run", "--json").stdout)
    size = foretold.pop("size")
    assert size >= 28 << 10
    assert foretold == {"alive": 3, "expired": 2, "windows_closed": 1, "partitions": 1, "strangers": 1, "removed": {},
                        "need": {"expired": 0.4, "free": 0.0, "leftovers": []}, "doubt": None}
    assert {file: file.stat().st_mtime_ns for file in files} == before, "a dry run wrote"
    lines = [json.loads(line) for line in run_fastgrey("compact", "--json").stdout.splitlines()]
    assert [line["event"] for line in lines[:-1]] == ["progress"] * (len(lines) - 1)
    assert {line["step"] for line in lines[:-1]} == {"copy", "compare", "structure"}
    done = lines[-1]
    assert (done["alive"], done["expired"], done["generation"], done["windows_closed"]) == (3, 2, 2, 1)
    assert (done["verified"], done["size_before"] >= size) == ("full", True)
    assert done["partitions_dropped"] >= 1
    assert "generation                       3" in run_fastgrey("compact").stdout
    with fastgrey.open(path) as store:
        assert store.known() == {"client": 1, "domain": 1, "triplet": 1, "pair": 0}
        request = {"client": "192.0.2.1", "recipient": "b@example.net"}
        assert store.check(sender="a@young.example", **request).reason == "known-domain"
        assert store.check(sender="a@week.example", **request, dry_run=True).reason == "new"


def test_compaction_packs(run_fastgrey, make_store, path):
    """At most 40 bytes on disk for a known triplet."""
    make_store("delay=0s", "pool_hops=0", "allow_client_after=0", "allow_domain_after=0")
    with fastgrey._core.Store(str(path), throw_away=True) as store:
        now = int(time.time())
        for _ in range(2):
            for number in range(100_000):
                store.check(client="192.0.2.1", sender="a@b.example", recipient=f"{number}@x.example", now=now)
    assert run_fastgrey("compact").returncode == 0
    size = (path / "passed.000002" / "data.mdb").stat().st_size
    assert size / 100_000 <= 40


@pytest.mark.parametrize(("content", "what"), [
    (None, "No such file"), ("", "line 1"), ("time\tclient_ip\n", "no column"),
    (HEADER + "x\t1.2.3.4\t\ta\tb\tham\n", "line 2: time is 'x'"), (HEADER + "1\t1.2.3.4\n", "line 2: 2 fields"),
    (HEADER + "1\t1.2.3.4\t\ta\tb\tham\n99999999999999\t1.2.3.4\t\ta\tb\tham\n", "line 3"),
])
def test_replay_of_a_bad_file(run_fastgrey, tmp_path, content, what):
    file = tmp_path / "file.tsv"
    if content is not None:
        file.write_text(content)
    line = said(run_fastgrey("replay", str(file)), 1)
    assert what in line
    assert str(file) in line


def test_replay_of_a_directory(run_fastgrey, tmp_path):
    assert str(tmp_path) in said(run_fastgrey("replay", str(tmp_path)), 2)


def test_replay_summary_input_and_line_ends(run_fastgrey, tmp_path):
    text = "time\tclient_ip\tclient_name\tsender\trecipient\r\n" + "".join(
        f"{time_}\t192.0.2.1\t\ta@b.example\tc@d.example\r\n" for time_ in (0, 1, 300, 301))
    done = run_fastgrey("replay", "-", "--json", input=text)
    assert json.loads(done.stdout) == {"rows": 4, "verdicts": {
        "defer new": 1, "defer early": 1, "accept retry": 1, "accept known-domain": 1}}
    file = tmp_path / "file.tsv"
    file.write_bytes(text.encode() + b"\r\n\n")
    assert "accept retry         1" in run_fastgrey("replay", str(file)).stdout


def test_replay_uses_no_store_unless_one_is_named(run_fastgrey, run_hook, make_store, tmp_path, path):
    """The store in the environment is the live one: a replay of last year must not reach it unasked."""
    make_store("delay=7s")
    file = tmp_path / "file.tsv"
    file.write_text(HEADER + "1\t192.0.2.1\t\ta@example.org\tb@example.net\tx\n")
    row = json.loads(run_fastgrey("replay", str(file), "--jsonl").stdout)
    assert row == {"row": 1, "action": "defer", "reason": "new", "wait": 300}
    with fastgrey.open(path) as store:
        assert store.counters()["verdicts"] == {}
    row = json.loads(run_fastgrey("replay", str(file), "--jsonl", "--store", str(path)).stdout)
    assert row["wait"] == 7
    with fastgrey.open(path) as store:
        assert store.counters()["verdicts"] == {"defer new": 1}


def test_progress_on_a_terminal(make_store, run_hook, path, tmp_path):
    file = tmp_path / "file.tsv"
    file.write_text(HEADER + "".join(f"{n}\t192.0.2.{n % 250}\t\ta@{n}.example\tc@d.example\tx\n" for n in range(5000)))
    assert "100%" in on_terminal(["replay", str(file)], path)
    make_store("delay=0s")
    for _ in range(2):
        run_hook()
    shown = on_terminal(["compact"], path)
    assert [step for step in ("copy", "compare", "structure") if step in shown] == ["copy", "compare", "structure"]
    assert shown.count("100%") >= 3


def test_replay_of_100_000_rows_takes_seconds(run_fastgrey, tmp_path):
    """Bounded by the time limit of the run alone; the figure is in bench/."""
    file = tmp_path / "file.tsv"
    file.write_text(HEADER + "".join(
        f"{1_700_000_000 + n}\t10.{n // 7 % 250}.{n % 50}.1\t\tuser{n % 900}@host{n % 3000}.example\t"
        f"c{n % 77}@d.example\tx\n"
        for n in range(100_000)))
    done = run_fastgrey("replay", str(file), "--json")
    assert json.loads(done.stdout)["rows"] == 100_000
