"""Progress of the recipe's stages: a bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.run import Progress


@contextmanager
def stage_progress() -> Iterator[Progress]:
    """A callback (done, total, what) on standard error: a bar, or a line at every fifth of a stage."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _lines() -> Progress:
    began, before = time.monotonic(), -1

    def progress(done: int, total: int, what: str) -> None:
        nonlocal before
        fifth = 5 * done // max(total, 1)
        if fifth != before or total == 1:
            before = fifth
            typer.echo(f"{time.monotonic() - began:5.0f} s  {done} of {total} {what}", err=True)

    return progress
