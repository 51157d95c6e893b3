"""Matrix products of several rows: what reading prompts and drafts is made of."""

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

FEW = 2
"""Rows from which it pays: a single one is a matrix-vector product, as fast as weights can be fetched."""
LARGE = 10_000_000
"""Parameters that no cache holds; a smaller model is read faster than the detour takes."""


def thin(source: LocalSource, rows: int) -> AbstractContextManager[object]:
    """What to run a pass of `rows` tokens in, those of all answers together."""
    model = source.model
    plain = model.device.type == "cpu" and model.dtype == torch.float32
    pays = plain and rows >= FEW and source.parameters >= LARGE
    return Thin() if pays and _offered() else nullcontext()


def _offered() -> bool:
    """Whether this torch multiplies by MKL, and oneDNN could instead."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Thin(TorchFunctionMode):
    """Multiplies rows (n, in) by a weight (out, in) with oneDNN, not MKL; the same up to rounding.

    MKL packs the weight before it multiplies: it writes every number anew only to read it once, which
    for a few rows takes longer than the product. oneDNN reads the weight where it lies, and two to
    twelve rows take little longer than one. The model itself is left alone, and so are other threads.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is linear and not kwargs and _pays(*args[:2]):
            return multiplied(*args)
        return func(*args, **(kwargs or {}))


def _pays(rows: Tensor, weight: Tensor) -> bool:
    ordinary = type(weight) is Parameter and weight.dtype == rows.dtype == torch.float32
    return ordinary and rows.numel() // rows.shape[-1] >= FEW


def multiplied(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear(rows, weight, bias)`: (…, in) -> (…, out)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product
