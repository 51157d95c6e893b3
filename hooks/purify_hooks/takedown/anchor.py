"""What named works and common text say of the next token, and how sure it is that the works are recited.

Divergence Decoding (2605.31293) adds alpha (log p_neutral - log p_works) to every row, or takes the tokens
most like the works out of it. Here the two are models of n-grams, and they change a row only while it is more
likely than not that the text is recited: a hidden Markov model of two states, "recited" and "not", whose
evidence are tokens after a long run of the works. Elsewhere the row is the LLM's, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from purify_hooks.ngram.model import NgramModel

ENTER, LEAVE = 1e-6, 0.02
"""The chances, before each token, that a recital begins and that one has ended."""
LIKELY = 0.5
"""The probability that the text is recited from which on a row is changed."""
REMOVED = 60.0
"""Nats taken off a token in the rank form: finite, so that a row that a grammar narrows to it stays a row."""
ABSENT = 2**32 - 1
"""Stands for a token that the n-grams' tokenizer lacks; no n-gram has it."""

Form = Literal["linear", "rank"]


@dataclass(frozen=True)
class TakedownRule:
    """How a row is changed: see `TakedownSource`."""

    form: Form = "linear"
    alpha: float = 3.0
    most: int = 20
    sure: int = 7


class Change(NamedTuple):
    """Tokens (K,) int64 and the nats (K,) float64, above 0, that are taken off them."""

    tokens: NDArray[Any]
    nats: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Anchor:
    """A model of the named works, one of common text in the same tokens, and the rule.

    `kept` are tokens that are never changed: end tokens and control tokens.
    """

    works: NgramModel
    neutral: NgramModel
    rule: TakedownRule = field(default_factory=TakedownRule)
    kept: frozenset[int] = frozenset()

    @property
    def start(self) -> float:
        """The probability of a recital before any token."""
        return ENTER / (ENTER + LEAVE)

    @property
    def reach(self) -> int:
        """The most tokens before a place that what is said of it depends on, beside the probability there."""
        return max(self.works.order, self.neutral.order) - 1

    def after(self, recited: float, text: Sequence[int], token: int) -> float:
        """The probability of a recital after `token`, from that after the tokens `text` before it.

        Bayes' rule, with p_works / p_neutral of the token where the last `sure` tokens of the text stand in
        the works, and no evidence elsewhere; then a recital may begin or end.
        """
        before = self._context(self.works, text)
        if self.works.matched(before) >= self.rule.sure:
            one = self._token(token)
            ratio = self.works.probability(before, one) / self.neutral.probability(
                self._context(self.neutral, text), one
            )
            recited = recited * ratio / (recited * ratio + 1 - recited)
        return recited * (1 - LEAVE) + (1 - recited) * ENTER

    def change(self, recited: float, text: Sequence[int]) -> Change | None:
        """What is taken off the row after `text`; None: nothing.

        The tokens that follow the last one in the works, and that the works make likelier than common text
        does: linear, alpha times log p_works / p_neutral of each; rank, the `most` largest are removed.
        """
        import numpy as np

        if recited < LIKELY:
            return None
        before = self._context(self.works, text)
        found = self.works.followers(before)
        tokens = found[[each not in self.kept for each in found.tolist()]] if len(found) else found
        said = self.works.probabilities(before, tokens)
        common = self.neutral.probabilities(self._context(self.neutral, text), tokens)
        nats = np.log(said) - np.log(common)
        more = np.flatnonzero(nats > 0)
        if not len(more):
            return None
        if self.rule.form == "linear":
            return Change(tokens[more], self.rule.alpha * nats[more])
        largest = more[np.argsort(-nats[more], kind="stable")[: self.rule.most]]
        return Change(tokens[largest], np.full(len(largest), REMOVED))

    def _context(self, model: NgramModel, text: Sequence[int]) -> list[int]:
        """The tokens that a model's row after `text` depends on, BEGIN before a text that is shorter."""
        wanted = model.order - 1
        last = [*map(self._token, text[-wanted:])]
        return [model.size, *last][-wanted:]

    def _token(self, token: int) -> int:
        return token if 0 <= token < self.works.size else ABSENT


def kept_mass(probabilities: Sequence[float], nats: Sequence[float]) -> float:
    """What is left of a row's mass 1 where `nats` are taken off tokens of these probabilities."""
    return 1.0 - math.fsum(p * -math.expm1(-n) for p, n in zip(probabilities, nats, strict=True))
