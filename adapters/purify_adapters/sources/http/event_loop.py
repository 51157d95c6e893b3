"""One event loop in one thread, for all connections to servers: streams are cancelled at once there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
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


class PendingRequest:
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


_ASKING: ContextVar[PendingRequest | None] = ContextVar("asking", default=None)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns or raises, from any other thread; interrupted, it is cancelled."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop())
    asking = _ASKING.get() or PendingRequest()
    asking.waits(future)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
    finally:
        asking.waits(None)


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all return, at once; where one raises, the others are cancelled and its error is raised."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in coroutines]
    except BaseExceptionGroup as errors:
        raise _first_of(errors) from None
    return [task.result() for task in tasks]


def _first_of(errors: BaseExceptionGroup[Any]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
