"""Tokens' texts as the wire has them: TGI's tokens, OpenAI's log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from purify_plugins.types import Completion, Piece, Token, Vocabulary


def alone(token: Token, vocabulary: Vocabulary) -> Piece:
    """A token as if it stood alone: bytes that are half a character read as U+FFFD."""
    return Piece(
        token, vocabulary.control.get(token.id) or vocabulary.tokens[token.id].decode(errors="replace")
    )


def others(token: Token, vocabulary: Vocabulary) -> list[Piece]:
    """The likeliest tokens of the row that one was drawn from, each as if it stood alone."""
    return [alone(token._replace(id=other, fused=logprob), vocabulary) for other, logprob in token.top]


def full_text(completion: Completion, stop: Sequence[str]) -> str:
    """The answer as TGI gives it: the stop string that ended it stays."""
    if completion.finish_reason != "stop":
        return completion.text
    decoded = "".join(text for _, text in completion.drawn)
    ends = [end for end in stop if decoded.startswith(end, len(completion.text))]
    return completion.text + min(ends, key=len, default="")


def token_texts(completion: Completion, stop: Sequence[str]) -> list[Piece]:
    """The tokens of an answer as TGI gives them: their texts add up to `full_text`."""
    *before, last = completion.drawn
    written = sum(len(text) for _, text in before)
    return [*before, last._replace(text=full_text(completion, stop)[written:])]
