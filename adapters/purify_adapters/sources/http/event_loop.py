"""One event loop in a background thread for all connections to servers, so that streams can be cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, TypeVar

from purify_plugins.utils.locks import ForkedLock

T = TypeVar("T")


_made: list[asyncio.AbstractEventLoop] = []
_making = ForkedLock()


def loop() -> asyncio.AbstractEventLoop:
    """The running loop, made at the first call."""
    with _making:
        if not _made:
            made = asyncio.new_event_loop()
            threading.Thread(target=made.run_forever, daemon=True, name="purify-remote").start()
            _made.append(made)
        return _made[0]


def begun() -> asyncio.AbstractEventLoop | None:
    """The running loop, if there is one; without a lock, so that a finalizer may ask."""
    return _made[0] if _made else None


if os.name == "posix":  # Windows has no fork
    os.register_at_fork(after_in_child=_made.clear)  # the thread is not in the child


class PendingRequest:
    """The future that a thread waits for; another thread can cancel it when the client disconnects."""

    def __init__(self) -> None:
        self._future: Future[Any] | None = None
        self._starting = threading.Lock()

    def enter(self) -> None:
        """Make this the pending request of the current context."""
        _ASKING.set(self)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop; its future is pending from then on."""
        # The loop may run the coroutine before its future is known here: `end` waits until it is.
        with self._starting:
            self._future = future = asyncio.run_coroutine_threadsafe(coroutine, loop())
        return future

    def over(self) -> None:
        """Nothing is pending any more."""
        self._future = None

    def end(self) -> None:
        """Cancel the pending future: its thread gets CancelledError. Later ones are not affected."""
        with self._starting:
            future = self._future
        if future is not None:
            future.cancel()


_ASKING: ContextVar[PendingRequest | None] = ContextVar("asking", default=None)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and block for its result; an interrupt cancels it."""
    pending = _ASKING.get() or PendingRequest()
    future = pending.start(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
    finally:
        pending.over()


def finish(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that closes something, and block until it has. A client's leaving does not cancel it.

    What was abandoned is closed by the garbage collector, on any thread and in the middle of anything: so no
    lock is taken, and on the loop's own thread, which runs the coroutine later, nothing is waited for.
    """
    if (made := begun()) is None:  # in a forked child: what is open is its parent's
        coroutine.close()
        return
    future = asyncio.run_coroutine_threadsafe(coroutine, made)
    if asyncio._get_running_loop() is not made:
        future.result()


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines concurrently; the first error cancels the others and is raised."""
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
