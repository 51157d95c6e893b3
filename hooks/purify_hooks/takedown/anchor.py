"""What named works and common text say of the next token, and how sure it is that the works are recited.

Divergence Decoding (2605.31293) adds alpha (log p_neutral - log p_works) to every row, or takes the tokens
most like the works out of it. Here the two are models of n-grams, and they change a row only while it is more
likely than not that the text is recited: a hidden Markov model of two states, "recited" and "not", whose
evidence are tokens after a long run of the works. Elsewhere the row is the LLM's, bit for bit. While a text
is recited, the works also say the tokens ahead of its place in them: see `Alignment`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from purify_hooks.takedown.alignment import Alignment

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

PLACES = 8
"""Of the places in the works where a run stands, how many are looked at, at most."""

Form = Literal["linear", "rank"]


@dataclass(frozen=True)
class TakedownRule:
    """How a row is changed: see `TakedownSource`."""

    form: Form = "linear"
    alpha: float = 3.0
    most: int = 20
    sure: int = 7
    ahead: int = 32


class Recital(NamedTuple):
    """What is known of a recital after a text: its probability, and where it stands while that is likely."""

    chance: float
    alignment: Alignment | None = None


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
    def start(self) -> Recital:
        """What is known before any token."""
        return Recital(ENTER / (ENTER + LEAVE))

    @property
    def reach(self) -> int:
        """The most tokens before a place that what is said of it depends on, beside the probability there."""
        return max(self.works.order, self.neutral.order) - 1

    def after(self, recital: Recital, text: Sequence[int], token: int) -> Recital:
        """What is known after `token`, from what was known after the tokens `text` before it.

        Bayes' rule, with p_works / p_neutral of the token where the last `sure` tokens of the text stand in
        the works, and no evidence elsewhere; then a recital may begin or end. Where the row was changed, a
        token that the works do not have is no evidence: it is what the change was to bring about.
        """
        chance, alignment = recital
        before = self._context(self.works, text)
        sure = self.works.matched(before) >= self.rule.sure
        if not sure and alignment is None:
            return Recital(chance * (1 - LEAVE) + (1 - chance) * ENTER)
        one = self._token(token)
        common = self.neutral.probability(self._context(self.neutral, text), one)
        if sure:
            ratio = self.works.probability(before, one) / common
            ratio = ratio if chance < LIKELY else max(ratio, 1.0)
            chance = chance * ratio / (chance * ratio + 1 - chance)
        chance = chance * (1 - LEAVE) + (1 - chance) * ENTER
        if chance < LIKELY:
            return Recital(chance)
        if sure or alignment is None:
            places = self.works.places(before)[:PLACES]
            alignment = Alignment.at(self.works.stream, places, self.rule.ahead)
        return Recital(chance, alignment.after(one, common))

    def change(self, recital: Recital, text: Sequence[int]) -> Change | None:
        """What is taken off the row after `text`; None: nothing.

        The tokens that follow the last one in the works or are ahead of the recital, and that the works make
        likelier than common text does: linear, alpha times log p_works / p_neutral of each; rank, the `most`
        largest are removed. p_works is the n-grams' or that of a copy, the higher one.
        """
        import numpy as np

        if recital.alignment is None:
            return None
        before = self._context(self.works, text)
        found = np.union1d(self.works.followers(before), recital.alignment.window)
        tokens = np.setdiff1d(found[(found >= 0) & (found < self.works.size)], self._kept, assume_unique=True)
        if not len(tokens):
            return None
        said = np.maximum(self.works.probabilities(before, tokens), recital.alignment.shares(tokens))
        common = self.neutral.probabilities(self._context(self.neutral, text), tokens)
        nats = np.log(said) - np.log(common)
        more = np.flatnonzero(nats > 0)
        if not len(more):
            return None
        if self.rule.form == "linear":
            return Change(tokens[more], self.rule.alpha * nats[more])
        largest = more[np.argsort(-nats[more], kind="stable")[: self.rule.most]]
        return Change(tokens[largest], np.full(len(largest), REMOVED))

    @cached_property
    def _kept(self) -> NDArray[Any]:
        import numpy as np

        return np.array(sorted(self.kept), dtype=np.int64)

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
