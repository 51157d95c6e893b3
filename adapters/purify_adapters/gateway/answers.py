"""TGI's own shapes: `/generate`, `/generate_stream`, `POST /`. Every number in them is of the fused row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from purify_adapters.gateway.asking import Ask
from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.spelling import full_text, others, token_texts
from purify_plugins.types import Chunk, Completion, Piece, Token, Vocabulary

REASONS = {"eos": "eos_token", "stop": "stop_sequence", "length": "length"}
"""Why an answer ended: our word and TGI's."""

Json = dict[str, Any]


def number(logprob: float) -> float | None:
    """A log-probability; JSON has no infinity."""
    return logprob if math.isfinite(logprob) else None


def token(piece: Piece, vocabulary: Vocabulary) -> Json:
    """A token; control tokens are `special`, and their text is no part of the answer's."""
    name = vocabulary.control.get(piece.token.id)
    return {
        "id": piece.token.id,
        "text": piece.text if name is None else name,
        "logprob": number(piece.token.fused),
        "special": name is not None,
    }


def tops(drawn: Token, vocabulary: Vocabulary) -> list[Json]:
    """The likeliest tokens of the row that a token was drawn from."""
    return [token(other, vocabulary) for other in others(drawn, vocabulary)]


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
    text = prefix + full_text(completion, ask.sampling.stop)
    if not details:
        return {"generated_text": text}
    found = {
        "finish_reason": REASONS[completion.finish_reason],
        "generated_tokens": len(completion.tokens),
        "seed": seed(ask),
        "prefill": [],
        "tokens": [token(piece, vocabulary) for piece in token_texts(completion, ask.sampling.stop)],
    }
    if ask.top:
        found["top_tokens"] = [tops(step, vocabulary) for step in completion.steps]
    return {"generated_text": text, "details": found}


class TokenEvents:
    """A stream of tokens; the last event brings the whole text.

    The answer's last token is held back until the answer is whole: the last event is that token's. An
    answer that a plugin ended early has one event more, whose token has no text.
    """

    done: str | None = None

    def __init__(self, ask: Ask, vocabulary: Vocabulary, details: bool, prefix: str = "") -> None:
        self.ask, self.vocabulary, self.details, self.prefix = ask, vocabulary, details, prefix
        self.index = self.length = 0

    def take(self, chunk: Chunk) -> Iterator[Json]:
        for piece in chunk.drawn[:-1] if chunk.ended else chunk.drawn:
            self.length += len(piece.text)
            yield self._event(piece)
        if chunk.completion:
            yield self._last(chunk.completion)

    def _event(self, piece: Piece) -> Json:
        self.index += 1
        shown = {"top_tokens": tops(piece.token, self.vocabulary)} if self.ask.top else {}
        about = {"index": self.index, "token": token(piece, self.vocabulary)}
        return {**about, **shown, "generated_text": None, "details": None}

    def _last(self, completion: Completion) -> Json:
        text = full_text(completion, self.ask.sampling.stop)
        last = Piece(completion.steps[-1], text[self.length :])
        return {
            **self._event(last),
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
