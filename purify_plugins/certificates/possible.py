"""Whether a step's figures are consistent with one row from which one token was drawn.

No model is needed. A check here can refute figures, never confirm them: the LLM's side (`fused`, `kl`,
`peak`, `revealed`, `hidden`) is confirmed by recomputing with both models, or by a signature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.figures import tokens_of
from purify_plugins.errors import ForgedError

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Token

PLACE = 1e-4  # nats; figures of float32 rows, added up over a wide vocabulary
SHARE = 2e-6  # of a figure, for its own last places
MASS = 1e-6  # a probability's


def check_steps(rows: Sequence[Sequence[Any]], sampling: Sampling) -> None:
    """Raise ForgedError, naming the step, for figures that contradict each other."""
    for at, step in enumerate(tokens_of(rows)):
        if wrong := _wrong(step, sampling):
            raise ForgedError(f"step {at} cannot be as it is recorded: {wrong}")


def _wrong(step: Token, sampling: Sampling) -> str:
    """The inconsistency of a step; empty: none."""
    near = _near(step, sampling)
    if not (step.slm <= near and step.fused <= near):
        return "a probability above 1"
    if not (-MASS <= step.revealed <= 1 + MASS and -MASS <= step.hidden <= 1 + MASS):
        return "`revealed` and `hidden` are shares of 1"
    if step.slm_only and not _same(step.fused, step.slm, near):
        return "a token of the SLM alone has the SLM's probability"
    return _pointed(step) if sampling.greedy else _spread(step, near)


def _near(step: Token, sampling: Sampling) -> float:
    """The tolerance of the step's figures in nats; a low temperature magnifies rounding errors of logits."""
    figures = (step.slm, step.fused, step.kl, step.peak)
    share = SHARE * sum(abs(each) for each in figures if math.isfinite(each))
    return PLACE * max(1.0, 1.0 / (sampling.temperature or 1.0)) + share


def _same(one: float, other: float, near: float) -> bool:
    return one == other or abs(one - other) <= near


def _pointed(step: Token) -> str:
    """Checks of a greedy token, whose row is a point mass."""
    fine = step.kl == step.peak == -step.slm
    return "" if fine else "`kl` and `peak` of a greedy token are its surprisal under the SLM"


def _spread(step: Token, near: float) -> str:
    """Checks of a drawn token."""
    if math.isinf(step.fused):
        return "a token without probability was drawn"
    if step.slm == -math.inf:
        return "" if step.peak == math.inf else "the SLM rules the token out, and `peak` does not say so"
    if step.slm_only and not (_same(step.kl, 0.0, near) and _same(step.peak, 0.0, near)):
        return "the SLM's own row costs nothing"
    if step.kl < -near or step.peak < -near or step.fused - step.slm > step.peak + near:
        return "`peak` is the row's largest log fused/slm, and neither it nor `kl` is below 0"
    if math.isfinite(step.kl) and math.isfinite(step.peak):
        return _divergent(step, near)
    return ""


def _divergent(step: Token, near: float) -> str:
    """`kl` is the mean of log fused/slm: this token's share, and for the others at most `peak` each."""
    drawn, ratio = math.exp(min(step.fused, 0.0)), step.fused - step.slm
    others, peak = max(1.0 - drawn, 0.0), max(step.peak, 0.0)
    mass = min(MASS + SHARE * peak, 1.0)  # large log-weights have few accurate digits, and so has e to them
    near += mass * peak
    if step.kl > drawn * ratio + others * peak + near:
        return "`kl` is more than this token and `peak` allow"
    if others <= mass:
        return "`kl` is less than this token alone makes it" if step.kl < drawn * ratio - near else ""
    gained = math.log((others - mass) / (max(1.0 - math.exp(min(step.slm, 0.0)), 0.0) + mass))
    if step.peak < gained - near:
        return "`peak` is less than the other tokens must have gained"
    least = drawn * ratio + others * gained
    return "`kl` is less than this token alone makes it" if step.kl < least - near else ""
