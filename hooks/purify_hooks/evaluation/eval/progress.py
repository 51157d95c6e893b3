"""Progress of an evaluation: a bar in a terminal, occasional lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

INTERVAL = 30
"""Seconds between two lines of a log at most, while steps are finished."""

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.run import Progress


def log_lines() -> Progress:
    """Progress for a log: a line at every tenth and at least every half minute of work."""
    start, told, tenths = time.monotonic(), 0.0, -1

    def progress(done: int, total: int, what: str) -> None:
        nonlocal told, tenths
        now, tenth = time.monotonic() - start, 10 * done // max(total, 1)
        if tenth != tenths or now - told > INTERVAL or done == total:
            told, tenths = now, tenth
            typer.echo(
                f"{now:5.0f} s  {done} of {total} steps{_left(now, done, total - done)}  {what}".rstrip(),
                err=True,
            )

    return progress


@contextmanager
def shown_progress(lines: Callable[[], Progress] = log_lines) -> Iterator[Progress]:
    """A callback that shows what is done, what is left and what was measured last, on standard error.

    A bar in a terminal; elsewhere `lines`.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reading models", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _left(seconds: float, done: int, rest: int) -> str:
    """The rate, and the estimated remaining time; "" before anything was measured."""
    if done <= 0 or rest <= 0:
        return ""
    left = seconds / done * rest
    about = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    return f", {60 * done / max(seconds, 1e-9):.1f} a minute, about {about} left"
