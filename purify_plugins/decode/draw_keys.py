"""Where the numbers that draw tokens come from: the operating system, or a secret and what was asked.

A generator that a model can run itself is the model's choice of tokens: with the next number known, it
moves its mass to where that number falls. So nothing here is a function of public things alone.
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
"""Characters that a secret has at least: 64 hexadecimal ones hold 256 bits."""
VERSION = b"purify-draws/1"
"""Names this way of drawing; another way gets another name, and so other numbers."""
_made = os.urandom(32)  # when this module is imported, so that forked workers share it; never shown
_FOUR = Struct(">4Q")


def secret() -> bytes:
    """The secret that keys seeded draws: $PURIFY_SECRET, else one made when the process started.

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
    """Whether seeded draws repeat in another process: only a secret that was given does."""
    return VARIABLE in os.environ


def adopt(made: bytes) -> None:
    """Go by the secret of the process that started this one."""
    global _made  # a process has one
    _made = made


def request(prompts: Sequence[Sequence[int]], settings: Mapping[str, Any]) -> bytes:
    """A digest of what is asked: the prompt's ids as each model read them, and JSON `settings`.

    A reader who knows a seed's numbers from one answer finds others in every other request: weights
    that read numbers out of their prompt read old ones.
    """
    found = hashlib.sha256(canonical(settings).encode())
    for tokens in prompts:
        found.update(b"%d:" % len(tokens) + array("q", tokens).tobytes())
    return found.digest()


def system() -> Iterator[float]:
    """Numbers in [0, 1) that nothing predicts."""
    return iter(SystemRandom().random, None)


def keyed(seed: int, asked: bytes, place: int = 0) -> Iterator[float]:
    """The numbers in [0, 1) of one seed and one request from a place on, by HMAC-SHA256, of 53 bits each.

    The nth four of them are the HMAC of n under a key that is the HMAC of version, seed and request
    under the deployment's secret.
    """
    key = hmac.digest(secret(), b"%s\0%d\0%s" % (VERSION, seed, asked), "sha256")
    for block in count(place // 4):
        four = _FOUR.unpack(hmac.digest(key, b"%d" % block, "sha256"))
        for number in four[max(place - 4 * block, 0) :]:
            yield (number >> 11) * 2.0**-53
