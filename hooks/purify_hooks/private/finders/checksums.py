"""Checksums of numbers that people and companies have; each takes digits or letters without separators."""

from __future__ import annotations

from collections.abc import Sequence


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: cards, Canada's SIN, IMEIs."""
    return _luhn(digits) % 10 == 0


def _luhn(digits: str) -> int:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return sum(map(int, digits[-1::-2])) + sum(doubled)


def mod97(text: str) -> bool:
    """ISO 7064 MOD 97-10 over the rearranged text, as in ISO 13616: IBANs."""
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of the digits, each times its weight."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))
