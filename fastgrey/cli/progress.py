"""Progress on standard error: a bar a step where that is a terminal."""

import sys
from contextlib import ExitStack

import click


class Bars:
    """Called with a step, what is done of it, and its total. Silent where standard error is no terminal."""

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent or not sys.stderr.isatty()
        self.step = ""
        self.done = 0
        self.open = ExitStack()

    def __call__(self, step: str, done: int, total: int) -> None:
        if self.silent:
            return
        if step != self.step or done < self.done:
            self.end()
            self.step, self.done = step, 0
            self.bar = self.open.enter_context(click.progressbar(length=total, label=step, file=sys.stderr))
        self.bar.update(done - self.done)
        self.done = done

    def end(self) -> None:
        """Finish the line of the bar."""
        self.open.close()
        self.step = ""

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()
