"""Decoding on worker threads, one step of a stream each time the client is ready for the next."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from contextvars import copy_context
from functools import partial
from inspect import GEN_CLOSED, getgeneratorstate
from typing import TYPE_CHECKING, Any, TypeVar

from purify_adapters.gateway.rejections import cut_short, ended, overloaded, stopping
from purify_adapters.sources.http.event_loop import PendingRequest
from purify_plugins.stages import about

if TYPE_CHECKING:
    from purify_adapters.gateway.request_validation import Generation
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import Chunk, Completion

T = TypeVar("T")
log = logging.getLogger("purify.gateway")


class DecodeExecutor:
    """The threads that decode, and how many answers may run at once.

    A stream's next token is requested only when its client has taken the last one, so a slow client delays
    no other. When a client leaves, requests to a model's server are cancelled at once; the step that runs
    ends on its thread, closes both models' sessions, and then frees the slot.
    """

    def __init__(self, slots: int, queue: int, deadline: float) -> None:
        self.deadline = deadline
        self.pool = ThreadPoolExecutor(slots, "purify-decode")
        self.slots, self.queue = slots, queue
        self.running = 0
        self.stopped = self.expired = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._deadlines: set[asyncio.Timeout] = set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """A slot for one request, and a deadline for the time that it is held.

        Raises Rejected: 429 where the queue is full, 503 while stopping; TimeoutError.
        """
        if self.stopped:
            raise stopping()
        try:
            async with asyncio.timeout(self.deadline) as deadline, self._acquired(deadline) as slot:
                yield slot
        except TimeoutError:
            if self.expired:
                raise ended() from None
            raise

    @asynccontextmanager
    async def _acquired(self, deadline: asyncio.Timeout) -> AsyncIterator[Slot]:
        self._deadlines.add(deadline)
        try:
            await self._acquire()
            slot = Slot(self)
            try:
                yield slot
            finally:
                slot.leave()
        finally:
            self._deadlines.discard(deadline)

    async def _acquire(self) -> None:
        """Wait for a slot, in the order of arrival. Raises Rejected where the queue is full."""
        if self.running < self.slots:
            self.running += 1
            return
        if self.waiting >= self.queue:
            raise overloaded()
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted in self._waiting:
                self._waiting.remove(granted)
            elif not granted.cancelled():
                self.release()  # granted, and cancelled in the same moment
            raise

    def release(self) -> None:
        """Free a slot, or give it to the request that waits longest."""
        while self._waiting:
            if not (granted := self._waiting.popleft()).done():
                granted.set_result(None)
                return
        self.running -= 1

    def stop(self, after: float) -> None:
        """Refuse new requests, and end those that still run `after` so many seconds."""
        self.stopped = True
        asyncio.get_running_loop().call_later(after, self._expire)

    def _expire(self) -> None:
        self.expired = True
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(0)

    def close(self) -> None:
        """Shut the threads down; a step that runs is finished."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class Picker:
    """A purifier, and those that pick an answer among several of it."""

    def __init__(self, purifier: Purifier) -> None:
        self.purifier = purifier
        self._picking = {1: purifier}

    def picking(self, best_of: int) -> Purifier:
        """The purifier that picks an answer among so many: the one that the SLM finds likeliest."""
        if best_of not in self._picking:
            ensemble = self.purifier.plugins.make(
                "purify_stages", "ensemble", {"n": best_of, "select": "slm"}
            )
            stages = (ensemble, *self.purifier.stages)
            self._picking[best_of] = self.purifier.replace(stages=stages)
        return self._picking[best_of]


class Slot:
    """One request's slot; free again when the last of its steps has ended."""

    def __init__(self, executor: DecodeExecutor) -> None:
        self.executor = executor
        self._loop = asyncio.get_running_loop()
        self._left = False
        self._requests = PendingRequest()
        self._job: Future[Any] = Future()
        self._job.set_result(None)

    async def stream(self, generation: Generation, picker: Picker) -> AsyncGenerator[Chunk, None]:
        """The answer's chunks, each decoded when it is requested; closing the generator ends the answer."""
        chunks = self._chunks(generation, picker)
        try:
            while (chunk := await self._next(chunks)) is not None:
                yield chunk
        finally:
            self._close(chunks)

    def whole(self, generation: Generation, picker: Picker) -> Completion:
        """The answer, decoded on the calling thread until the client leaves. Raises Rejected if cut short."""
        with closing(self._chunks(generation, picker)) as chunks:
            for chunk in chunks:
                if chunk.completion:
                    return chunk.completion
                if self._left:
                    break
        raise cut_short()

    def _chunks(self, generation: Generation, picker: Picker) -> Generator[Chunk, None, None]:
        purifier = picker.picking(generation.best_of).replace(top=generation.top)
        with about(**({"user": generation.user} if generation.user else {})):
            return purifier.stream(generation.prompt, generation.sampling)

    async def _next(self, chunks: Any) -> Chunk | None:
        return await self.run(lambda: next(chunks, None))

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function on a thread of the pool, in the calling context; one at a time."""
        context = copy_context()
        context.run(self._requests.enter)
        job = self._job = self.executor.pool.submit(context.run, function)
        return await asyncio.wrap_future(job)

    def _close(self, chunks: Generator[Chunk, None, None]) -> None:
        """Close an answer when its last step has ended.

        One that was left between two steps is closed on a thread of the pool, not on the event loop: its
        sessions may wait for a server, and its record for another process's.
        """
        self._job.cancel()
        if getgeneratorstate(chunks) == GEN_CLOSED or not self._job.done():
            self._afterwards(chunks.close)
            return
        closed: Future[None] = Future()
        closed.set_running_or_notify_cancel()  # so that `leave` waits for it
        closing = partial(_settled, closed, chunks.close)
        try:
            self.executor.pool.submit(closing)
        except RuntimeError:  # the threads are shut down
            closing()
        self._job = closed

    def leave(self) -> None:
        """Free the slot as soon as nothing runs in it; cancel requests to a model's server now."""
        self._left = True
        self._requests.end()
        self._afterwards(lambda: self._loop.call_soon_threadsafe(self.executor.release))

    def _afterwards(self, function: Callable[[], object]) -> None:
        """Call `function` when the last step has ended: now, or on that step's thread."""
        self._job.cancel()
        self._job.add_done_callback(lambda _: _safely(function))


def _settled(future: Future[None], function: Callable[[], object]) -> None:
    """Call a function as `_safely` does, and settle the future."""
    try:
        _safely(function)
    finally:
        future.set_result(None)


def _safely(function: Callable[[], object]) -> None:
    """Call a function and log the class of its error: a session that cannot be closed frees its slot too."""
    try:
        function()
    except Exception as error:  # any error of a third party's session; its message may hold the model's text
        log.error("closing an answer failed: %s", type(error).__name__)
