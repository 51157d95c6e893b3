"""Progress of the recipe's stages: a bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import typer

from purify_hooks.evaluation.eval.progress import shown_progress

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.run import Progress


def stage_progress() -> AbstractContextManager[Progress]:
    """A callback (done, total, what) on standard error: a bar, or a line at every fifth of a stage."""
    return shown_progress(_lines)


def _lines() -> Progress:
    began, before = time.monotonic(), -1

    def progress(done: int, total: int, what: str) -> None:
        nonlocal before
        fifth = 5 * done // max(total, 1)
        if fifth != before or total == 1:
            before = fifth
            typer.echo(f"{time.monotonic() - began:5.0f} s  {done} of {total} {what}", err=True)

    return progress
