"""What is counted of the requests to a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class RequestCounts:
    """What a source has done so far; `tokens` are rows that were asked for, one for every token read."""

    requests: int = 0
    retries: int = 0
    tokens: int = 0
    drifted: int = 0
    """Texts that the tokenizer cuts into other tokens than were drawn."""
    mid_character: int = 0
    """Rows in the middle of a character, which no text can ask for; the SLM finished it."""


_ASKED: ContextVar[RequestCounts | None] = ContextVar("asked", default=None)


@contextmanager
def counting() -> Iterator[RequestCounts]:
    """How many requests are sent to servers by what is started in this block, whichever source sends them."""
    counts = RequestCounts()
    token = _ASKED.set(counts)
    try:
        yield counts
    finally:
        _ASKED.reset(token)


def note_request() -> None:
    """Count one more request for the `counting` block that it was sent from, if any."""
    if (asked := _ASKED.get()) is not None:
        asked.requests += 1
