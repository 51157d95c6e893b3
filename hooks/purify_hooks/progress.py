"""What a long command says of itself, on standard error: a bar in a terminal, occasional lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

Progress = Callable[[int, int, str], None]
"""Callback (steps done, steps in all, what is being done)."""
INTERVAL = 30
"""Seconds between two lines of a log at most, while steps are finished."""


def log_lines() -> Progress:
    """Of steps that take about equally long: a line at every tenth and every half minute of work."""
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


def stage_lines() -> Progress:
    """Of stages that follow one another, which `what` begins with: a line at every fifth of each."""
    began, before = time.monotonic(), -1

    def progress(done: int, total: int, what: str) -> None:
        nonlocal before
        fifth = 5 * done // max(total, 1)
        if fifth != before or total == 1:
            before = fifth
            typer.echo(f"{time.monotonic() - began:5.0f} s  {done} of {total} {what}", err=True)

    return progress


def rare_lines() -> Progress:
    """Of work that is mostly short: a line at every half minute, in per cent."""
    start, told = time.monotonic(), 0.0

    def progress(done: int, total: int, what: str) -> None:
        nonlocal told
        now = time.monotonic() - start
        if now - told > INTERVAL:
            told = now
            typer.echo(f"{now:5.0f} s  {what}, {100 * done // max(total, 1)}%", err=True)

    return progress


@contextmanager
def shown_progress(
    lines: Callable[[], Progress] = log_lines, first: str = "reading models"
) -> Iterator[Progress]:
    """A callback that shows what is done, what is left and what is being done, on standard error.

    A bar in a terminal, which says `first` before the first step; elsewhere `lines`.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(first, total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _left(seconds: float, done: int, rest: int) -> str:
    """The rate, and the estimated remaining time; "" before anything was measured."""
    if done <= 0 or rest <= 0:
        return ""
    left = seconds / done * rest
    about = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    return f", {60 * done / max(seconds, 1e-9):.1f} a minute, about {about} left"
