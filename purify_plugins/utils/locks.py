"""Locks that a forked process finds free: the thread that held one when it was forked is not there."""

from __future__ import annotations

import os
from threading import Lock, RLock
from typing import Any
from weakref import WeakSet


class ForkedLock:
    """A lock, free in a forked process; what it guards must be whole there too, or made anew.

    The same thread may take it again if it is `reentrant`: where the garbage collector, which runs anywhere,
    may come to it.
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
