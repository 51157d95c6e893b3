"""One event loop in one thread, for all connections to servers: streams are cancelled at once there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


_made: list[asyncio.AbstractEventLoop] = []
_making = threading.Lock()


def loop() -> asyncio.AbstractEventLoop:
    """The loop, running; whichever thread comes first makes it, and only that one."""
    with _making:
        if not _made:
            made = asyncio.new_event_loop()
            threading.Thread(target=made.run_forever, daemon=True, name="purify-remote").start()
            _made.append(made)
        return _made[0]


def _afresh() -> None:
    """Threads do not survive a fork, but a lock that one of them held would."""
    global _making
    _making = threading.Lock()
    _made.clear()


os.register_at_fork(after_in_child=_afresh)


class Asking:
    """What a thread waits for at the moment, so that another may end it: its client has left."""

    def __init__(self) -> None:
        self._future: Future[Any] | None = None

    def enter(self) -> None:
        """Let what this context waits for from now on be ended here."""
        _ASKING.set(self)

    def waits(self, future: Future[Any] | None) -> None:
        self._future = future

    def end(self) -> None:
        """Cancel what is under way; whoever waits for it gets CancelledError. What follows is not touched."""
        if (future := self._future) is not None:
            future.cancel()


_ASKING: ContextVar[Asking | None] = ContextVar("asking", default=None)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns or raises, from any other thread; interrupted, it is cancelled."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop())
    asking = _ASKING.get() or Asking()
    asking.waits(future)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
    finally:
        asking.waits(None)
