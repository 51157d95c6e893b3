"""One event loop in one thread, for all connections to servers: streams are cancelled at once there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
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


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns or raises, from any other thread; interrupted, it is cancelled."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
