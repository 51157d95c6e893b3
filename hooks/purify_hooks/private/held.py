"""`HeldText`: whether a text holds others, of which there may be many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

RUN = 6
"""The characters of a run."""
LONG = 20_000
"""The characters from which a text's runs are kept; a search of a shorter one costs less."""
BITS = 22
"""A run is kept as so many bits of its hash: a megabyte has a quarter of them."""

FACTOR, MIXED = 1_000_003, 0x9E3779B97F4A7C15
"""A polynomial's factor, and a multiplier of Fibonacci hashing."""


class HeldText:
    """Tells whether a text holds another one; of a long text by its runs of characters first.

    So thousands of questions about a megabyte take the time of a few searches.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def holds(self, other: str) -> bool:
        if len(self.text) >= LONG and not all(self._runs[each] for each in _each(other)):
            return False
        return other in self.text

    @cached_property
    def _runs(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether a run with a hash stands in the text: (2**BITS,)."""
        seen = np.zeros(1 << BITS, dtype=np.bool_)
        seen[_hashes(self.text)] = True
        return seen


def _hashes(text: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Hashes of a text's runs: (len(text) - RUN + 1,), each below 2**BITS."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    count = len(codes) - RUN + 1
    found = np.zeros(count, dtype=np.uint64)
    for at in range(RUN):
        found = found * np.uint64(FACTOR) + codes[at : at + count]
    return found * np.uint64(MIXED) >> np.uint64(64 - BITS)


def _each(text: str) -> Iterator[int]:
    """The same, one after another: of a short text they cost less."""
    for start in range(len(text) - RUN + 1):
        found = 0
        for character in text[start : start + RUN]:
            found = found * FACTOR + ord(character)
        yield found * MIXED % (1 << 64) >> 64 - BITS
