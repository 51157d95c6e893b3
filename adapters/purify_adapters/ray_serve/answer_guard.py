"""What a proxy adds to an answer whose replica has died: a refusal, or a stream's error event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.sse import event

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LAST = b'"purify":'
"""In the last event of an answer and in no other: a quotation mark inside a JSON string is escaped."""
DONE = b"data: [DONE]\n\n"
OPENAI = (b'"object":"chat.completion.chunk"', b'"object":"text_completion"')
RESPONSES = b'"type":"response.'
"""What marks an event's dialect: `/invocations` answers in that of the request."""


def died(before: bool) -> Rejected:
    """A replica that died, or Serve's time limit passed, before or after the answer began."""
    message = "Request failed during generation: the replica has died, or took too long"
    return Rejected(503, message, "overloaded" if before else "generation", retry_after="1")


class AnswerGuard:
    """An ASGI middleware of Serve's HTTP proxy: every answer ends, and whatever fails is typed.

    Serve itself breaks the connection of a stream whose replica dies, answers with an empty 500 before its
    first byte, and refuses in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Serve's own routes
            await self.app(scope, receive, send)
            return
        answer = GuardedAnswer(scope, receive, send)
        await self.app(scope, receive, answer.take)
        await answer.end()


class GuardedAnswer:
    """One answer on its way through the proxy."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.started = self.streams = self.whole = self.ended = False
        self.openai = scope["path"].startswith("/v1/")
        self.responses = scope["path"] == "/v1/responses"
        self.events = 0
        self._refused: int | None = None

    async def take(self, message: Message) -> None:
        """Pass a message on; Serve's own refusals are replaced by typed ones."""
        if message["type"] == "http.response.start":
            self._start(message)
        elif message["type"] == "http.response.body":
            self._body(message.get("body", b""))
            self.ended |= not message.get("more_body", False)
        if self._refused is None:
            await self.send(message)
        elif self.ended:
            await self._respond(
                Rejected(self._refused, REASONS[self._refused], "overloaded", retry_after="1")
            )

    def _start(self, message: Message) -> None:
        kind = dict(message.get("headers", ())).get(b"content-type", b"")
        self.started, self.streams = True, kind.startswith(b"text/event-stream")
        if message["status"] in REASONS and kind.startswith(b"text/plain"):  # the gateway's own are JSON
            self._refused = message["status"]

    def _body(self, body: bytes) -> None:
        self.events += 1
        self.responses |= RESPONSES in body
        self.openai |= any(mark in body for mark in OPENAI)
        several = self.openai and not self.responses  # answers in one stream, which [DONE] ends
        self.whole |= body == DONE if several else LAST in body

    async def end(self) -> None:
        """End the answer, if the replica has not."""
        if self.ended:
            return
        if not self.started:
            await self._respond(died(before=True))
        elif self.streams:
            last = b"" if self.whole else event(self._event(died(before=False)))
            await self.send({"type": "http.response.body", "body": last})

    async def _respond(self, why: Rejected) -> None:
        response: Response = why.response(self.scope["path"])
        await response(self.scope, self.receive, self.send)

    def _event(self, why: Rejected) -> dict[str, Any]:
        """The error event, in the stream's dialect."""
        if self.responses:
            fields = {"message": why.error, "code": why.error_type, "param": None}
            return {"type": "error", "sequence_number": self.events, **fields, "error": why.openai["error"]}
        return why.openai if self.openai else why.body


REASONS = {
    408: "The time limit of Serve's proxy has passed",
    429: "Model is overloaded",
    503: "Model is overloaded, or no replica is up",
}
"""Serve's own refusals."""
