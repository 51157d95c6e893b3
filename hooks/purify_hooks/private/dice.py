"""`Dice`: numbers that follow from a secret key and a value alone."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
SPARE = 1 << 64
"""How many times larger than a throw the number behind it is: no outcome is likelier by more than 2**-64."""


class Dice:
    """Numbers derived by HMAC-SHA256 from `key` and `what`: the same in every process that has the key."""

    def __init__(self, key: bytes, *what: str) -> None:
        self._mac = hmac.new(key, repr(what).encode("utf-8", "surrogatepass"), "sha256")
        self._number, self._size = int.from_bytes(self._mac.digest(), "big"), 1 << 256

    def below(self, end: int) -> int:
        """A number from 0 up to `end`, which is not among them."""
        if self._size < end * SPARE:
            self._mac.update(b"more")
            self._number, self._size = int.from_bytes(self._mac.digest(), "big"), 1 << 256
        self._number, found = divmod(self._number, end)
        self._size //= end
        return found

    def pick(self, pool: Sequence[T]) -> T:
        return pool[self.below(len(pool))]

    def like(self, pools: Iterable[str]) -> str:
        """A text with one character of each pool; of one with a single character without a throw."""
        found = []
        for pool in pools:
            end = len(pool)
            if self._size < end * SPARE:
                found.append(self.pick(pool))
            elif end > 1:
                self._number, at = divmod(self._number, end)
                self._size //= end
                found.append(pool[at])
            else:
                found.append(pool)
        return "".join(found)

    def digits(self, count: int) -> str:
        return "".join(self.pick("0123456789") for _ in range(count))
