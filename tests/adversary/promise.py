"""What a certificate promises of an event, in numbers, and whether what was measured contradicts it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from scipy.optimize import brentq
from scipy.stats import binom

from purify_plugins.types import Certificate, Guarantee, Token

ONE_SIDED = 1e-3
"""A count this unlikely under the bound is a broken bound: one-sided, 99.9 %."""
GAMES = 500
"""Counts that the suite takes, at most; unseeded draws are anew each time, and CI must not be flaky."""
ALARM = 1e-4 / GAMES
"""What each of them may be unlikely by chance, so that a whole run is wrong once in ten thousand."""
ROUNDING = 3e-5
"""Nats a token: rows are float32, and a figure in a certificate has nine places."""


@dataclass(frozen=True)
class Promise:
    """A guarantee and the options it is stated in; `tokens` is the most that an answer may have."""

    guarantee: Guarantee
    options: Mapping[str, Any]
    tokens: int

    @classmethod
    def of(cls, certificate: Certificate) -> Promise:
        """What an answer's certificate says, read as a stranger reads it."""
        method = certificate.body["method"]
        options = method["parameters"]
        while "policy" in options:  # the policy is around another, whose promise it is
            options = options["policy"]
        return cls(method["guarantee"], options, method["sampling"]["max_tokens"])

    def bound(self, tokens: int, q: float) -> float:
        """How likely a passage of so many tokens, to which the SLM gives `q`, may be at a given place."""
        return min(getattr(self, f"_{self.guarantee}")(tokens, q), 1.0)

    def _none(self, tokens: int, q: float) -> float:
        return 1.0

    def _path(self, tokens: int, q: float) -> float:
        return math.exp(self.options["total"]) * q

    def _window(self, tokens: int, q: float) -> float:
        return math.exp(self.options["budget"] * math.ceil(tokens / self.options["window"])) * q

    def _passage(self, tokens: int, q: float) -> float:
        return (math.exp(self.options["budget"] + self._gap * tokens) * q) ** (
            1 / (1 + self.options["doubt"])
        )

    @property
    def _gap(self) -> float:
        return max(self.options["gap"], self.options["gap_limit"])

    def _mean(self, tokens: int, q: float) -> float:
        """No event moves further than the whole law does: KL(p‖q) of the event alone is within the budget."""
        nats = self.options["budget"] * self.tokens
        if -math.log(q) <= nats:
            return 1.0
        return float(brentq(lambda p: _kl(p, q) - nats, q, 1.0)) if nats else q

    def excess(self, law: Sequence[Sequence[Token]]) -> float:
        """By how many nats the worst of all events exceeds its bound; `law` is every answer there is."""
        if self.guarantee == "mean":
            return self._excess_on_average(law)
        return max(getattr(self, f"_excess_{self.guarantee}")(answer) for answer in law)

    def _excess_path(self, answer: Sequence[Token]) -> float:
        """A set of answers gains at most what the luckiest of them does."""
        return sum(step.ratio for step in answer) - self.options["total"]

    def _excess_window(self, answer: Sequence[Token]) -> float:
        gains, width = [max(step.ratio, 0.0) for step in answer], int(self.options["window"])
        return max(sum(gains[at : at + width]) for at in range(len(gains))) - self.options["budget"]

    def _excess_passage(self, answer: Sequence[Token]) -> float:
        costs = ((1 + self.options["doubt"]) * step.fused - step.slm - self._gap for step in answer)
        return max(_runs(costs)) - self.options["budget"]

    def _excess_on_average(self, law: Sequence[Sequence[Token]]) -> float:
        shares = [math.exp(sum(step.fused for step in answer)) for answer in law]
        spent = [sum(step.ratio for step in answer) for answer in law]
        allowed = [self.options["budget"] * len(answer) for answer in law]
        return sum(p * (k - most) for p, k, most in zip(shares, spent, allowed, strict=True) if p)


def _kl(p: float, q: float) -> float:
    """KL of two coins, in nats."""
    heads = p * math.log(p / q) if p else 0.0
    return heads + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


def _runs(costs: Iterable[float]) -> Iterable[float]:
    """The largest sum of a run that ends at each place."""
    return accumulate(costs, lambda run, cost: max(run, 0.0) + cost, initial=-math.inf)


def unlikely(hits: int, draws: int, bound: float) -> float:
    """How likely so many hits or more would be, were each draw's chance the bound itself."""
    return float(binom.sf(hits - 1, draws, min(bound, 1.0)))
