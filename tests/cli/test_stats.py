"""fastgrey stats, as the person on call meets it: on a terminal, in a pipe, again and again, and for Prometheus."""

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

import aging
import fastgrey
from conftest import FASTGREY
from fastgrey import _core
from terminal import on_terminal

BAR = re.compile("[▏▎▍▌▋▊▉█]+")
COLUMNS = ["checks", "since", "start", "minute", "hour", "day"]


@pytest.fixture
def busy(make_store, run_hook, path, pending_path):
    """A store that four strangers and an error came to, of whom two came back 400 seconds later."""
    make_store("pool_hops=0")
    for number in range(4):
        run_hook(client=f"192.0.{number}.1", sender=f"a@{number}.example")
    aging.age(path, pending_path, 400)
    for number in range(2):
        assert run_hook(client=f"192.0.{number}.1", sender=f"a@{number}.example").words == ["accept", "retry"]
    assert run_hook(client="x").words == ["accept", "error"]
    return path


COUNTED = {"accept retry": 2, "accept error": 1, "defer new": 4}


def test_json(busy, run_fastgrey):
    found = json.loads(run_fastgrey("stats", "--json").stdout)
    assert found["verdicts"] == COUNTED
    assert found["recent"] == {"minute": COUNTED, "hour": COUNTED, "day": COUNTED}
    strangers = found["strangers"]
    assert (strangers["seen"], strangers["came_back"], strangers["share"]) == (4, 2, 0.5)
    assert 360 < strangers["median_wait"] <= 420
    assert len(strangers["waits"]["counts"]) == len(strangers["waits"]["bounds"]) + 1 == 25
    assert 800 <= strangers["waits"]["seconds"] <= 860
    assert abs(time.time() - time.mktime(time.strptime(found["time"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 60
    assert found["made"] <= found["counting_since"] <= found["time"]


def test_plain_in_a_pipe(busy, run_fastgrey):
    """Aligned columns, no escape, no bar."""
    done = run_fastgrey("stats", env={"TERM": "xterm-256color", "COLORTERM": "truecolor"})
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert not BAR.search(done.stdout)
    title = next(number for number, line in enumerate(lines) if line.startswith("checks"))
    assert lines[title].split() == COLUMNS
    rows = lines[title + 1:lines.index("", title)]
    found = {name: numbers for name, *numbers in (row.rsplit(maxsplit=4) for row in rows)}
    assert found == {name: [str(number)] * 4 for name, number in (COUNTED | {"all": 7}).items()}
    assert len({len(line) for line in lines[title:title + 5]}) == 1
    assert "  came back          2 (50.0%)" in lines
    assert any(re.fullmatch(r"  their median wait  about 6m \d+s", line) for line in lines)


def test_periods_forget(make_store, run_fastgrey):
    """What is older than a minute is no longer in the minute."""
    path = make_store()
    with fastgrey.open(path) as store:
        store.check(client="192.0.2.1", sender="a", recipient="b", relay=True)
    with open(path / "stats", "r+b") as file:
        page = bytearray(file.read())
        for slot in range(472, 472 + 8 * 72, 72):
            stamp = int.from_bytes(page[slot:slot + 8], sys.byteorder)
            page[slot:slot + 8] = max(stamp - 100, 0).to_bytes(8, sys.byteorder)
        file.seek(0)
        file.write(page)
    found = json.loads(run_fastgrey("stats", "--json").stdout)["recent"]
    assert found == {"minute": {}, "hour": {"accept relay": 1}, "day": {"accept relay": 1}}


def test_bars_on_a_terminal(busy):
    """The longest bar is that of the largest share, and bars have colours."""
    shown = on_terminal(["stats"], busy, "stdout")
    assert "\x1b[32m" in shown
    lengths = {}
    for line in shown.splitlines():
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)
        bars = BAR.findall(text)
        if bars:
            assert len(bars) == 4
            lengths[" ".join(text.split()[:2])] = len(bars[0])
    assert set(lengths) == set(COUNTED)
    assert lengths["defer new"] > lengths["accept retry"] > lengths["accept error"]
    assert "about 6m" in shown
    for width in (80, 40, 20):
        assert on_terminal(["stats"], busy, "stdout", width=width)


def test_terminals_without_colours_or_unicode(busy):
    shown = on_terminal(["stats"], busy, "stdout", PYTHONIOENCODING="ascii")
    assert re.search("defer new.*####", shown)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_terminal(["stats"], busy, "stdout", NO_COLOR="1"))


def test_watch_on_a_terminal(busy):
    """It goes back over what it wrote, and leaves the last view and the cursor."""
    shown = on_terminal(["stats", "--watch", "0.2", "--count", "3"], busy, "stdout")
    assert shown.count("\x1b[1A") > 20
    assert shown.count("defer new") >= 3
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_watch_in_a_pipe(busy, run_fastgrey):
    done = run_fastgrey("stats", "--watch", "0.1", "--count", "3")
    assert (done.returncode, done.stderr) == (0, "")
    blocks = done.stdout.split(f"{busy}: passed.000001")
    assert len(blocks) == 4
    assert all("defer new" in block for block in blocks[1:])
    assert "\x1b" not in done.stdout


def start(path, *arguments):
    """Start a watch whose output is a pipe. It hears an interrupt also where these tests run in the background."""
    return subprocess.Popen([FASTGREY, "stats", "--watch", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={"FASTGREY_STORE": str(path), "PATH": os.environ["PATH"]},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def test_watch_sees_what_happens(busy, run_hook):
    """Also a page of counters that was replaced meanwhile."""
    process = start(busy, "0.1", "--count", "100")
    try:
        assert wait_for(process, "defer new").split()[-1] == "4"
        run_hook(sender="late@late.example")
        while wait_for(process, "defer new").split()[-1] != "5":
            pass
        fastgrey.directory.make_counters(busy, False)
        while wait_for(process, "all ").split()[-1] != "0":
            pass
    finally:
        process.kill()
        process.communicate()


def wait_for(process, beginning):
    """The next line that begins so; the views are numbered, so this ends."""
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"no line {beginning!r} any more")


@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupt_ends_the_watch_quietly(busy, number):
    process = start(busy)
    for _ in range(number):
        wait_for(process, "all ")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 0


def families(text):
    """What Prometheus' own parser makes of the text: samples by name and labels less the store's."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            labels.pop("store")
            key = (sample.name, *sorted(labels.items()))
            assert key not in found
            found[key] = (family.type, sample.value)
    return found


def test_prometheus(busy, run_fastgrey):
    done = run_fastgrey("stats", "--prometheus")
    assert done.returncode == 0
    found = families(done.stdout)
    checks = {key: value for key, (kind, value) in found.items() if key[0] == "fastgrey_checks_total"}
    assert len(checks) == 16
    for action, reason in _core.VERDICTS:
        key = ("fastgrey_checks_total", ("action", action), ("reason", reason))
        assert checks[key] == COUNTED.get(f"{action} {reason}", 0)
    assert found["fastgrey_strangers_total",] == ("counter", 4)
    assert found["fastgrey_promotions_total",] == ("counter", 2)
    assert found["fastgrey_known_records", ("kind", "triplet")] == ("gauge", 2)
    assert found["fastgrey_pending_records",] == ("gauge", 4)
    assert found["fastgrey_counters_usable",] == ("gauge", 1)
    assert found["fastgrey_size_bytes", ("part", "in_force")][1] > 0
    buckets = [(dict(key[1:])["le"], value) for key, (kind, value) in found.items()
               if key[0] == "fastgrey_wait_seconds_bucket"]
    assert [bound for bound, _ in buckets] == [*map(str, _core.WAIT_BOUNDS), "+Inf"]
    assert [value for _, value in buckets] == [0] * 6 + [2] * 19
    assert found["fastgrey_wait_seconds_count",] == ("histogram", 2)
    assert 800 <= found["fastgrey_wait_seconds_sum",][1] <= 860
    for name, *_ in found:
        assert re.fullmatch(r"fastgrey_[a-z_]+", name)


def test_prometheus_of_a_store_with_an_odd_name(tmp_path, run_fastgrey):
    store = tmp_path / 'a "quoted"\\name\nin two lines'
    fastgrey.create(store)
    text = run_fastgrey("stats", "--prometheus", "--store", str(store)).stdout
    stores = {sample.labels["store"] for family in text_string_to_metric_families(text) for sample in family.samples}
    assert stores == {str(store)}


def test_prometheus_without_counters(busy, run_fastgrey):
    """Left out: zeros would look like a restart."""
    (busy / "stats").unlink()
    found = families(run_fastgrey("stats", "--prometheus").stdout)
    assert found["fastgrey_counters_usable",] == ("gauge", 0)
    assert found["fastgrey_known_records", ("kind", "client")] == ("gauge", 2)
    assert not any(name.endswith("_total") or "wait" in name for name, *_ in found)


def test_output_replaces_the_file_as_a_whole(busy, run_fastgrey, tmp_path):
    folder = tmp_path / "textfile"
    folder.mkdir()
    target = folder / "fastgrey.prom"
    target.write_text("old")
    with target.open() as reader:
        done = run_fastgrey("stats", "--prometheus", "--output", str(target), umask=0o077)
        # Who has the old file open reads all of it.
        assert reader.read() == "old"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert families(target.read_text())["fastgrey_strangers_total",] == ("counter", 4)
    assert os.listdir(folder) == ["fastgrey.prom"]


def test_output_that_cannot_be_written(busy, run_fastgrey, tmp_path):
    """The old file stays, and nothing is left beside it."""
    folder = tmp_path / "textfile"
    folder.mkdir()
    target = folder / "fastgrey.prom"
    target.write_text("old")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    done = run_fastgrey("stats", "--prometheus", "--output", str(target), preexec_fn=limit)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"cannot write {target}: File too large; name a file" in done.stderr
    assert target.read_text() == "old"
    assert os.listdir(folder) == ["fastgrey.prom"]
    for wrong, why in ((tmp_path / "none" / "x.prom", "No such file"), (folder, "Is a directory")):
        done = run_fastgrey("stats", "--prometheus", "--output", str(wrong))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert why in done.stderr


@pytest.mark.parametrize("wrong", [
    ["--json", "--prometheus"], ["--json", "--watch"], ["--prometheus", "--watch", "3"], ["--output", "x"],
    ["--count", "3"], ["--watch", "0"], ["--watch", "x"], ["--watch", "--count", "0"],
])
def test_what_does_not_go_together(busy, run_fastgrey, wrong):
    done = run_fastgrey("stats", *wrong)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_views_say_that_nothing_is_counted(busy, run_fastgrey):
    (busy / "stats").write_bytes(b"x")
    assert "nothing is counted; run: fastgrey init" in run_fastgrey("stats").stdout
    assert "nothing is counted; run: fastgrey init" in on_terminal(["stats"], busy, "stdout", width=120)
    found = json.loads(run_fastgrey("stats", "--json").stdout)
    assert (found["counting_since"], found["verdicts"], found["strangers"]) == (None, {}, None)


def test_rich_is_for_terminals_alone(busy, run_fastgrey):
    """It takes longer to import than all the rest; a collector that runs every minute should not pay for it."""
    for options in ([], ["--json"], ["--prometheus"], ["--watch", "0.1", "--count", "1"]):
        done = subprocess.run([sys.executable, "-X", "importtime", FASTGREY, "stats", *options], capture_output=True,
                              text=True, env={"FASTGREY_STORE": str(busy), "PATH": os.environ["PATH"]}, timeout=60)
        assert done.returncode == 0
        assert "fastgrey.statistics" in done.stderr
        assert "rich" not in done.stderr
