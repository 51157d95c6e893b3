"""Texts as lists of tokens: `/tokenize` and `/chat_tokenize`."""

from __future__ import annotations

from collections.abc import Sequence

from purify_adapters.gateway.answers import Json
from purify_plugins.types import Vocabulary


def listed(tokens: Sequence[int], vocabulary: Vocabulary, text: str | None = None) -> list[Json]:
    """Every token, and the bytes of `text` it covers; control tokens cover none."""
    spelled = [vocabulary.tokens[token] for token in tokens]
    surplus = 0 if text is None else max(len(b"".join(spelled)) - len(text.encode()), 0)
    found, at = [], -surplus  # a SentencePiece model writes a space before the first word
    for token, piece in zip(tokens, spelled, strict=True):
        start, at = max(at, 0), at + len(piece)
        name = vocabulary.control.get(token, piece.decode(errors="replace"))
        found.append({"id": token, "text": name, "start": start, "stop": max(at, 0)})
    return found


def templated(tokens: Sequence[int], vocabulary: Vocabulary) -> str:
    """A rendered chat, control tokens by their names."""
    named = (vocabulary.control.get(t, "").encode() or vocabulary.tokens[t] for t in tokens)
    return b"".join(named).decode(errors="replace")
