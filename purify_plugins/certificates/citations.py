"""Texts that the caller put into a prompt, by name; the answers' certificates list them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Citation:
    """A text that was put into a prompt, by its id; certificates have its SHA-256 alone."""

    id: str
    sha256: str
    text: str = field(repr=False, compare=False)


Cited = tuple[Citation, ...]
"""Every text that was put into a prompt."""

_CITED: ContextVar[Cited] = ContextVar("cited", default=())


@contextmanager
def citing(texts: Mapping[str, str]) -> Iterator[None]:
    """Name the texts, by id, that were put into the prompts of the answers asked for in this block.

    Their certificates record each id and the text's SHA-256 under `context`; an answer may repeat them.
    Nested blocks add up. That a text is in the prompt is not checked.

    >>> with citing({"page 7": page}):
    ...     purifier.generate(f"{page}\n\nIn one sentence:")
    """
    named = tuple(Citation(name, _sha256(text), text) for name, text in texts.items())
    before = _CITED.get()
    token = _CITED.set((*before, *(each for each in named if each not in before)))
    try:
        yield
    finally:
        _CITED.reset(token)


def cited() -> Cited:
    """Every text that the enclosing `citing` blocks name."""
    return _CITED.get()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
