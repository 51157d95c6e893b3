"""Progress of an evaluation: a bar in a terminal, occasional lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.run import Progress


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A callback that shows what is done, what is left and what was measured last, on standard error.

    A bar in a terminal; elsewhere a line at every tenth of the way.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _log_lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reading models", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _log_lines() -> Progress:
    """Progress for a log: a line at every tenth."""
    start, last, first = time.monotonic(), -1, -1

    def progress(done: int, total: int, what: str) -> None:
        nonlocal last, first
        first = done if first < 0 else first  # the rest was measured by an earlier run
        tenth = 10 * done // max(total, 1)
        if tenth != last or done == total:
            last = tenth
            seconds = time.monotonic() - start
            left = _left(seconds, done - first, total - done)
            typer.echo(f"{seconds:5.0f} s  {done} of {total} measurements{left}  {what}".rstrip(), err=True)

    return progress


def _left(seconds: float, done: int, rest: int) -> str:
    """The estimated remaining time; "" before anything was measured."""
    if done <= 0 or rest <= 0:
        return ""
    left = seconds / done * rest
    return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"
