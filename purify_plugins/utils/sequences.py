"""Comparing sequences."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def leading(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The number of leading items (tokens, characters, words) that are equal."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, yours) in pairs if mine != yours), min(len(one), len(other)))


def new_contexts(tokens: Sequence[int], length: int) -> list[tuple[int, tuple[int, ...]]]:
    """The places after `length` tokens that stand before no earlier place, and these tokens."""
    seen: dict[tuple[int, ...], int] = {}
    for place in range(length, len(tokens)):
        seen.setdefault(tuple(tokens[place - length : place]), place)
    return [(place, context) for context, place in seen.items()]
