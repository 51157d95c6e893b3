"""Counts of the requests to servers, by source and by block of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class RequestCounts:
    """What a source has sent so far; `tokens` are the rows requested, one for every token read."""

    requests: int = 0
    retries: int = 0
    tokens: int = 0
    drifted: int = 0
    """Texts whose tokenization differs from the tokens drawn."""
    mid_character: int = 0
    """Rows inside a character, which no text can request; the SLM finished the character alone."""


_COUNTING: ContextVar[RequestCounts | None] = ContextVar("counting", default=None)


@contextmanager
def counting() -> Iterator[RequestCounts]:
    """Count the requests that code started in this block sends, through any source."""
    counts = RequestCounts()
    token = _COUNTING.set(counts)
    try:
        yield counts
    finally:
        _COUNTING.reset(token)


def note_request() -> None:
    """Count one more request for the `counting` block that it was sent from, if any."""
    if (counts := _COUNTING.get()) is not None:
        counts.requests += 1
