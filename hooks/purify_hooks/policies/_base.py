"""The base of the bundled policies: rows in float32, checked options, no state by default."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from purify_plugins.errors import ConfigError
from purify_plugins.policy import Context
from purify_plugins.types import Token

if TYPE_CHECKING:
    from torch import Tensor


P = TypeVar("P", bound=Any)
TOLERANCE = 1e-5  # nats by which a recorded step may pass its bound: rows are float32
ROUNDING = 2.0**-21  # and of its figures, by which share: they are differences, a last place off each
DRAWABLE = 104.0  # nats; float32 has no mass for what is less likely


def wide(row: Tensor) -> Tensor:
    """The row in float32, or in float64 if it came so."""
    import torch

    return row if row.dtype in (torch.float32, torch.float64) else row.float()


def drawn(row: Tensor, tokens: Tensor) -> Tensor:
    """The log-probability (rows,) of `tokens` (rows,) in rows (rows, V)."""
    return wide(row.gather(-1, tokens[:, None])[:, 0])


def ledger(context: Context, opening: float = 0.0) -> Tensor:
    """A running total (rows,), in float64 where the device has it."""
    import torch

    device = context.greedy.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.full((context.rows,), opening, dtype=dtype, device=device)


def slack(steps: Iterable[Token]) -> float:
    """The rounding error (nats) that these recorded steps together may have."""
    figures = ((step.slm, step.fused) for step in steps)
    sizes = (max(map(abs, filter(math.isfinite, both)), default=0.0) for both in figures)
    return math.fsum(TOLERANCE + ROUNDING * size for size in sizes)


def below(step: Token, cap: float) -> bool:
    """Whether no token of the step's row could have cost more than `cap` nats, but for rounding."""
    return step.peak <= cap + TOLERANCE + ROUNDING * (DRAWABLE + cap)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def require(policy: _Named, option: str, fine: Callable[[float], bool], expected: str) -> None:
    """Raise ConfigError unless the option is a number and `fine`; `expected` says what would be."""
    value = getattr(policy, option)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and fine(value)):
        raise ConfigError(f"{policy.name}: {option} must be {expected}, not {value!r}")


def scaled(policy: P, factor: float, *options: str) -> P:
    """The policy with these options times a factor from 0 to 1; infinite ones stay. Raises ConfigError."""
    if not 0 <= factor <= 1:
        raise ConfigError(f"a policy is only ever tightened: give a factor from 0 to 1, not {factor!r}")
    values = {option: getattr(policy, option) for option in options}
    return replace(
        policy, **{name: nats if nats == math.inf else nats * factor for name, nats in values.items()}
    )


def require_count(policy: _Named, option: str) -> None:
    """Raise ConfigError unless the option is a whole number, 1 or more."""
    fine = isinstance(getattr(policy, option), int)
    require(policy, option, lambda value: fine and value >= 1, "a whole number, 1 or more")
