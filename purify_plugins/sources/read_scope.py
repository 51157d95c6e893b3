"""Tell a model that is read for a purifier from one that somebody reads on their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

reading: ContextVar[bool] = ContextVar("reading", default=False)
"""True while a source asks its model, or activation has let a trusted one be asked; it refuses all others."""


@contextmanager
def for_fusion() -> Iterator[None]:
    """Mark what happens inside as expected: a source's own reading, above all."""
    before = reading.set(True)
    try:
        yield
    finally:
        reading.reset(before)
