"""OpenAI's response bodies for `/v1/responses`, whole and as events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from purify_adapters.gateway.openai_completions import ServerIdentity, logprobs
from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.request_validation import Generation
from purify_adapters.gateway.schemas import ResponseRequest
from purify_adapters.gateway.tgi_responses import purified
from purify_adapters.openai_schema import Json
from purify_adapters.tool_calls import CallPart, ChunkParser, Parser, Part, Reasoning
from purify_plugins.types import Chunk, Completion, DrawnToken, Vocabulary

INCOMPLETE = {"length": "max_output_tokens", "refused": "content_filter"}
"""OpenAI's reason for each finish reason of an answer that is not complete."""
Event = tuple[str, Json]
"""An event's type, without its prefix, and its fields."""


def head(identity: ServerIdentity, request: ResponseRequest) -> Json:
    """The fields of a response that are known from its request; it is never stored."""
    return {
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": {},
        "model": request.model or identity.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": request.temperature,
        "text": {"format": (request.text and request.text.format) or {"type": "text"}},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
        "top_p": request.top_p,
        "truncation": "disabled",
        "usage": None,
    }


def response(events: ResponseEvents, completion: Completion) -> Any:
    """A whole response: the one in a stream's last event."""
    *_, last = events.take(completion.chunk)
    return last["response"]


class ResponseEvents:
    """The events of a response: output items one after another, each added, written and done."""

    done: str | None = None

    def __init__(
        self,
        head: Json,
        generation: Generation,
        vocabulary: Vocabulary,
        parser: Parser,
        with_logprobs: bool = False,
    ) -> None:
        self.head, self.generation, self.vocabulary = head, generation, vocabulary
        self.with_logprobs = with_logprobs
        self.parser = ChunkParser(parser, vocabulary)
        self.items: list[OutputItem] = []
        self._pending: list[DrawnToken] = []
        self._number = 0

    def take(self, chunk: Chunk) -> Iterator[Json]:
        if not self._number:
            yield self._event("response.created", {"response": self.head})
            yield self._event("response.in_progress", {"response": self.head})
        self._pending += chunk.drawn if self.with_logprobs else ()
        parts = self.parser.take(chunk)
        for part in parts or ([""] if chunk.completion and not self.items else []):
            yield from self._part(part)
        if chunk.completion:
            yield from self._last(chunk.completion)

    def _part(self, part: Part) -> Iterator[Json]:
        if not (self.items and self.items[-1].takes(part)):
            yield from self._close()
            self.items.append(_item(part))
            yield from self._item_events(self.items[-1].begin())
        yield from self._item_events(self.items[-1].write(part, self._logprobs()))

    def _logprobs(self) -> list[Json]:
        """The log-probabilities of the tokens drawn since the last call."""
        drawn, self._pending = self._pending, []
        found: list[Json] = logprobs(drawn, self.vocabulary, self.generation.staged)["content"]
        return found

    def _close(self, status: str = "completed") -> Iterator[Json]:
        if self.items:
            self.items[-1].status = status
            yield from self._item_events(self.items[-1].end())

    def _last(self, completion: Completion) -> Iterator[Json]:
        cut = INCOMPLETE.get(completion.finish_reason)
        status = "incomplete" if cut else "completed"
        yield from self._close(status)
        found = {
            **self.head,
            "status": status,
            "incomplete_details": {"reason": cut} if cut else None,
            "output": [item.whole() for item in self.items],
            "usage": _usage(self.generation, completion),
        }
        yield {**self._event(f"response.{status}", {"response": found}), "purify": purified(completion)}

    def _item_events(self, events: Sequence[Event]) -> Iterator[Json]:
        """The events of the item that is open."""
        for type, fields in events:
            yield self._event(f"response.{type}", {"output_index": len(self.items) - 1, **fields})

    def _event(self, type: str, fields: Json) -> Json:
        self._number += 1
        return {"type": type, "sequence_number": self._number - 1, **fields}

    def error(self, why: Rejected) -> Json:
        fields = {"message": why.error, "code": why.error_type, "param": None}
        return {**self._event("error", fields), "error": why.openai["error"]}


def _usage(generation: Generation, completion: Completion) -> Json:
    read, written = generation.input_length, len(completion.tokens)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }


class OutputItem:
    """An output item while it is written: a message, a call or reasoning."""

    prefix: str

    def __init__(self) -> None:
        self.id = f"{self.prefix}_{uuid4().hex}"
        self.text, self.status = "", "in_progress"

    def takes(self, part: Part) -> bool:
        """Whether a part belongs to this item."""
        raise NotImplementedError

    def whole(self) -> Json:
        """The item as an object."""
        raise NotImplementedError

    def begin(self) -> list[Event]:
        return [("output_item.added", {"item": self.whole()})]

    def write(self, part: Any, logprobs: list[Json]) -> list[Event]:
        raise NotImplementedError

    def end(self) -> list[Event]:
        return [("output_item.done", {"item": self.whole()})]

    def _in(self, **fields: Any) -> Json:
        return {"item_id": self.id, **fields}


class MessageItem(OutputItem):
    prefix = "msg"

    def __init__(self) -> None:
        super().__init__()
        self.logprobs: list[Json] = []

    def takes(self, part: Part) -> bool:
        return isinstance(part, str)

    @property
    def part(self) -> Json:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": [*self.logprobs]}

    def whole(self) -> Json:
        content = [] if self.status == "in_progress" else [self.part]
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "status": self.status,
            "content": content,
        }

    def begin(self) -> list[Event]:
        return [*super().begin(), ("content_part.added", self._in(content_index=0, part=self.part))]

    def write(self, part: str, logprobs: list[Json]) -> list[Event]:
        self.text += part
        self.logprobs += logprobs
        return [("output_text.delta", self._in(content_index=0, delta=part, logprobs=logprobs))]

    def end(self) -> list[Event]:
        text = self._in(content_index=0, text=self.text, logprobs=self.logprobs)
        part = self._in(content_index=0, part=self.part)
        return [("output_text.done", text), ("content_part.done", part), *super().end()]


class CallItem(OutputItem):
    prefix = "fc"

    def __init__(self, part: CallPart) -> None:
        super().__init__()
        self.index, self.call, self.name = part.index, part.id, part.name or ""

    def takes(self, part: Part) -> bool:
        return isinstance(part, CallPart) and part.index == self.index

    def whole(self) -> Json:
        called = {"call_id": self.call, "name": self.name, "arguments": self.text}
        return {"id": self.id, "type": "function_call", "status": self.status, **called}

    def write(self, part: CallPart, logprobs: list[Json]) -> list[Event]:
        self.text += part.arguments
        return [("function_call_arguments.delta", self._in(delta=part.arguments))] * bool(part.arguments)

    def end(self) -> list[Event]:
        done = self._in(name=self.name, arguments=self.text)
        return [("function_call_arguments.done", done), *super().end()]


class ReasoningItem(OutputItem):
    prefix = "rs"

    def takes(self, part: Part) -> bool:
        return isinstance(part, Reasoning)

    def whole(self) -> Json:
        content = [] if self.status == "in_progress" else [{"type": "reasoning_text", "text": self.text}]
        return {"id": self.id, "type": "reasoning", "status": self.status, "summary": [], "content": content}

    def write(self, part: Reasoning, logprobs: list[Json]) -> list[Event]:
        self.text += part.text
        return [("reasoning_text.delta", self._in(content_index=0, delta=part.text))]

    def end(self) -> list[Event]:
        return [("reasoning_text.done", self._in(content_index=0, text=self.text)), *super().end()]


def _item(part: Part) -> OutputItem:
    if isinstance(part, CallPart):
        return CallItem(part)
    return ReasoningItem() if isinstance(part, Reasoning) else MessageItem()
