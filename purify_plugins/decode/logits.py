"""Log-weights: their sum, normalised, and refused where they are not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from purify_plugins.errors import NumericError

if TYPE_CHECKING:
    from purify_plugins.policy import FusionPolicy

SAFE = (1e-30, 1e30)
"""Sums of exponentials that float32 holds without loss; others are computed the slow way."""
HOST = frozenset({"cpu"})
"""Kinds of device whose tensors lie in this process's own memory."""

MULTIPLIED = (
    "no policy multiplies a minus infinity (0 * -inf is NaN; select with torch.where): a test class of "
    "purify_plugins.testing.PolicyConformance finds where"
)
"""What to look for in a policy that returned NaN."""


def on_cpu(tensor: Tensor) -> bool:
    """Whether the tensor is on the CPU, so that reading it needs no device synchronisation."""
    return tensor.device.type in HOST


def log_sum(weights: Tensor, who: str | FusionPolicy, may_be_empty: bool = False) -> tuple[Tensor, Tensor]:
    """Log-weights (…, V) in float32 -> the logarithm of their sum (…, 1), and masses (…, V).

    Masses are proportional to probabilities. Raises NumericError, naming `who`, on NaN, +inf, or
    (unless `may_be_empty`) a row without a possible token: a repaired row would not be any model's. On an
    accelerator nothing is raised: such a sum is not finite.
    """
    mass = exp(weights)
    total = mass.sum(dim=-1, keepdim=True)
    if on_cpu(total) and all(SAFE[0] < each < SAFE[1] for each in total.flatten().tolist()):
        return total.log(), mass
    total = torch.logsumexp(weights, dim=-1, keepdim=True)
    empty = torch.isneginf(total)
    if on_cpu(total) and not bool((torch.isfinite(total) | (empty & may_be_empty)).all()):
        raise _broken(who)
    return total, exp(weights - torch.where(empty, 0.0, total))


def exp(weights: Tensor) -> Tensor:
    """e to the power of each; on a CPU through numpy, which takes half the time."""
    if not on_cpu(weights):
        return torch.exp(weights)
    with numpy.errstate(over="ignore"):  # log_sum checks for an infinite sum
        return torch.from_numpy(numpy.exp(weights.numpy()))


def normalise(logits: Tensor, who: str) -> Tensor:
    """Logits (…, V) of any dtype -> log-probabilities in float32. Raises NumericError as `log_sum`."""
    rows = torch.log_softmax(logits.float(), dim=-1)
    if on_cpu(rows) and torch.isnan(rows[..., 0]).any():  # one such number makes the whole row NaN
        raise _broken(who)
    return rows


def argmax(weights: Tensor) -> Tensor:
    """The largest weight's token (rows,); on a CPU through numpy, which is fifteen times as fast."""
    if on_cpu(weights):
        return torch.from_numpy(weights.numpy().argmax(axis=-1))
    return weights.argmax(dim=-1)


def _broken(who: str | FusionPolicy) -> NumericError:
    who = who if isinstance(who, str) else f"the policy {type(who.original).__name__}"
    told = f"check that {MULTIPLIED}" if who.startswith("the policy") else "check its weights and dtype"
    return NumericError(f"{who} returned NaN, +inf or no possible token; {told}")
