"""Linear layers by oneDNN instead of MKL on a CPU: faster for a few rows. For layers that are not packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

if TYPE_CHECKING:
    from torch.nn import Linear

    from purify_hooks.local.model import LocalModel

LARGE = 10_000_000
"""Only for models with more weights than any CPU cache holds; smaller ones gain nothing."""
FEW = 3 if "Intel" in str(torch.cpu.get_capabilities().get("cpu_name", "")) else 1
"""Rows that MKL multiplies without copying the weight; for more it does."""
# 340 MB of layers 768 wide, one core of a Xeon with AVX-512, ms for 1, 2, 3, 4 and 8 rows: MKL 35, 34, 36, 59
# and 73, oneDNN 37, 48, 50, 49 and 55. Of an EPYC: MKL 26, 42, 48, 35 and 43, oneDNN 25, 35, 33, 35 and 43.


def onednn_linear(model: LocalModel) -> AbstractContextManager[object]:
    """The context for a forward pass, in which large float32 models on a CPU multiply by oneDNN.

    MKL copies the weight into another layout before it multiplies more than FEW rows, which takes longer than
    the product. oneDNN reads the weight in place: twelve rows take little longer than four.
    """
    gains = onednn_gains(model.device, model.dtype, model.parameters)
    return onednn_layers(model.linear_layers) if gains else nullcontext()


def onednn_gains(device: torch.device, dtype: torch.dtype, parameters: int) -> bool:
    """Whether such a model gains by oneDNN: in float32, on a CPU, large, where this torch has it and MKL."""
    plain = device.type == "cpu" and dtype == torch.float32
    return plain and parameters >= LARGE and _offered()


def _offered() -> bool:
    """Whether this torch has both MKL and oneDNN's linear."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@contextmanager
def onednn_layers(layers: Sequence[Linear]) -> Iterator[None]:
    """Within this context, these layers multiply by oneDNN; results differ by rounding.

    Another thread may run the model meanwhile, by either way; gradients always take the layers' own.
    """
    for layer in layers:
        layer.__dict__["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _forward(layer: Linear, rows: Tensor) -> Tensor:
    if (
        rows.numel() <= FEW * rows.shape[-1]
        or torch.is_grad_enabled()
        or rows.dtype != torch.float32
        or layer.weight.dtype != torch.float32
    ):
        return linear(rows, layer.weight, layer.bias)
    return onednn_product(rows, layer.weight, layer.bias)


def onednn_product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear(rows, weight, bias)`: (…, in) -> (…, out)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product
