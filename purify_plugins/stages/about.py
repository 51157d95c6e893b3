"""What an application says of a request: whose it is, and of which conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_ABOUT: ContextVar[Mapping[str, str] | None] = ContextVar("about", default=None)


@contextmanager
def about(**facts: str) -> Iterator[None]:
    """Say of the requests made in this block whose they are (`user`), and of which `conversation`.

    Stages read it as `request.about`. Nested blocks add up.

    >>> with about(user="ada"):
    ...     purifier.generate("Hello")
    """
    token = _ABOUT.set({**said_about(), **facts})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def said_about() -> Mapping[str, str]:
    """What the enclosing `about` blocks say."""
    return _ABOUT.get() or {}
