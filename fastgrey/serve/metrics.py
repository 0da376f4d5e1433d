"""What a server counts and what is known of its store, as prometheus_client collects it."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fastgrey import exposition

from . import board as cells
from .board import Board
from .watch import Watch

# Suffix of the name, labels, value.
Sample = tuple[str, dict[str, str], float]


class ServeCollector(Collector):
    """The families of one server. Nothing is looked at when they are asked for but memory."""

    def __init__(self, board: Board, watch: Watch):
        self.board = board
        self.watch = watch

    def collect(self) -> Iterator[Metric]:
        """The server's own families, then those that fastgrey stats --prometheus has of the store."""
        for name, kind, meaning, samples in self._counted():
            yield _metric(f"serve_{name}", kind, meaning, self.watch.path, samples)
        facts, age = self.watch.facts
        if facts is None:
            return
        yield _metric("serve_facts_age_seconds", "gauge", "Seconds since the store was looked at for the families "
                      "that do not begin with fastgrey_serve.", self.watch.path, [("", {}, age)])
        for name, kind, meaning, told in exposition.families(facts):
            yield _metric(name, kind, meaning, self.watch.path,
                          [(suffix, {label: str(value) for label, value in labels.items()}, value)
                           for suffix, labels, value in told])

    def _counted(self) -> Iterator[tuple[str, str, str, list[Sample]]]:
        total = self.board.total
        yield "workers", "gauge", "Workers that run.", [("", {}, self.board.running())]
        if self.watch.backlog is not None:
            yield ("backlog", "gauge", "Records earned while the engine was away, to be written to it.",
                   [("", {}, self.watch.backlog)])
        yield "ready", "gauge", "1 while /ready says so.", [("", {}, int(self.watch.ready()[0]))]
        for name, kind, meaning, cell in (
            ("connections_open", "gauge", "Connections that are open.", cells.OPEN),
            ("scribe_queue", "gauge", "Decisions that wait for the disk or the engine.", cells.QUEUE),
            ("connections_total", "counter", "Connections that were accepted.", cells.CONNECTIONS),
            ("connections_not_taken_total", "counter", "Times that the system had no descriptor for a connection.",
             cells.FULL),
            ("broken_requests_total", "counter", "Requests that could not be read.", cells.BROKEN),
            ("timeouts_total", "counter", "Connections closed for want of a whole request.", cells.TIMEOUTS),
            ("engine_errors_total", "counter", "Exchanges with the engine that failed.", cells.ENGINE_ERRORS),
            ("worker_restarts_total", "counter", "Workers that ended unasked, and were started again.",
             cells.RESTARTS),
        ):
            yield name, kind, meaning, [("", {}, total(cell))]
        yield ("requests_total", "counter", "Requests by how they came and what became of them; skip: not a matter for "
               "a greylist.", [("", {"kind": kind, "result": result}, total(cell))
                               for (kind, result), cell in cells.REQUESTS.items()])
        yield ("decisions_total", "counter", "Decisions by who had the records; error: nobody, so on_error decided.",
               [("", {"records": source}, total(cell)) for source, cell in cells.DECISIONS.items()])
        yield "decision_seconds", "histogram", "How long decisions took.", list(self._histogram())

    def _histogram(self) -> Iterator[Sample]:
        below = 0
        for number, bound in enumerate([*map(str, cells.BOUNDS), "+Inf"]):
            below += self.board.total(cells.BUCKETS + number)
            yield "_bucket", {"le": bound}, below
        yield "_sum", {}, self.board.total(cells.TOOK) / cells.NANOSECONDS
        yield "_count", {}, below


def _metric(name: str, kind: str, meaning: str, store: str, samples: Iterable[Sample]) -> Metric:
    """A family in which every sample names its store."""
    full = f"fastgrey_{name}"
    metric = Metric(full.removesuffix("_total") if kind == "counter" else full, meaning, kind)
    for suffix, labels, value in samples:
        metric.add_sample(full + suffix, {"store": store} | labels, value)
    return metric


def registry(board: Board, watch: Watch) -> CollectorRegistry:
    """A registry with these families and nothing of the process that serves them, which has no part in mail."""
    found = CollectorRegistry()
    found.register(ServeCollector(board, watch))
    return found
