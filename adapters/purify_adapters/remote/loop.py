"""One event loop in one thread, for all connections to servers: streams are cancelled at once there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


@cache
def loop() -> asyncio.AbstractEventLoop:
    """The loop, running."""
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, daemon=True, name="purify-remote").start()
    return made


os.register_at_fork(after_in_child=loop.cache_clear)  # threads do not survive a fork


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns or raises, from any other thread; interrupted, it is cancelled."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
