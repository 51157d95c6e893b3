"""Top-k, top-p and min-p on a CPU without sorting the row: only the likeliest tokens are read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling

BLOCK = 512
"""Tokens of which the largest weight is computed first."""


class Truncation:
    """Top-k, top-p and min-p of a row, keeping the tokens that transformers' warpers keep."""

    def __init__(self, sampling: Sampling) -> None:
        self.top_k, self.top_p, self.min_p = sampling.top_k, sampling.top_p, sampling.min_p

    def kept(self, weights: Tensor, total: float) -> Tensor:
        """The ids, ascending, that stay possible in log-weights (V,) on a CPU; `total` is their log-sum."""
        values = weights.numpy()
        for least in _thresholds(weights):
            ids = (values >= least).nonzero()[0]
            order = ids[values[ids].argsort(kind="stable")[::-1]]
            number = self._count(values[order] - total, len(ids) == len(values), values[order[0]] - least)
            if number:
                break
        return torch.from_numpy(numpy.sort(order[:number]))

    def _count(self, logprobs: Any, complete: bool, depth: float) -> int:
        """How many of the likeliest tokens stay, likeliest first; 0 if more must be read to tell."""
        mass = numpy.exp(logprobs, dtype="float64")
        if not complete and not self._reaches(mass, depth):
            return 0
        number = len(mass)
        if self.top_k:
            number = int((logprobs >= logprobs[min(self.top_k, number) - 1]).sum())
        if self.top_p < 1:
            part = mass[:number] / (mass[:number].sum() if self.top_k else 1.0)
            number = max(1, int((part.cumsum() - part < self.top_p).sum()))
        if self.min_p:
            number = max(1, int((mass[:number] >= self.min_p * mass[0]).sum()))
        return number

    def _reaches(self, mass: Any, depth: float) -> bool:
        """Whether tokens below `depth` can neither be kept nor change which others are."""
        enough = bool(self.top_k and len(mass) > self.top_k)
        if self.top_k and self.top_p < 1:
            return enough
        nucleus = self.top_p < 1 and mass.sum() > self.top_p
        return bool(enough or nucleus or (self.min_p and self.min_p > math.exp(-depth)))


def _thresholds(weights: Tensor) -> Iterator[float]:
    """Lower bounds to read above, in turn: the half of all blocks' maxima, the least of them, none."""
    blocks = len(weights) // BLOCK
    if blocks > 8:
        tops = weights[: blocks * BLOCK].view(blocks, BLOCK).amax(dim=-1).numpy()
        yield from numpy.partition(tops, (0, blocks // 2))[[blocks // 2, 0]]
    yield -math.inf
