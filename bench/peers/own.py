"""fastgrey, asked the same questions: by running the hook for each, and through the API in processes that stay."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import fastgrey
from fastgrey._core import Store

from peers.questions import Request


def fill(store: Path, entries: int, request: Callable[[int], Request]) -> None:
    """A new store with so many known triplets, as strangers that came again in time have left them."""
    fastgrey.create(store, {})
    introduce(store, entries, request)


def introduce(store: Path, entries: int, request: Callable[[int], Request]) -> None:
    """Make so many triplets known to a store."""
    start = int(time.time()) - 4000
    # Flushing would take most of the time and change nothing of what is measured.
    with Store(str(store), throw_away=True) as opened:
        for step in (0, 400):
            for number in range(entries):
                opened.check(**request(number)._asdict(), now=start + step)


def asked(store: Path, callers: int, questions: Path) -> dict[str, float]:
    """Ask through the API, so many forked processes at once: seconds from the first question to the last answer."""
    lines = [line.split() for line in questions.read_text().splitlines()]
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(callers)
    found: SimpleQueue[tuple[float, float] | str] = context.SimpleQueue()
    processes = [context.Process(target=_ask, args=(store, lines[number::callers], gate, found))
                 for number in range(callers)]
    for process in processes:
        process.start()
    times = [found.get() for _ in processes]
    for process in processes:
        process.join()
    for one in times:
        if isinstance(one, str):
            raise SystemExit(f"bench: {one}")
    spans = [one for one in times if not isinstance(one, str)]
    return {"seconds": max(end for _, end in spans) - min(start for start, _ in spans), "wrong": 0}


def _ask(store: Path, lines: list[list[str]], gate: Barrier,
         found: "SimpleQueue[tuple[float, float] | str]") -> None:
    wrong = ""
    try:
        with fastgrey.open(store) as opened:
            check = opened.check
            gate.wait(60)
            start = time.monotonic()
            for due, client, sender, recipient in lines:
                verdict = check(client=client, sender=sender, recipient=recipient)
                if verdict.action != due:
                    wrong = f"{due} was due: {verdict} for {client} {sender} {recipient}"
            end = time.monotonic()
    except Exception as error:
        gate.abort()
        wrong = f"{type(error).__name__}: {error}"
    found.put(wrong or (start, end))
