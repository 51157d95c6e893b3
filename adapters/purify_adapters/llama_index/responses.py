"""Completions as LlamaIndex's responses, whole or in chunks, with usage and certificate facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
)

from purify_adapters.llama_index.messages import message_of, selections
from purify_adapters.openai_schema import shown, usage
from purify_adapters.tool_calls import ChunkParser, Parser, Part, PlainParser, text_in
from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Chunk, Completion, DrawnToken, Prompt, Vocabulary


@dataclass(frozen=True)
class LlmRequest:
    """One parsed call: the prompt, the sampling, and what the response should hold."""

    prompt: Prompt
    sampling: Sampling
    model: str
    vocabulary: Vocabulary
    reader: Callable[[], Parser] = PlainParser
    logprobs: bool = False
    certificate: bool = False
    whole: bool = False
    tool_required: bool = False
    user: str | None = None

    def completed(self, completion: Completion, delta: str | None = None) -> CompletionResponse:
        """The whole answer as a completion."""
        return CompletionResponse(text=completion.text, delta=delta, **self._facts(completion))

    def answered(
        self, completion: Completion, pieces: Sequence[Part], delta: str | None = None
    ) -> ChatResponse:
        """The whole answer as a message; raises SourceError if it lacks a tool call it must have."""
        message = message_of(pieces)
        missing = self.tool_required and not selections(message)
        if missing and completion.finish_reason != "refused":  # the operator's text calls no tool
            raise SourceError("the answer calls no tool, though one was required; raise max_tokens")
        return ChatResponse(message=message, delta=delta, **self._facts(completion))

    def _facts(self, completion: Completion) -> dict[str, Any]:
        if self.whole and completion.finish_reason == "length":
            raise SourceError(
                "the answer reached max_tokens, or the end of a model's context, before its JSON was whole; "
                "raise max_tokens, or bound the schema's strings and lists"
            )
        facts: dict[str, Any] = {"raw": self.raw(completion)}
        if self.logprobs:
            pieces = shown(completion.drawn, self.vocabulary, completion.certificate.staged)
            facts["logprobs"] = [[self._logprob(piece, completion)] for piece in pieces]
        return facts

    def _logprob(self, piece: DrawnToken, completion: Completion) -> LogProb:
        """A token's log-probability in the fused row, from which it was drawn."""
        token, text = piece
        spelled = text.encode() if completion.certificate.staged else self.vocabulary.tokens[token.id]
        return LogProb(token=spelled.decode(errors="replace"), logprob=token.fused, bytes=list(spelled))

    def raw(self, completion: Completion) -> dict[str, Any]:
        """The `raw` of a response: usage as LlamaIndex's token counters expect it, certificate facts."""
        proof = completion.certificate
        purification = {
            "digest": proof.digest,
            "policy": proof.decoded["method"]["policy"],
            "guarantee": proof.guarantee,
            "log_ratio": proof.log_ratio,
        }
        return {
            "model": self.model,
            "finish_reason": completion.finish_reason,
            "usage": usage(len(proof.decoded["prompt"]), len(completion.tokens)),
            "purification": {**purification, **({"certificate": proof.issued} if self.certificate else {})},
        }


class CompletionPieces:
    """Turns the chunks of an answer into the responses of `stream_complete`."""

    def __init__(self, request: LlmRequest) -> None:
        self.request = request
        self.text = ""

    def take(self, chunk: Chunk) -> CompletionResponse | None:
        """The response for a chunk; None for one without text, unless it is the last."""
        if chunk.completion is not None:
            return self.request.completed(chunk.completion, chunk.text)
        self.text += chunk.text
        return CompletionResponse(text=self.text, delta=chunk.text) if chunk.text else None


class ChatPieces:
    """Turns the chunks of an answer into the responses of `stream_chat`.

    Text is passed on as it comes; the last response has the tool calls.
    """

    def __init__(self, request: LlmRequest) -> None:
        self.request = request
        self.text = ""
        self._reading = ChunkParser(request.reader(), request.vocabulary)
        self._pieces: list[Part] = []

    def take(self, chunk: Chunk) -> ChatResponse | None:
        """The response for a chunk; None for one without text, unless it is the last."""
        new = self._reading.take(chunk)
        self._pieces += new
        delta = text_in(new)
        if chunk.completion is not None:
            return self.request.answered(chunk.completion, self._pieces, delta)
        self.text += delta
        message = ChatMessage(role=MessageRole.ASSISTANT, content=self.text)
        return ChatResponse(message=message, delta=delta) if delta else None
