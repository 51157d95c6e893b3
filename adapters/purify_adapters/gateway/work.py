"""Decoding on worker threads: a step of an answer whenever its reader is ready for the next."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from purify_adapters.gateway.rejections import cut_short, ended, overloaded, stopping
from purify_adapters.sources.http.event_loop import PendingRequest

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Chunk, Completion, Prompt

T = TypeVar("T")
log = logging.getLogger("purify.gateway")


class Work:
    """The threads that decode, and how many answers may be under way.

    A slow reader holds up nobody: its next token is not asked for until it has taken the last. A
    reader that leaves is forgotten at once: what was asked of a model's server is cancelled, the step that
    was running ends on its thread, closes both models' sessions, and only then frees its place.
    """

    def __init__(self, purifier: Purifier, most: int, queue: int, deadline: float) -> None:
        self.purifier, self.deadline = purifier, deadline
        self.pool = ThreadPoolExecutor(most, "purify-decode")
        self.most, self.queue = most, queue
        self.running = 0
        self.stopped = self.over = False
        self._line: deque[asyncio.Future[None]] = deque()
        self._turns: set[asyncio.Timeout] = set()

    @property
    def waiting(self) -> int:
        return len(self._line)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Place]:
        """A place among the answers under way, and a deadline for all that is done with it.

        Raises Rejected: 429 where the queue is full, 503 while stopping; TimeoutError.
        """
        if self.stopped:
            raise stopping()
        try:
            async with asyncio.timeout(self.deadline) as turn, self._entered(turn) as place:
                yield place
        except TimeoutError:
            if self.over:
                raise ended() from None
            raise

    @asynccontextmanager
    async def _entered(self, turn: asyncio.Timeout) -> AsyncIterator[Place]:
        self._turns.add(turn)
        try:
            await self._enter()
            place = Place(self)
            try:
                yield place
            finally:
                place.leave()
        finally:
            self._turns.discard(turn)

    async def _enter(self) -> None:
        """First come, first served."""
        if self.running < self.most:
            self.running += 1
            return
        if self.waiting >= self.queue:
            raise overloaded()
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(called)
        try:
            await called
        except asyncio.CancelledError:
            if called in self._line:
                self._line.remove(called)
            else:
                self.leave()  # called and gone in one moment
            raise

    def leave(self) -> None:
        """Give a place to the next in line."""
        if not self._line:
            self.running -= 1
        elif not (called := self._line.popleft()).done():
            called.set_result(None)
        else:
            self.leave()

    def stop(self, after: float) -> None:
        """Let nobody in any more, and end what is still running `after` that many seconds."""
        self.stopped = True
        asyncio.get_running_loop().call_later(after, self._end)

    def _end(self) -> None:
        self.over = True
        for turn in self._turns:
            if not turn.expired():
                turn.reschedule(0)

    def close(self) -> None:
        """Free the threads; what runs in them ends with its step."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class Place:
    """One request's place; free again when the last of its steps has ended."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._loop = asyncio.get_running_loop()
        self._left = False
        self._asking = PendingRequest()
        self._job: Future[Any] = Future()
        self._job.set_result(None)

    async def stream(self, prompt: Prompt, sampling: Sampling, top: int = 0) -> AsyncGenerator[Chunk, None]:
        """The answer's chunks, each when it is asked for; ended by whoever stops asking."""
        chunks = self.work.purifier.replace(top=top).stream(prompt, sampling)
        try:
            while (chunk := await self._next(chunks)) is not None:
                yield chunk
        finally:
            self._afterwards(chunks.close)

    def whole(self, prompt: Prompt, sampling: Sampling, top: int = 0) -> Completion:
        """The answer, on the calling thread, until its reader leaves. Raises Rejected if cut short."""
        with closing(self.work.purifier.replace(top=top).stream(prompt, sampling)) as chunks:
            for chunk in chunks:
                if chunk.completion:
                    return chunk.completion
                if self._left:
                    break
        raise cut_short()

    async def _next(self, chunks: Any) -> Chunk | None:
        return await self.run(lambda: next(chunks, None))

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that computes, off the event loop but in its context; one at a time."""
        context = copy_context()
        context.run(self._asking.enter)
        job = self._job = self.work.pool.submit(context.run, function)
        return await asyncio.wrap_future(job)

    def leave(self) -> None:
        """Free the place as soon as nothing runs in it; a request to a model's server is ended now."""
        self._left = True
        self._asking.end()
        self._afterwards(lambda: self._loop.call_soon_threadsafe(self.work.leave))

    def _afterwards(self, function: Callable[[], object]) -> None:
        """Call `function` when the last step has ended: now, or on its thread."""
        self._job.cancel()
        self._job.add_done_callback(lambda _: _safely(function))


def _safely(function: Callable[[], object]) -> None:
    """A session that cannot be closed is no reason to keep its place."""
    try:
        function()
    except Exception as error:  # whatever a stranger's session raises; its words may be the model's
        log.error("closing an answer failed: %s", type(error).__name__)
