"""Comparing sequences."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def leading(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The number of leading items (tokens, characters, words) that are equal."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, yours) in pairs if mine != yours), min(len(one), len(other)))
