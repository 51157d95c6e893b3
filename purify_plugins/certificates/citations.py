"""Texts that the caller put into a prompt, by name; the answers' certificates list them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

Cited = tuple[tuple[str, str], ...]
"""The id and SHA-256 of every text that was put into a prompt."""
Sources = tuple[tuple[str, str], ...]
"""The id and text of every text that was put into a prompt; no record has the texts."""

_SOURCES: ContextVar[Sources] = ContextVar("sources", default=())


@contextmanager
def citing(texts: Mapping[str, str]) -> Iterator[None]:
    """Name the texts, by id, that were put into the prompts of the answers asked for in this block.

    Their certificates record each id and the text's SHA-256 under `context`; an answer may repeat them.
    Nested blocks add up. That a text is in the prompt is not checked.

    >>> with citing({"page 7": page}):
    ...     purifier.generate(f"{page}\n\nIn one sentence:")
    """
    before = _SOURCES.get()
    token = _SOURCES.set((*before, *(each for each in texts.items() if each not in before)))
    try:
        yield
    finally:
        _SOURCES.reset(token)


def cited() -> Cited:
    """The id and SHA-256 of every text that the enclosing `citing` blocks name."""
    return tuple((name, hashlib.sha256(text.encode()).hexdigest()) for name, text in sources())


def sources() -> Sources:
    """The id and text of every text that the enclosing `citing` blocks name."""
    return _SOURCES.get()
