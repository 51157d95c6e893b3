"""OpenAI's response bodies for `/v1/chat/completions` and `/v1/completions`, whole and as events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self
from uuid import uuid4

from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.request_validation import Generation
from purify_adapters.gateway.tgi_responses import purified
from purify_adapters.openai_schema import (
    Json,
    alternatives,
    finish_reason,
    number,
    shown,
    usage,
)
from purify_adapters.tool_calls import (
    CallPart,
    ChunkParser,
    Parser,
    Part,
    Reasoning,
    parts_of,
    reasoning_in,
    text_in,
)
from purify_plugins.types import Chunk, Completion, DrawnToken, Vocabulary

PREFIXES = {"chat.completion": "chatcmpl", "chat.completion.chunk": "chatcmpl", "text_completion": "cmpl"}


@dataclass(frozen=True)
class ServerIdentity:
    """The model's name and the server's fingerprint, which every object has."""

    model: str
    fingerprint: str

    def head(self, kind: str, model: str | None = None) -> Json:
        """The fields that all chunks of one answer share."""
        return {
            "object": kind,
            "id": f"{PREFIXES[kind]}-{uuid4().hex}",
            "created": int(time.time()),
            "model": model if model and model != "tgi" else self.model,
            "system_fingerprint": self.fingerprint,
        }


def total_usage(generations: Sequence[Generation], completions: Sequence[Completion]) -> Json:
    """The tokens read and written for a batch."""
    return usage(
        sum(each.input_length for each in generations), sum(len(each.tokens) for each in completions)
    )


# Chats


def logprobs(drawn: Iterable[DrawnToken], vocabulary: Vocabulary, staged: bool) -> Json:
    """Each token's log-probability in the fused row, and those of the row's likeliest tokens."""
    content = [
        {
            **_logprob(piece, vocabulary, staged),
            "top_logprobs": [_logprob(other, vocabulary) for other in alternatives(piece.token, vocabulary)],
        }
        for piece in shown(drawn, vocabulary, staged)
    ]
    return {"content": content, "refusal": None}


def _logprob(piece: DrawnToken, vocabulary: Vocabulary, staged: bool = False) -> Json:
    control = staged or piece.token.id in vocabulary.control
    raw = piece.text.encode() if control else vocabulary.tokens[piece.token.id]
    return {"token": piece.text, "logprob": number(piece.token.fused), "bytes": list(raw)}


def _message(parts: Sequence[Part]) -> Json:
    """The assistant's message that the parts of an answer make."""
    calls: dict[int, Json] = {}
    for part in parts:
        if isinstance(part, CallPart):
            call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
            call["id"], call["name"] = part.id or call["id"], part.name or call["name"]
            call["arguments"] += part.arguments
    text, reasoning = text_in(parts), reasoning_in(parts)
    found: Json = {"role": "assistant", "content": text if text or not calls else None}
    if reasoning:
        found["reasoning_content"] = reasoning
    if calls:
        found["tool_calls"] = [_function_call(**call) for call in calls.values()]
    return found


def _function_call(id: str, name: str, arguments: str) -> Json:
    """A call of a function."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def chat_completion(
    head: Json,
    generations: Sequence[Generation],
    completions: Sequence[Completion],
    vocabulary: Vocabulary,
    parsers: Sequence[Parser],
    with_logprobs: bool,
) -> Json:
    """The answers to a conversation, one a generation."""
    choices = []
    for index, completion in enumerate(completions):
        answer = _message(parts_of(parsers[index], completion, vocabulary))
        staged = generations[index].staged
        choice = {
            "index": index,
            "message": answer,
            "logprobs": logprobs(completion.drawn, vocabulary, staged) if with_logprobs else None,
            "finish_reason": finish_reason(completion, "tool_calls" in answer),
        }
        choices.append(choice)
    return {**head, "choices": choices, "usage": total_usage(generations, completions)}


class ChatEvents:
    """The events of one of a chat's completions; the first has the role, the last the finish reason.

    Those of the last completion have the usage of all, if requested.
    """

    done: str | None = "[DONE]"

    def __init__(
        self,
        head: Json,
        generations: Sequence[Generation],
        index: int,
        vocabulary: Vocabulary,
        parser: Parser,
        finished: list[Completion],
        with_logprobs: bool = False,
        include_usage: bool = False,
    ) -> None:
        self.head, self.generations, self.vocabulary = head, generations, vocabulary
        self.index, self.finished = index, finished
        self.with_logprobs, self.include_usage = with_logprobs, include_usage
        self.parser = ChunkParser(parser, vocabulary)
        self._begun = False

    @classmethod
    def batch(
        cls,
        head: Json,
        generations: Sequence[Generation],
        vocabulary: Vocabulary,
        parsers: Sequence[Parser],
        *options: bool,
    ) -> list[Self]:
        """One for each of a chat's answers, which are written one after another."""
        finished: list[Completion] = []
        return [
            cls(head, generations, at, vocabulary, parser, finished, *options)
            for at, parser in enumerate(parsers)
        ]

    def take(self, chunk: Chunk) -> Iterator[Json]:
        deltas = [_delta(part) for part in self.parser.take(chunk)]
        if not deltas and (self.with_logprobs and chunk.drawn):
            deltas = [{"content": ""}]
        for at, delta in enumerate(deltas):
            yield self._event(delta, () if at else chunk.drawn)
        if chunk.completion:
            yield from self._last(chunk.completion)

    def _last(self, completion: Completion) -> Iterator[Json]:
        end = {} if self.parser.called else {"content": ""}  # clients of TGI's add the contents up
        reason = finish_reason(completion, self.parser.called)
        yield {**self._event(end, (), reason), "purify": purified(completion)}
        self.finished.append(completion)
        if self.include_usage and len(self.finished) == len(self.generations):
            yield {**self.head, "choices": [], "usage": total_usage(self.generations, self.finished)}

    def _event(self, delta: Json, drawn: Sequence[DrawnToken] = (), reason: str | None = None) -> Json:
        role = {} if self._begun else {"role": "assistant"}
        self._begun = True
        wanted = self.with_logprobs and drawn
        staged = self.generations[self.index].staged
        likely = logprobs(drawn, self.vocabulary, staged) if wanted else None
        choice = {
            "index": self.index,
            "delta": {**role, **delta},
            "logprobs": likely,
            "finish_reason": reason,
        }
        return {**self.head, "choices": [choice], **({"usage": None} if self.include_usage else {})}

    def error(self, why: Rejected) -> Json:
        return why.openai


class OldChatEvents(ChatEvents):
    """The same for `text-generation` 0.7.0, which was written for TGI 2.

    It needs the role and `tool_calls` in every delta, and parses `[DONE]` as JSON.
    """

    done = None

    def _event(self, delta: Json, drawn: Sequence[DrawnToken] = (), reason: str | None = None) -> Json:
        return super()._event({"role": "assistant", "tool_calls": None, **delta}, drawn, reason)


def _delta(part: Part) -> Json:
    """A part of a message; a call's first part has its name."""
    if isinstance(part, Reasoning):
        return {"reasoning_content": part.text}
    if isinstance(part, str):
        return {"content": part}
    function: Json = {"arguments": part.arguments}
    call: Json = {"index": part.index, "function": function}
    if part.id is not None:
        call |= {"id": part.id, "type": "function"}
        function["name"] = part.name or ""
    return {"tool_calls": [call]}


# Completions


def text_completion(
    head: Json, generations: Sequence[Generation], completions: Sequence[Completion], vocabulary: Vocabulary
) -> Json:
    """The answers to a batch of prompts."""
    choices = [
        _choice(index, each.text, _listed(each.drawn, vocabulary, 0, generation), finish_reason(each))
        for index, (generation, each) in enumerate(zip(generations, completions, strict=True))
    ]
    return {**head, "choices": choices, "usage": total_usage(generations, completions)}


def _choice(index: int, text: str, logprobs: Json | None, reason: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _listed(
    drawn: Sequence[DrawnToken], vocabulary: Vocabulary, start: int, generation: Generation
) -> Json | None:
    """Log-probabilities in the form of completions: one list a field; `start` is the first token's offset."""
    if not generation.logprobs:
        return None
    pieces, offsets = shown(drawn, vocabulary, generation.staged), []
    for token, text in pieces:
        offsets.append(start)
        start += 0 if token.id in vocabulary.control else len(text)
    tops = [
        {other.text: number(other.token.fused) for other in alternatives(token, vocabulary)}
        for token, _ in pieces
    ]
    return {
        "tokens": [text for _, text in pieces],
        "token_logprobs": [number(token.fused) for token, _ in pieces],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


class CompletionEvents:
    """The events of one of a batch's completions; the last one's have the usage of all, if requested."""

    done: str | None = "[DONE]"

    def __init__(
        self,
        head: Json,
        generations: Sequence[Generation],
        index: int,
        vocabulary: Vocabulary,
        finished: list[Completion],
        include_usage: bool,
    ) -> None:
        self.head, self.generations, self.index, self.generation = (
            head,
            generations,
            index,
            generations[index],
        )
        self.vocabulary, self.finished, self.include_usage = vocabulary, finished, include_usage
        self._written = 0

    @classmethod
    def batch(
        cls,
        head: Json,
        generations: Sequence[Generation],
        vocabulary: Vocabulary,
        include_usage: bool = False,
    ) -> list[CompletionEvents]:
        """One for each of a batch, which are written one after another."""
        finished: list[Completion] = []
        return [
            cls(head, generations, at, vocabulary, finished, include_usage) for at in range(len(generations))
        ]

    def take(self, chunk: Chunk) -> Iterator[Json]:
        if chunk.text or (self.generation.logprobs and chunk.drawn):
            yield self._event(chunk.text, chunk.drawn)
        if completion := chunk.completion:
            self.finished.append(completion)
            yield {
                **self._event("", (), finish_reason(completion)),
                "purify": purified(completion),
            }
            if self.include_usage and len(self.finished) == len(self.generations):
                yield {**self.head, "choices": [], "usage": total_usage(self.generations, self.finished)}

    def _event(self, text: str, drawn: Sequence[DrawnToken] = (), reason: str | None = None) -> Json:
        likely = _listed(drawn, self.vocabulary, self._written, self.generation) if drawn else None
        self._written += len(text)
        choices = [_choice(self.index, text, likely, reason)]
        return {**self.head, "choices": choices, **({"usage": None} if self.include_usage else {})}

    def error(self, why: Rejected) -> Json:
        return why.openai
