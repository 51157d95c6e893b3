"""Server-sent events: one `data:` line each, and comments during silence."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

AHEAD = 16
"""The most events that are written before the client has read them."""
Emit = Callable[[bytes], Awaitable[None]]


LINE_ENDS = re.compile("[\u0085\u2028\u2029]")
"""Characters that JSON leaves unescaped and that `str.splitlines`, which some clients use, splits at."""


def encoded(data: Any) -> bytes:
    """JSON on one line, also for clients that split lines with `str.splitlines`."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return LINE_ENDS.sub(lambda end: f"\\u{ord(end[0]):04x}", text).encode()


def event(data: Mapping[str, Any] | str) -> bytes:
    """The bytes of an event, named by its `type` if it has one. Nothing in `data` can end its line."""
    if isinstance(data, str):
        return b"data: %b\n\n" % data.encode()
    name = b"event: %b\n" % str(data["type"]).encode() if "type" in data else b""
    return b"%bdata: %b\n\n" % (name, encoded(data))


async def leaving(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response whose events `write` emits, in its own task, at most AHEAD of them before the client reads.

    An error before the first event is raised by `begin`, while there is still a status to choose; a
    later one becomes the event that `failure` makes of it, and the stream ends there.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        write: Callable[[Emit], Awaitable[None]],
        failure: Callable[[Exception], bytes],
        headers: Mapping[str, str],
        silence: float,
        limit: float,
    ) -> None:
        super().__init__(None, headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self.failure, self.silence, self.limit = failure, silence, limit
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue(AHEAD)
        self._begun = asyncio.Event()
        self._task = asyncio.create_task(self._write(write))
        self._task.add_done_callback(self._ended)

    async def _write(self, write: Callable[[Emit], Awaitable[None]]) -> None:
        try:
            await write(self._emit)
        except Exception as error:  # any error that ends an answer becomes an event
            if not self._begun.is_set():
                raise
            await self._events.put(self.failure(error))
        await self._events.put(None)

    async def _emit(self, event: bytes) -> None:
        await self._events.put(event)
        self._begun.set()

    async def begin(self, receive: Receive) -> None:
        """Wait for the first event, at most `silence` seconds: then the headers and a comment are due."""
        gone, begun = asyncio.create_task(leaving(receive)), asyncio.create_task(self._begun.wait())
        try:
            first = {gone, begun, self._task}
            await asyncio.wait(first, timeout=self.silence, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self._task.cancel()
            elif self._task.done():
                self._task.result()
            self._begun.set()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        finally:
            gone.cancel()
            begun.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(leaving(receive))
        gone.add_done_callback(lambda _: self._task.cancel())
        try:
            async with asyncio.timeout(self.limit):
                await self._send(send)
        except TimeoutError:
            pass  # the client has not read for so long: close its connection
        finally:
            gone.cancel()
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Wake the sender of a stream that was cancelled. `exception()` keeps asyncio from logging it."""
        if (task.cancelled() or task.exception()) and not self._events.full():
            self._events.put_nowait(None)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while (body := await self._next()) is not None:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if not self._task.cancelled():
            await send({"type": "http.response.body", "body": b""})

    async def _next(self) -> bytes | None:
        if self._task.cancelled():
            return None
        try:
            async with asyncio.timeout(self.silence):
                return await self._events.get()
        except TimeoutError:
            return b":\n\n"
