"""The parts of OpenAI's and TGI's wire formats that several adapters write: reasons, usage, tokens."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from purify_plugins.canonical_json import canonical
from purify_plugins.types import Completion, DrawnToken, Token, Vocabulary

Json = dict[str, Any]
TGI_FINISH_REASONS = {
    "eos": "eos_token",
    "stop": "stop_sequence",
    "length": "length",
    "refused": "eos_token",
}
"""TGI's word for each finish reason; of an operator's text, which it has no word for, that of an end."""


def finish_reason(completion: Completion, called: bool = False) -> str:
    """OpenAI's finish reason; "tool_calls" for a complete answer that calls a tool (`called`)."""
    if completion.finish_reason == "refused":
        return "content_filter"
    if completion.finish_reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


def usage(prompt: int, answer: int) -> dict[str, int]:
    """How many tokens were read and written."""
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def fingerprint_of(facts: Mapping[str, Any]) -> str:
    """SHA-256 of facts in canonical JSON: equal for answers that depend on the same things."""
    return hashlib.sha256(canonical(facts).encode()).hexdigest()


def number(logprob: float) -> float | None:
    """A log-probability (nats); JSON has no infinity."""
    return logprob if math.isfinite(logprob) else None


def token_text(token: int, vocabulary: Vocabulary) -> str:
    """A token as if it stood alone: a control token's name; bytes of an incomplete character as U+FFFD."""
    return vocabulary.control.get(token) or vocabulary.tokens[token].decode(errors="replace")


def shown(drawn: Iterable[DrawnToken], vocabulary: Vocabulary, staged: bool) -> list[DrawnToken]:
    """Tokens as their log-probabilities name them: as if each stood alone.

    Of an answer that stages made, by the text that was released of each: a part of it may not have been.
    """
    if staged:
        return list(drawn)
    return [DrawnToken(token, token_text(token.id, vocabulary)) for token, _ in drawn]


def alternatives(token: Token, vocabulary: Vocabulary) -> list[DrawnToken]:
    """The likeliest tokens of the fused row that a token was drawn from, each as if it stood alone."""
    return [
        DrawnToken(token._replace(id=other, fused=logprob), token_text(other, vocabulary))
        for other, logprob in token.top
    ]
