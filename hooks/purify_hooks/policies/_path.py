"""The geometric path from the SLM to the LLM, q_θ ∝ p_slm^(1-θ) p_llm^θ, and the largest θ within a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ._base import wide

if TYPE_CHECKING:
    from torch import Tensor

NEWTON = 16  # rounds; language models' rows take 6, the worst seen 11
ROUNDS = 48
EVERYTHING = 1e30  # added to a finite log-probability it exceeds any other; -inf stays
APART = -32.0  # nats: where no token is likelier than this under both models, float32 is too coarse


class Point(NamedTuple):
    """One row at one θ: log Z, and the mean and variance of log p_llm/p_slm under q_θ."""

    theta: float
    log_z: float
    mean: float
    variance: float


Cost = Callable[[Point], tuple[float, float]]
"""Of a point on the path: a value that never falls as θ grows, and its slope."""


class Path(NamedTuple):
    """Both rows on the tokens they share: the SLM's log-probabilities and log p_llm/p_slm, (rows, V).

    In float64, where the device has it, if the models have all but nothing in common: at a temperature of
    0.001 rows are thousands of nats apart, and what is left when these cancel is a float32's last digits.
    """

    slm: Tensor
    ratio: Tensor

    @classmethod
    def between(cls, slm: Tensor, llm: Tensor) -> Path:
        import torch

        from purify_plugins.decode.random_streams import widest

        slm, llm = wide(slm), wide(llm)
        if bool((torch.minimum(slm, llm).amax(dim=-1) < APART).any()):
            slm, llm = (row.to(widest(row.device)) for row in (slm, llm))
        ratio = (llm - slm).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        return cls(torch.minimum(slm, llm + EVERYTHING), ratio)

    def at(self, thetas: Sequence[float]) -> Tensor:
        """log q_θ up to a constant, one θ per row; tokens that either model rules out stay out."""
        import torch

        return torch.addcmul(self.slm, self.ratio, self.slm.new_tensor(thetas)[:, None])

    def distribution(self, thetas: Sequence[float]) -> Tensor:
        """log q_θ, one θ per row, its likeliest token at 0: a narrower float holds what matters."""
        tilted = self.at(thetas)
        return tilted - tilted.amax(dim=-1, keepdim=True).clamp(min=-EVERYTHING)

    def points(self, thetas: Sequence[float]) -> list[Point]:
        """Each row's point at its θ; NaN for rows without a shared token."""
        tilted = self.at(thetas)
        peak = tilted.amax(dim=-1, keepdim=True)
        mass = tilted.sub_(peak).exp_()
        z = mass.sum(dim=-1)
        mean = mass.mul_(self.ratio).sum(dim=-1) / z
        square = mass.mul_(self.ratio).sum(dim=-1) / z
        columns = (z.log_().add_(peak[:, 0]), mean, square - mean * mean)
        return [Point(*row) for row in zip(thetas, *(column.tolist() for column in columns), strict=True)]

    def largest_theta(self, cost: Cost, limits: Sequence[float], slack: float) -> list[float]:
        """Each row's largest θ in [0, 1] whose cost is within its limit; 0 where none is.

        Both ends first, then Newton inside a bracket. What is returned is on the near side of the
        limit, by at most `slack` or as close as floating point allows.
        """
        rows = [_Search(limit, slack) for limit in limits]
        for round_ in range(ROUNDS):
            if all(row.done for row in rows):
                break
            for row, point in zip(rows, self.points([row.theta for row in rows]), strict=True):
                row.look(*cost(point), round_)
        return [row.low for row in rows]


@dataclass
class _Search:
    """One row's bracket: `low` is within the limit, `high` is not, `theta` is evaluated next."""

    limit: float
    slack: float
    low: float = 0.0
    high: float = 1.0
    theta: float = 1.0
    done: bool = False

    def look(self, value: float, slope: float, round_: int) -> None:
        """Update the bracket with the cost at `theta`; round 0 evaluates θ = 1, round 1 θ = 0."""
        if self.done:
            return
        fits = value <= self.limit
        if round_ < 2:
            self.done = fits if round_ == 0 else not fits  # NaN does not fit
            self.low = 1.0 if self.done and fits else 0.0
            self.theta = 0.5 * round_
            return
        self.low, self.high = (self.theta, self.high) if fits else (self.low, self.theta)
        close = fits and value >= self.limit - self.slack
        self.done = close or self.high - self.low <= 1e-7
        self.theta = self.low if self.done else self._next(value, slope, round_)

    def _next(self, value: float, slope: float, round_: int) -> float:
        """Newton's guess; the middle where that leaves the bracket, or has had rounds enough."""
        guess = self.theta + (self.limit - self.slack / 2 - value) / slope if slope > 0 else math.inf
        return guess if self.low < guess < self.high and round_ < NEWTON else (self.low + self.high) / 2
