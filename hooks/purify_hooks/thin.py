"""Matrix products of a few rows: what reading a short draft is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from purify_hooks.local import LocalSource

FEW = range(2, 6)
"""Rows for which it pays: a single one is a matrix-vector product already."""
LARGE = 10_000_000
"""Parameters that no cache holds; a smaller model is read faster than the detour takes."""


def thin(source: LocalSource, rows: int) -> AbstractContextManager[object]:
    """What to run a pass of `rows` tokens in, those of all answers together."""
    model = source.model
    plain = model.device.type == "cpu" and model.dtype == torch.float32 and torch.backends.mkl.is_available()
    return Thin() if rows in FEW and plain and source.parameters >= LARGE else nullcontext()


class Thin(TorchFunctionMode):
    """Multiplies a few rows (n, in) by a weight (out, in) as `(W xᵀ)ᵀ`, not `x Wᵀ`; the same up to rounding.

    MKL packs the right-hand matrix before it multiplies. From two rows on `x Wᵀ` so writes every weight
    anew only to read it once, and three tokens cost nearly twice what one does. The other way round it
    is the rows that are packed. The model itself is left alone, and so are other threads.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is linear and not kwargs and _pays(*args[:2]):
            return multiplied(*args)
        return func(*args, **(kwargs or {}))


def _pays(rows: Tensor, weight: Tensor) -> bool:
    ordinary = type(weight) is Parameter and weight.dtype == rows.dtype == torch.float32
    return ordinary and rows.numel() // rows.shape[-1] in FEW


def multiplied(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear(rows, weight, bias)`: (…, in) -> (…, out)."""
    product = torch.mm(weight, rows.reshape(-1, rows.shape[-1]).t()).t().contiguous()
    return (product if bias is None else product.add_(bias)).view(*rows.shape[:-1], -1)
