"""A watermark at no cost in distribution: draws keyed by a secret and the last tokens of the answer.

Each token takes part in a race: token v, of fused probability r(v), arrives after E(v)/r(v), where the E are
independent exponential numbers, and the first to arrive is drawn. That is a draw from r (Gumbel-max; Aaronson
2022, Kirchenbauer et al. 2023, Kuditipudi et al. 2024). With a watermark the E are a keyed function of the
last `context` tokens, so who has the key can compute how early each token of a text was.
"""

from __future__ import annotations

import hmac
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy

from purify_plugins.errors import ConfigError

VERSION = b"purify-watermark/1"
"""The version of the construction, which is part of its key."""
LEAST = 32
"""The least length of a key in characters; 64 hexadecimal ones hold 256 bits."""
LONGEST = 64
"""The longest context in tokens."""


@dataclass(frozen=True)
class Watermark:
    """The secret and the number of `context` tokens that key a draw.

    Raises ConfigError for a key that is too short, which no error shows, and for a context out of range.
    """

    key: bytes = field(repr=False)
    context: int = 4

    def __post_init__(self) -> None:
        if len(self.key) < LEAST:
            raise ConfigError(
                f"the watermark's key has {len(self.key)} characters and needs {LEAST} or more that nobody "
                "can guess; make one with `openssl rand -hex 32`"
            )
        if not 1 <= self.context <= LONGEST:
            raise ConfigError(f"the watermark's context is 1 to {LONGEST} tokens, not {self.context}")

    @cached_property
    def id(self) -> str:
        """Which key it is, for certificates: 128 bits of a keyed digest, which tell nothing of the key."""
        return hmac.digest(self.key, VERSION + b"\0id", "sha256")[:16].hex()

    def seed(self, context: Sequence[int]) -> int:
        """The 128-bit seed of the draw after these tokens."""
        return _number(hmac.digest(self.key, VERSION + b"\0" + array("q", context).tobytes(), "sha256"))


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:16], "big")


def race(seed: int, size: int) -> Any:
    """(size,) float64 exponential numbers: token v's comes from the Philox word v under this key."""
    return -numpy.log(_uniform(numpy.random.Philox(key=seed).random_raw(size)))


def race_of(seed: int, token: int) -> float:
    """`race` of one token, without the others."""
    words = numpy.random.Philox(key=seed, counter=token // 4).random_raw(4)
    return float(-numpy.log(_uniform(words[token % 4 :][:1]))[0])


def _uniform(words: Any) -> Any:
    """Numbers in (0, 1), 53 bits each: never 0 or 1, so that no exponential number is infinite or 0."""
    return ((words >> numpy.uint64(11)) + 0.5) * 2.0**-53
