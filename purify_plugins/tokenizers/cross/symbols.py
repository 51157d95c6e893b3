"""The symbols that two tokenizers share: bytes, or whole tokens that both vocabularies have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from purify_plugins.types import Vocabulary

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

Kind = Literal["bytes", "common tokens"]


@dataclass(frozen=True, eq=False)
class SymbolSet:
    """Symbols 0 … n - 1, each a sequence of bytes, and symbol n, the end of the text.

    `per_token` is the average number of symbols in one of the LLM's tokens.
    """

    kind: Kind
    symbols: tuple[bytes, ...]
    per_token: float = 1.0

    @property
    def end(self) -> int:
        return len(self.symbols)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The symbols as a vocabulary, for decoders, policies and certificates."""
        end = self.end
        control = {end: "<end>"}
        return Vocabulary(
            (*self.symbols, b""), frozenset({end}), control, frozenset({end}), self.kind, self.per_token
        )

    @cached_property
    def numbers(self) -> dict[bytes, int]:
        """Bytes -> symbol id."""
        return {symbol: index for index, symbol in enumerate(self.symbols)}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.symbols))

    @cached_property
    def bytewise(self) -> bool:
        """Whether each byte is the symbol of its own number."""
        return self._longest == 1 and len(self.symbols) == 256

    def spell(self, text: bytes) -> tuple[int, ...] | None:
        """The symbols of a text by longest match; None where there is none."""
        if self.bytewise:
            return tuple(text)
        found, at = [], 0
        while at < len(text):
            sizes = range(min(self._longest, len(text) - at), 0, -1)
            size = next((size for size in sizes if text[at : at + size] in self.numbers), 0)
            if not size:
                return None
            found.append(self.numbers[text[at : at + size]])
            at += size
        return tuple(found)

    @cached_property
    def characters(self) -> Array:
        """(states, n) int8: the UTF-8 decoder's state after each symbol, from each state; -1: invalid."""
        import numpy

        after = numpy.empty((len(STATES), len(self.symbols)), dtype=numpy.int8)
        for state in range(len(STATES)):
            after[state] = [_through(state, symbol) for symbol in self.symbols]
        return after

    @cached_property
    def allowed(self) -> Array:
        """(states, n + 1) bool: the symbols allowed in each state; a text ends only between characters."""
        import numpy

        between = numpy.arange(len(STATES)) == 0
        return numpy.concatenate([self.characters >= 0, between[:, None]], axis=1)


def byte_symbols(per_token: float = 1.0) -> SymbolSet:
    """The 256 bytes."""
    return SymbolSet("bytes", tuple(bytes([byte]) for byte in range(256)), per_token)


def common_tokens(one: Vocabulary, other: Vocabulary, per_token: float = 1.0) -> SymbolSet:
    """The byte sequences that are ordinary tokens of both vocabularies."""
    return SymbolSet("common tokens", tuple(sorted(texts(one) & texts(other))), per_token)


def texts(vocabulary: Vocabulary) -> set[bytes]:
    """The byte sequences of a vocabulary's ordinary tokens."""
    silent = vocabulary.control.keys() | vocabulary.eos
    return {token for index, token in enumerate(vocabulary.tokens) if token and index not in silent}


def _range(low: int, high: int) -> Iterable[int]:
    return range(low, high + 1)


STATES: tuple[dict[int, int], ...] = (
    {  # between characters (Unicode 15, table 3-7)
        **dict.fromkeys(_range(0x00, 0x7F), 0),
        **dict.fromkeys(_range(0xC2, 0xDF), 1),
        0xE0: 2,
        **dict.fromkeys(_range(0xE1, 0xEC), 3),
        0xED: 4,
        **dict.fromkeys(_range(0xEE, 0xEF), 3),
        0xF0: 5,
        **dict.fromkeys(_range(0xF1, 0xF3), 6),
        0xF4: 7,
    },
    dict.fromkeys(_range(0x80, 0xBF), 0),  # one more byte
    dict.fromkeys(_range(0xA0, 0xBF), 1),  # after E0
    dict.fromkeys(_range(0x80, 0xBF), 1),  # two more
    dict.fromkeys(_range(0x80, 0x9F), 1),  # after ED: no surrogates
    dict.fromkeys(_range(0x90, 0xBF), 3),  # after F0
    dict.fromkeys(_range(0x80, 0xBF), 3),  # three more
    dict.fromkeys(_range(0x80, 0x8F), 3),  # after F4: nothing past U+10FFFF
)
"""For each state of the UTF-8 decoder, the bytes allowed next and the state after each."""


def _through(state: int, symbol: bytes) -> int:
    for byte in symbol:
        state = STATES[state].get(byte, -1)
        if state < 0:
            return -1
    return state
