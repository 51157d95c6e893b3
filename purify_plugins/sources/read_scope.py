"""Whether a forward pass belongs to a purifier, or bypasses it: activation refuses the latter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

reading: ContextVar[bool] = ContextVar("reading", default=False)
"""True inside a source's forward pass, or while activation lets a trusted model run."""


@contextmanager
def for_fusion() -> Iterator[None]:
    """Mark the forward passes in this block as a source's own, which activation lets through."""
    before = reading.set(True)
    try:
        yield
    finally:
        reading.reset(before)
