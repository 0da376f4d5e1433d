"""Exposition: the facts of stats as Prometheus reads them (text exposition format 0.0.4)."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _core, times
from .errors import OutputError

# Suffix of the name, labels, value.
Sample = tuple[str, dict[str, object], int]


def expose(facts: dict[str, Any]) -> str:
    """The facts that statistics.collect gives, as text. Every sample names its store in a label."""
    lines = []
    for name, kind, meaning, samples in families(facts):
        lines += [f"# HELP fastgrey_{name} {meaning}", f"# TYPE fastgrey_{name} {kind}"]
        lines += [f"fastgrey_{name}{suffix}{_labels({'store': facts['store']} | labels)} {value}"
                  for suffix, labels, value in samples]
    return "\n".join(lines) + "\n"


def families(facts: dict[str, Any]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    """Name (without fastgrey_), kind, meaning and samples of each family; the store is in no label yet."""
    yield ("store_info", "gauge", "Format version of the store and generation in force.",
           [("", {"format": facts["format"], "generation": facts["generation"]}, 1)])
    yield ("known_records", "gauge", "Known records by kind, with those that expired since the last compaction.",
           [("", {"kind": kind}, number) for kind, number in facts["known"].items()])
    yield ("pending_records", "gauge", "Records of strangers, with those that expired.",
           [("", {}, sum(partition["records"] for partition in facts["pending"]))])
    yield ("pending_partitions", "gauge", "Time partitions of pending.", [("", {}, len(facts["pending"]))])
    yield from _rules(facts["rules"])
    yield ("size_bytes", "gauge", "Bytes on disk.",
           [("", {"part": part.replace(" ", "_")}, size) for part, size in facts["bytes"].items()])
    yield ("pending_limit_bytes", "gauge", "Bytes that strangers may take on disk (the setting pending_size).",
           [("", {}, facts["pending_size"])])
    if (last := facts["compaction"]) is not None:
        yield ("compaction_result", "gauge", "1 for the way the last compaction ended.",
               [("", {"result": last["result"]}, 1)])
        if last["succeeded"] is not None:
            yield ("compaction_success_timestamp_seconds", "gauge",
                   "When a compaction last ended that was done or not needed.",
                   [("", {}, times.seconds(last["succeeded"]))])
    # Counters that are not there are left out: as zeros they would look like a restart.
    counting = facts["counting_since"] is not None
    yield ("counters_usable", "gauge", "1 while checks are counted, 0 where the page of counters is of no use.",
           [("", {}, int(counting))])
    if counting:
        yield from _counters(facts)


def _rules(rules: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    """By list: a label for every rule would be more than a time series database wants."""
    for name, kind, meaning, value in (
        ("rules", "gauge", "Rules in force.", lambda hits: 1),
        ("rules_never_hit", "gauge", "Rules in force that never decided.", lambda hits: not hits),
        ("rule_hits_total", "counter", "Checks that a rule in force decided.", lambda hits: hits),
    ):
        sums: dict[str, int] = {}
        for rule in rules:
            sums[rule["list"]] = sums.get(rule["list"], 0) + value(rule["hits"])
        if sums:
            yield name, kind, meaning, [("", {"list": of}, number) for of, number in sums.items()]


def _counters(facts: dict[str, Any]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    yield ("checks_total", "counter", "Checks by the action and the reason they ended with.",
           [("", {"action": action, "reason": reason}, facts["verdicts"].get(f"{action} {reason}", 0))
            for action, reason in _core.VERDICTS])
    for event, name, meaning in (
        ("strangers", "strangers", "New triplets recorded."),
        ("promoted", "promotions", "Strangers that came back in time and were made known."),
        ("refreshed", "refreshes", "Last-seen times of known records written."),
        ("not refreshed", "refreshes_failed", "Last-seen times of known records that could not be written."),
        ("not recorded", "strangers_not_recorded", "New triplets not recorded, because pending was full."),
        ("partitions given up", "partitions_given_up", "Partitions of strangers given up, because pending was full."),
    ):
        yield f"{name}_total", "counter", meaning, [("", {}, facts["events"][event])]
    yield ("wait_seconds", "histogram", "Seconds from the first attempt of a stranger to its promotion.",
           list(_histogram(**facts["strangers"]["waits"])))


def _histogram(bounds: list[int], counts: list[int], seconds: int) -> Iterator[Sample]:
    below = 0
    for bound, number in zip([*bounds, "+Inf"], counts, strict=True):
        below += number
        yield "_bucket", {"le": bound}, below
    yield "_sum", {}, seconds
    yield "_count", {}, below


def _labels(labels: dict[str, object]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def write(name: str, text: str) -> None:
    """Write a file that is read by others at any moment: it is the old one or the new one, never half of one.

    Its mode is 0644, because a collector is another user. Raises OutputError.
    """
    target = Path(name)
    try:
        # The name does not end as the target's does: collectors read what ends in .prom.
        descriptor, new = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                os.fchmod(descriptor, 0o644)
                file.write(text)
            os.replace(new, target)
        except BaseException:
            os.unlink(new)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}; name a file in a directory that this user may "
                          "write to, on a disk with room") from None
