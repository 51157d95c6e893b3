"""Locks between threads that a forked process finds free, and locks between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, RLock
from typing import Any
from weakref import WeakSet

from purify_plugins.errors import ConfigError


class ForkedLock:
    """A lock, free in a forked process, where the thread that held it is not.

    What it guards must be whole there at any time, or be made anew. The same thread may take it again if it
    is `reentrant`: where the garbage collector, which runs anywhere, may come to it.
    """

    def __init__(self, reentrant: bool = False) -> None:
        self._reentrant = reentrant
        self.free()
        _KNOWN.add(self)

    def free(self) -> None:
        """Forget who holds it."""
        self._lock: Any = RLock() if self._reentrant else Lock()

    def acquire(self, timeout: float = -1) -> bool:
        """Whether it was had within so many seconds; -1: it is waited for."""
        return bool(self._lock.acquire(timeout=timeout))

    def release(self) -> None:
        """Let the next have it."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


_KNOWN: WeakSet[ForkedLock] = WeakSet()


def _free_all() -> None:
    for each in list(_KNOWN):
        each.free()


if os.name == "posix":  # Windows has no fork
    os.register_at_fork(after_in_child=_free_all)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this directory; on Windows nothing is waited for.

    Raises ConfigError for a directory that cannot be opened.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"cannot open {str(folder)!r}: {error.strerror}") from error
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
