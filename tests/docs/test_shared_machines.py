"""What the chapter on several machines has people type, name in an alert, and look for."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fastgrey import exposition, statistics
from fastgrey.cli.main import cli
from fastgrey.serve.board import Board
from fastgrey.serve.metrics import ServeCollector
from fastgrey.serve.watch import Watch
from fastgrey.shipped import CHECKOUT, shipped

PAGE = CHECKOUT / "docs" / "shared-machines.md"
TEXT = PAGE.read_text()


def test_commands_parse():
    lines = re.findall(r"^ {4}(fastgrey .*?)(?: *#.*)?$", TEXT, re.MULTILINE) + re.findall(r"`(fastgrey [a-z][^`]*)`", TEXT)
    commands = [line for line in lines if not line.startswith("fastgrey-")]
    assert len(commands) > 8
    for line in commands:
        words = shlex.split(line)[1:]
        command, path = cli, ["fastgrey"]
        while isinstance(command, click.Group):
            path.append(words.pop(0))
            command = command.get_command(click.Context(command), path[-1])
            assert command is not None, line
        if words:
            command.make_context(" ".join(path), words)


def test_the_configuration_can_be_applied(run_fastgrey, config, make_store, path):
    make_store()
    (body,) = re.findall(r"^ {4}delay = .*\n(?:(?: {4}.*)?\n)*? {4}metrics = .*\n", TEXT, re.MULTILINE)
    config(re.sub("^ {4}", "", body, flags=re.MULTILINE))
    done = run_fastgrey("apply")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("^shared +true", run_fastgrey("config", "show").stdout, re.MULTILINE)


def test_alerts_name_metrics_that_there_are(make_store, path):
    """With the labels that they choose by."""
    make_store()
    named = set(re.findall(r"\bfastgrey_[a-z_]+\b", TEXT))
    assert len(named) > 6
    watch = Watch(str(path))
    watch.backlog = 0
    there = {sample.name for metric in ServeCollector(Board(), watch).collect() for sample in metric.samples}
    facts = statistics.collect(str(path))
    there |= {f"fastgrey_{name}" for name, *_ in exposition.families(facts)} | {"fastgrey_serve_facts_age_seconds"}
    # The beginning of several.
    assert named - there <= {"fastgrey_serve_"}


def test_the_line_of_json_has_the_fields_of_the_log():
    (line,) = re.findall(r'^ {4}(\{"time".*\})$', TEXT, re.MULTILINE)
    assert list(json.loads(line)) == ["time", "level", "event", "action", "reason", "wait", "client", "sender", "recipient",
                                      "key"]


@pytest.mark.parametrize("name", ["run/serve/daemontools/run", "systemd/fastgrey-serve.service",
                                  "systemd/fastgrey-serve.socket"])
def test_files_are_shipped(name):
    assert shipped(name)


def test_the_model_runs(tmp_path, envelopes):
    """bench/second_mx.py, on the beginning of the real envelopes; sharing is one store."""
    few = tmp_path / "envelopes.tsv"
    few.write_bytes(b"".join(Path(envelopes).read_bytes().splitlines(keepends=True)[:200]))
    done = subprocess.run([sys.executable, CHECKOUT / "bench" / "second_mx.py", few, "--label", "ham"], timeout=120,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    delayed = {(row[0], row[2]): int(re.search(r" (\d+) +[\d.]+%", line)[1])
               for row, line in zip(rows, done.stdout.splitlines()[2:], strict=True)}
    assert delayed["1", "first,"] == delayed["2", "first,"] == delayed["2", "next"] <= delayed["2", "one,"] <= delayed["4", "one,"]
