"""Logs: one kept to its errors for a while, and a warning that is given once a process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def errors_only(log: logging.Logger) -> Iterator[None]:
    """Log nothing but errors in this block."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@cache
def warn_of_greedy() -> None:
    """Warn, once a process, that greedy answers carry no guarantee, as transformers decodes by default."""
    logging.getLogger("purify.greedy").warning(
        "greedy answers are purified but carry no guarantee; "
        "draw them: do_sample=True, or a temperature above 0"
    )
