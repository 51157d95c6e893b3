"""A text that is forced, and how likely it was: what teacher forcing takes and gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from purify_plugins.types import Prompt


class ForcedText(NamedTuple):
    """A prompt, and the token ids of the answer that is forced; the first `given` are not asked about."""

    prompt: Prompt
    tokens: tuple[int, ...]
    given: int = 0


@dataclass(frozen=True)
class Likelihood:
    """Each token of a continuation and its fused log-probability (nats).

    `likeliest` is the arg-max at each place, for an answer written greedily that is this text until there.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    likeliest: tuple[int, ...]

    @property
    def nats(self) -> float:
        """log p of the whole; minus infinity where a token has probability 0."""
        return math.fsum(self.logprobs)

    @property
    def leads(self) -> tuple[bool, ...]:
        """Whether each token is the arg-max."""
        return tuple(one == other for one, other in zip(self.tokens, self.likeliest, strict=True))

    @property
    def greedy(self) -> bool:
        """Whether greedy decoding would produce it."""
        return self.tokens == self.likeliest

    @property
    def run(self) -> int:
        """How many of its first tokens greedy decoding would produce."""
        return sum(1 for _ in takewhile(bool, self.leads))
