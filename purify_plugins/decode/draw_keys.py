"""Sources of random numbers: the operating system, or an HMAC keyed by a secret, a seed and the request.

A model that can compute the next number chooses its token: it moves its mass to where that number falls. So
no number is a function of public values alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from random import SystemRandom
from struct import Struct
from typing import Any

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import ConfigError

VARIABLE = "PURIFY_SECRET"
"""The environment variable with the deployment's secret."""
LEAST = 32
"""The least length of a secret in characters; 64 hexadecimal ones hold 256 bits."""
VERSION = b"purify-draws/1"
"""The version of the construction below, which is part of its key."""
_made = os.urandom(32)  # when this module is imported, so that forked workers share it; never shown
_FOUR = Struct(">4Q")


def secret() -> bytes:
    """The secret that keys seeded draws: $PURIFY_SECRET, else a random one of this process.

    Raises ConfigError for one too short to be a secret; no error shows it.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return _made
    if len(given) < LEAST:
        raise ConfigError(
            f"{VARIABLE} has {len(given)} characters and needs {LEAST} or more that nobody can guess; "
            "make one with `openssl rand -hex 32`, or unset it"
        )
    return given.encode(errors="surrogateescape")


def kept() -> bool:
    """Whether seeded draws repeat in another process: only with a secret in $PURIFY_SECRET."""
    return VARIABLE in os.environ


def adopt(made: bytes) -> None:
    """Use the secret of the parent process."""
    global _made  # a process has one
    _made = made


def request(prompts: Sequence[Sequence[int]], settings: Mapping[str, Any]) -> bytes:
    """A digest of a request: the prompt's ids as each model read them, and JSON `settings`."""
    # With this in the key, a seed's numbers differ from request to request: numbers learned from one answer,
    # and put into a prompt for the weights to read, are of no use in another.
    found = hashlib.sha256(canonical(settings).encode())
    for tokens in prompts:
        found.update(b"%d:" % len(tokens) + array("q", tokens).tobytes())
    return found.digest()


def system() -> Iterator[float]:
    """Unpredictable numbers in [0, 1), from the operating system."""
    return iter(SystemRandom().random, None)


def keyed(seed: int, asked: bytes, place: int = 0) -> Iterator[float]:
    """Numbers in [0, 1) of one seed and one request, from position `place` on: HMAC-SHA256, 53 bits each.

    The nth four of them are the HMAC of n under a key that is the HMAC of version, seed and request
    under the deployment's secret.
    """
    key = hmac.digest(secret(), b"%s\0%d\0%s" % (VERSION, seed, asked), "sha256")
    for block in count(place // 4):
        four = _FOUR.unpack(hmac.digest(key, b"%d" % block, "sha256"))
        for number in four[max(place - 4 * block, 0) :]:
            yield (number >> 11) * 2.0**-53


class KeyedPlaces:
    """The numbers of `keyed` by position: a digest for every four asked for in order, else two each."""

    def __init__(self, seed: int, asked: bytes) -> None:
        self.seed, self.asked = seed, asked
        self._numbers, self._next = keyed(seed, asked), 0

    def at(self, place: int) -> float:
        """The number at a position."""
        if place != self._next:
            self._numbers = keyed(self.seed, self.asked, place)
        self._next = place + 1
        return next(self._numbers)
