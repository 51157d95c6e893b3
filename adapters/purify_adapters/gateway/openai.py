"""OpenAI's shapes: chat completions and completions, whole and in pieces."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from purify_adapters.gateway.answers import Json, number, purified
from purify_adapters.gateway.asking import Ask
from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.spelling import alone, others
from purify_adapters.tool_calls import CallPiece, Reader, Reading, Reasoning, pieces_of, thought
from purify_adapters.tool_calls import Piece as Said
from purify_plugins.types import Chunk, Completion, Piece, Token, Vocabulary

REASONS = {"eos": "stop", "stop": "stop", "length": "length"}
"""Why an answer ended: our word and OpenAI's."""
PREFIXES = {"chat.completion": "chatcmpl", "chat.completion.chunk": "chatcmpl", "text_completion": "cmpl"}


@dataclass(frozen=True)
class Face:
    """What every object says of its maker."""

    model: str
    fingerprint: str

    def head(self, kind: str, model: str | None = None) -> Json:
        """The fields that all the chunks of one answer share."""
        return {
            "object": kind,
            "id": f"{PREFIXES[kind]}-{uuid4().hex}",
            "created": int(time.time()),
            "model": model if model and model != "tgi" else self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage(asks: Sequence[Ask], completions: Sequence[Completion]) -> Json:
    read, written = sum(ask.input_length for ask in asks), sum(len(each.tokens) for each in completions)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def reason(completion: Completion, called: bool) -> str:
    """Why an answer ended; one that was cut short in a call says so."""
    cut = completion.finish_reason == "length"
    return "tool_calls" if called and not cut else REASONS[completion.finish_reason]


# Chats


def logprobs(tokens: Iterable[Token], vocabulary: Vocabulary) -> Json:
    """Each token's log-probability in the fused row, beside its likeliest neighbours'."""
    content = [
        {
            **_logprob(alone(token, vocabulary), vocabulary),
            "top_logprobs": [_logprob(other, vocabulary) for other in others(token, vocabulary)],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _logprob(piece: Piece, vocabulary: Vocabulary) -> Json:
    name = vocabulary.control.get(piece.token.id)
    raw = vocabulary.tokens[piece.token.id] if name is None else name.encode()
    return {"token": piece.text, "logprob": number(piece.token.fused), "bytes": list(raw)}


def spoken(said: Sequence[Said]) -> Json:
    """The message that pieces of an answer make together."""
    calls: dict[int, Json] = {}
    for piece in said:
        if isinstance(piece, CallPiece):
            call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
            call["id"], call["name"] = piece.id or call["id"], piece.name or call["name"]
            call["arguments"] += piece.arguments
    text, reasoning = "".join(each for each in said if isinstance(each, str)), thought(said)
    found: Json = {"role": "assistant", "content": text if text or not calls else None}
    if reasoning:
        found["reasoning_content"] = reasoning
    if calls:
        found["tool_calls"] = [_call(call) for call in calls.values()]
    return found


def _call(call: Json) -> Json:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}


def chat_completion(
    head: Json, ask: Ask, completion: Completion, vocabulary: Vocabulary, reader: Reader, told: bool
) -> Json:
    """The answer to a conversation; `told` adds each token's log-probability."""
    message = spoken(pieces_of(reader, completion, vocabulary))
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs(completion.steps, vocabulary) if told else None,
        "finish_reason": reason(completion, "tool_calls" in message),
    }
    return {**head, "choices": [choice], "usage": usage([ask], [completion])}


class ChatEvents:
    """A chat completion in pieces; the first names the role, the last says why the answer ended."""

    done: str | None = "[DONE]"

    def __init__(
        self,
        head: Json,
        ask: Ask,
        vocabulary: Vocabulary,
        reader: Reader,
        told: bool = False,
        counted: bool = False,
    ) -> None:
        self.head, self.ask, self.vocabulary = head, ask, vocabulary
        self.told, self.counted = told, counted
        self.reading = Reading(reader, vocabulary)
        self._begun = False

    def take(self, chunk: Chunk) -> Iterator[Json]:
        deltas = [_delta(piece) for piece in self.reading.take(chunk)]
        if not deltas and (self.told and chunk.steps):
            deltas = [{"content": ""}]
        for at, delta in enumerate(deltas):
            yield self._event(delta, () if at else chunk.steps)
        if chunk.completion:
            yield from self._last(chunk.completion)

    def _last(self, completion: Completion) -> Iterator[Json]:
        end = {} if self.reading.called else {"content": ""}  # clients of TGI's add the contents up
        why = reason(completion, self.reading.called)
        yield {**self._event(end, (), why), "purify": purified(completion)}
        if self.counted:
            yield {**self.head, "choices": [], "usage": usage([self.ask], [completion])}

    def _event(self, delta: Json, tokens: Sequence[Token] = (), reason: str | None = None) -> Json:
        role = {} if self._begun else {"role": "assistant"}
        self._begun = True
        told = logprobs(tokens, self.vocabulary) if self.told and tokens else None
        choice = {"index": 0, "delta": {**role, **delta}, "logprobs": told, "finish_reason": reason}
        return {**self.head, "choices": [choice], **({"usage": None} if self.counted else {})}

    def error(self, why: Rejected) -> Json:
        return why.openai


class OldChatEvents(ChatEvents):
    """The same for `text-generation` 0.7.0, which stopped at TGI 2.

    It wants the role and `tool_calls` in every delta, and takes `[DONE]` for JSON: TGI 3 breaks it.
    """

    done = None

    def _event(self, delta: Json, tokens: Sequence[Token] = (), reason: str | None = None) -> Json:
        return super()._event({"role": "assistant", "tool_calls": None, **delta}, tokens, reason)


def _delta(said: Said) -> Json:
    """A piece of a message; a call's first piece names it."""
    if isinstance(said, Reasoning):
        return {"reasoning_content": said.text}
    if isinstance(said, str):
        return {"content": said}
    function: Json = {"arguments": said.arguments}
    call: Json = {"index": said.index, "function": function}
    if said.id is not None:
        call |= {"id": said.id, "type": "function"}
        function["name"] = said.name or ""
    return {"tool_calls": [call]}


# Completions


def text_completion(
    head: Json, asks: Sequence[Ask], completions: Sequence[Completion], vocabulary: Vocabulary
) -> Json:
    """The answers to a batch of prompts."""
    choices = [
        _choice(index, each.text, _listed(each.steps, vocabulary, 0, ask.told), REASONS[each.finish_reason])
        for index, (ask, each) in enumerate(zip(asks, completions, strict=True))
    ]
    return {**head, "choices": choices, "usage": usage(asks, completions)}


def _choice(index: int, text: str, logprobs: Json | None, reason: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _listed(tokens: Sequence[Token], vocabulary: Vocabulary, start: int, told: bool) -> Json | None:
    """Log-probabilities as completions have them: one list each; `start` is the first token's place."""
    if not told:
        return None
    found, offsets = [alone(token, vocabulary) for token in tokens], []
    for token, text in found:
        offsets.append(start)
        start += 0 if token.id in vocabulary.control else len(text)
    tops = [{other.text: number(other.token.fused) for other in others(t, vocabulary)} for t in tokens]
    return {
        "tokens": [piece.text for piece in found],
        "token_logprobs": [number(token.fused) for token in tokens],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


class CompletionEvents:
    """One of a batch's completions in pieces; the last one tells the usage of all, where it is asked for."""

    done: str | None = "[DONE]"

    def __init__(
        self,
        head: Json,
        asks: Sequence[Ask],
        index: int,
        vocabulary: Vocabulary,
        finished: list[Completion],
        counted: bool,
    ) -> None:
        self.head, self.asks, self.index, self.ask = head, asks, index, asks[index]
        self.vocabulary, self.finished, self.counted = vocabulary, finished, counted
        self._written = 0

    @classmethod
    def several(
        cls, head: Json, asks: Sequence[Ask], vocabulary: Vocabulary, counted: bool = False
    ) -> list[CompletionEvents]:
        """One for each of a batch, which are written one after another."""
        finished: list[Completion] = []
        return [cls(head, asks, at, vocabulary, finished, counted) for at in range(len(asks))]

    def take(self, chunk: Chunk) -> Iterator[Json]:
        if chunk.text or (self.ask.told and chunk.steps):
            yield self._event(chunk.text, chunk.steps)
        if completion := chunk.completion:
            self.finished.append(completion)
            yield {
                **self._event("", (), REASONS[completion.finish_reason]),
                "purify": purified(completion),
            }
            if self.counted and len(self.finished) == len(self.asks):
                yield {**self.head, "choices": [], "usage": usage(self.asks, self.finished)}

    def _event(self, text: str, tokens: Sequence[Token] = (), reason: str | None = None) -> Json:
        told = _listed(tokens, self.vocabulary, self._written, self.ask.told and bool(tokens))
        self._written += len(text)
        choices = [_choice(self.index, text, told, reason)]
        return {**self.head, "choices": choices, **({"usage": None} if self.counted else {})}

    def error(self, why: Rejected) -> Json:
        return why.openai
