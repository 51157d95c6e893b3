"""TGI's own shapes: `/generate`, `/generate_stream`, `POST /`. Every number in them is of the fused row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from purify_adapters.gateway.asking import Ask
from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.spelling import Piece, Speller, full_text, others, pieces
from purify_plugins.types import Chunk, Completion, Vocabulary

REASONS = {"eos": "eos_token", "stop": "stop_sequence", "length": "length"}
"""Why an answer ended: our word and TGI's."""

Json = dict[str, Any]


def number(logprob: float) -> float | None:
    """A log-probability; JSON has no infinity."""
    return logprob if math.isfinite(logprob) else None


def token(piece: Piece) -> Json:
    return {
        "id": piece.token.id,
        "text": piece.text,
        "logprob": number(piece.token.fused),
        "special": piece.special,
    }


def tops(piece: Piece, vocabulary: Vocabulary) -> list[Json]:
    """The likeliest tokens of the row that a piece was drawn from."""
    return [token(other) for other in others(piece.token, vocabulary)]


def seed(ask: Ask) -> int | None:
    return None if ask.sampling.greedy else ask.sampling.seed


def purified(completion: Completion) -> Json:
    """What a stream's last event says beyond TGI: the certificate, its guarantee, the SLM's own tokens."""
    certificate = completion.certificate
    return {
        "certificate": certificate.digest,
        "guarantee": certificate.guarantee,
        "slm_only": slm_only(completion),
    }


def slm_only(completion: Completion) -> int:
    return sum(step.slm_only for step in completion.steps)


def generated(
    completion: Completion, ask: Ask, vocabulary: Vocabulary, details: bool, prefix: str = ""
) -> Json:
    """The answer; `details` are left out, not null, when nobody asked for them."""
    text = prefix + full_text(completion, ask.sampling.stop, vocabulary)
    if not details:
        return {"generated_text": text}
    spelled = pieces(completion, ask, vocabulary)
    found = {
        "finish_reason": REASONS[completion.finish_reason],
        "generated_tokens": len(completion.tokens),
        "seed": seed(ask),
        "prefill": [],
        "tokens": [token(piece) for piece in spelled],
    }
    if ask.top:
        found["top_tokens"] = [tops(piece, vocabulary) for piece in spelled]
    return {"generated_text": text, "details": found}


class TokenEvents:
    """A stream of tokens; the last event brings the whole text."""

    done: str | None = None

    def __init__(self, ask: Ask, vocabulary: Vocabulary, details: bool, prefix: str = "") -> None:
        self.ask, self.details, self.prefix = ask, details, prefix
        self.speller = Speller(ask, vocabulary)
        self.index = 0

    def take(self, chunk: Chunk) -> Iterator[Json]:
        for piece in self.speller.take(chunk.steps):
            yield self._event(piece)
        if chunk.completion:
            yield self._last(chunk.completion)

    def _event(self, piece: Piece) -> Json:
        self.index += 1
        shown = {"top_tokens": tops(piece, self.speller.vocabulary)} if self.ask.top else {}
        return {"index": self.index, "token": token(piece), **shown, "generated_text": None, "details": None}

    def _last(self, completion: Completion) -> Json:
        text = full_text(completion, self.ask.sampling.stop, self.speller.vocabulary)
        return {
            **self._event(self.speller.last(completion)),
            "generated_text": self.prefix + text,
            "details": self._details(completion) if self.details else None,
            "purify": purified(completion),
        }

    def _details(self, completion: Completion) -> Mapping[str, Any]:
        return {
            "finish_reason": REASONS[completion.finish_reason],
            "generated_tokens": len(completion.tokens),
            "seed": seed(self.ask),
            "input_length": self.ask.input_length,
        }

    def error(self, why: Rejected) -> Json:
        return {"error": why.error, "error_type": why.error_type or "validation"}
