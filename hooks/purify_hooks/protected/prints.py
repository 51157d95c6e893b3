"""Prints: 64-bit hashes of so many letters in a row, of a whole text at once and letter by letter.

A print is the polynomial `sum(value(letter) * BASE**(letters after it))` modulo 2**64, where the value of a
letter is its BLAKE2b. It is not collision-resistant, and need not be: a text with the prints of a protected
work is blocked, as a copy is. In return it rolls from one letter to the next, and NumPy computes in a few
milliseconds the prints that each of 50,000 tokens would make. Its upper bits are the best mixed.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from numpy.typing import NDArray

BASE: Final = 0x9E3779B97F4A7C15
WORD: Final = 2**64 - 1


def value(symbol: str) -> int:
    """A letter's 64-bit value; 0 of a space, which stands before a text's first letter."""
    if symbol == " ":
        return 0
    return int.from_bytes(blake2b(symbol.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class Roller:
    """The prints of `length` letters, from one letter to the next."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._power = pow(BASE, length, 2**64)
        self._come: dict[str, int] = {}  # each letter's value
        self._gone: dict[str, int] = {}  # its share of a print once `length` letters follow it

    def rolled(self, print_: int, before: str, letters: str) -> list[int]:
        """The print after each of `letters`, where `before` are the `length` letters before them."""
        come, gone, last = self._come, self._gone, print_
        found: list[int] = []
        try:
            for old, new in zip(before + letters, letters, strict=False):
                last = (last * BASE + come[new] - gone[old]) & WORD
                found.append(last)
        except KeyError:
            for each in {*before, *letters} - {*come}:
                known = value(each)
                gone[each], come[each] = known * self._power & WORD, known
            return self.rolled(print_, before, letters)
        return found

    def print_of(self, letters: str) -> int:
        """The print of the last `length` letters."""
        return self.rolled(0, " " * self.length, letters[-self.length :])[-1]


def codes_of(letters: str) -> NDArray[Any]:
    """Code points (n,) uint32."""
    import numpy

    return numpy.frombuffer(letters.encode("utf-32-le", "surrogatepass"), dtype=numpy.uint32)


def values_of(codes: NDArray[Any]) -> NDArray[Any]:
    """The values uint64 of letters by their code points, in the same shape."""
    import numpy

    distinct, places = numpy.unique(codes, return_inverse=True)
    known = [value(chr(code)) for code in distinct.tolist()]
    return numpy.array(known, dtype=numpy.uint64)[places].reshape(codes.shape)


def prints_of(values: NDArray[Any], length: int) -> NDArray[Any]:
    """The prints (n - length + 1,) uint64 of n letters' values, in the order of the letters they end with."""
    import numpy

    count = max(len(values) - length + 1, 0)
    found = numpy.zeros(count, dtype=numpy.uint64)
    for at in range(length if count else 0):
        found *= numpy.uint64(BASE)
        found += values[at : at + count]
    return found
