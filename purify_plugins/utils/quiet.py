"""A log kept to its errors, for as long as somebody else tells what it would."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_only(log: logging.Logger) -> Iterator[None]:
    """Let a log tell of nothing but errors for a while."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
