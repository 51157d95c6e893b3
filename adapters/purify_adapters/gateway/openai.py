"""OpenAI's shapes as TGI fills them: chat completions and completions, whole and in pieces."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from purify_adapters.gateway.answers import Json, number, purified
from purify_adapters.gateway.asking import Ask
from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.spelling import Piece, Speller, full_text, others, pieces
from purify_adapters.tools import CallPiece, Plain, Reader
from purify_adapters.tools import Piece as Said
from purify_plugins.types import Chunk, Completion, Vocabulary

REASONS = {"eos": "stop", "stop": "stop_sequence", "length": "length"}
"""Why an answer ended: our word and TGI's on these routes, which is not always OpenAI's."""
STREAMED = {**REASONS, "eos": "eos_token"}
"""What TGI's streaming `/v1/completions` says, which forgets to translate."""


@dataclass(frozen=True)
class Face:
    """What every object says of its maker."""

    model: str
    fingerprint: str

    def head(self, kind: str, model: str | None = None) -> Json:
        named = model if model and model != "tgi" else self.model
        return {
            "object": kind,
            "id": "",
            "created": int(time.time()),
            "model": named,
            "system_fingerprint": self.fingerprint,
        }


def usage(asks: Sequence[Ask], completions: Sequence[Completion]) -> Json:
    read, written = sum(ask.input_length for ask in asks), sum(len(each.tokens) for each in completions)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def logprobs(found: Iterable[Piece], vocabulary: Vocabulary) -> Json:
    return {"content": [{**_logprob(p), "top_logprobs": _others(p, vocabulary)} for p in found]}


def _logprob(piece: Piece) -> Json:
    return {"token": piece.text, "logprob": number(piece.token.fused)}


def _others(piece: Piece, vocabulary: Vocabulary) -> list[Json]:
    return [_logprob(other) for other in others(piece.token, vocabulary)]


def spoken(said: Sequence[Said]) -> Json:
    """The message that pieces of an answer make together: calls if there are any, else text."""
    calls: dict[int, Json] = {}
    for piece in said:
        if isinstance(piece, CallPiece):
            call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
            call["id"], call["name"] = piece.id or call["id"], piece.name or call["name"]
            call["arguments"] += piece.arguments
    if calls:
        return {"role": "assistant", "tool_calls": [_call(call) for call in calls.values()]}
    return {"role": "assistant", "content": "".join(each for each in said if isinstance(each, str))}


def _call(call: Mapping[str, str]) -> Json:
    function = {"description": None, "name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}


def chat_completion(
    face: Face,
    model: str | None,
    ask: Ask,
    completion: Completion,
    vocabulary: Vocabulary,
    reader: Reader,
    told: bool,
) -> Json:
    """The answer to a conversation; `told` adds each token's log-probability."""
    text = full_text(completion, ask.sampling.stop, vocabulary)
    choice = {
        "index": 0,
        "message": spoken([*reader.feed(text), *reader.close()]),
        "logprobs": logprobs(pieces(completion, ask, vocabulary), vocabulary) if told else None,
        "finish_reason": REASONS[completion.finish_reason],
    }
    head = face.head("chat.completion", model)
    return {**head, "choices": [choice], "usage": usage([ask], [completion])}


class ChatEvents:
    """A chat completion in pieces."""

    done: str | None = "[DONE]"

    def __init__(
        self,
        face: Face,
        model: str | None,
        ask: Ask,
        vocabulary: Vocabulary,
        reader: Reader,
        told: bool = False,
        counted: bool = False,
    ) -> None:
        self.face, self.model, self.ask, self.reader = face, model, ask, reader
        self.told, self.counted = told, counted
        self.speller = Speller(ask, vocabulary)

    def take(self, chunk: Chunk) -> Iterator[Json]:
        for piece in self.speller.take(chunk.steps):
            yield from self._events(piece)
        if chunk.completion:
            yield from self._last(chunk.completion)

    def _events(self, piece: Piece) -> Iterator[Json]:
        if isinstance(self.reader, Plain):
            yield self._event(_delta("" if piece.special else piece.text), piece)
        elif not piece.special:
            for said in self.reader.feed(piece.text):
                yield self._event(_delta(said))

    def _last(self, completion: Completion) -> Iterator[Json]:
        piece = self.speller.last(completion)
        found = [] if piece.special else self.reader.feed(piece.text)
        *before, last = [*found, *self.reader.close()] or [""]
        for said in before:
            yield self._event(_delta(said))
        reason = REASONS[completion.finish_reason]
        yield {**self._event(_delta(last), piece, reason), "purify": purified(completion)}
        if self.counted:
            head = self.face.head("chat.completion.chunk", self.model)
            yield {**head, "choices": [], "usage": usage([self.ask], [completion])}

    def _event(self, delta: Json, piece: Piece | None = None, reason: str | None = None) -> Json:
        told = logprobs([piece], self.speller.vocabulary) if self.told and piece else None
        choice = {"index": 0, "delta": delta, "logprobs": told, "finish_reason": reason}
        return {**self.face.head("chat.completion.chunk", self.model), "choices": [choice], "usage": None}

    def error(self, why: Rejected) -> Json:
        return failure(why)


def _delta(said: Said) -> Json:
    """A piece of a message."""
    if isinstance(said, CallPiece):
        function = {"name": said.name, "arguments": said.arguments}
        call = {"index": said.index, "id": said.id or "", "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}
    return {"role": "assistant", "content": said if isinstance(said, str) else ""}


def failure(why: Rejected) -> Json:
    """An error inside a stream; TGI says 422 of all of them."""
    return {"error": {"message": why.error, "http_status_code": 422}}


def text_completion(
    face: Face, asks: Sequence[Ask], completions: Sequence[Completion], vocabulary: Vocabulary
) -> Json:
    """The answers to a batch of prompts."""
    choices = [
        _choice(index, full_text(each, ask.sampling.stop, vocabulary), REASONS[each.finish_reason])
        for index, (ask, each) in enumerate(zip(asks, completions, strict=True))
    ]
    return {**face.head("text_completion"), "choices": choices, "usage": usage(asks, completions)}


def _choice(index: int, text: str, reason: str = "") -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


class CompletionEvents:
    """One of a batch's completions in pieces."""

    done: str | None = "[DONE]"

    def __init__(self, face: Face, ask: Ask, vocabulary: Vocabulary, index: int = 0) -> None:
        self.face, self.ask, self.index = face, ask, index
        self.speller = Speller(ask, vocabulary)

    def take(self, chunk: Chunk) -> Iterator[Json]:
        for piece in self.speller.take(chunk.steps):
            yield self._event(piece)
        if completion := chunk.completion:
            piece = self.speller.last(completion)
            counted = {"usage": usage([self.ask], [completion]), "purify": purified(completion)}
            yield {**self._event(piece, STREAMED[completion.finish_reason]), **counted}

    def _event(self, piece: Piece, reason: str = "") -> Json:
        text = "" if piece.special else piece.text
        return {**self.face.head("text_completion"), "choices": [_choice(self.index, text, reason)]}

    def error(self, why: Rejected) -> Json:
        return failure(why)
