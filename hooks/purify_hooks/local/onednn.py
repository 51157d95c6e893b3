"""Matrix products on a CPU: what reading prompts, drafts and batches is made of."""

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
"""Parameters that no cache holds; smaller products are over before it matters who makes them."""


def onednn_linear(model: LocalModel) -> AbstractContextManager[object]:
    """What to run a pass of the model in.

    PyTorch asks MKL, which packs the weight before it multiplies: it writes every number anew only to
    read it once, which for a few rows takes longer than the product. oneDNN, which PyTorch brings along
    too, reads the weight where it lies: up to twelve rows take little longer than one.
    """
    plain = model.device.type == "cpu" and model.dtype == torch.float32
    return (
        onednn_layers(model.linear_layers)
        if plain and model.parameters >= LARGE and _offered()
        else nullcontext()
    )


def _offered() -> bool:
    """Whether this torch multiplies by MKL, and oneDNN could instead."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@contextmanager
def onednn_layers(layers: Sequence[Linear]) -> Iterator[None]:
    """Let these layers multiply by oneDNN, up to rounding the same, and be as they were afterwards.

    Another thread that runs the model meanwhile meets either way, but gradients only the layers' own.
    """
    for layer in layers:
        layer.__dict__["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _forward(layer: Linear, rows: Tensor) -> Tensor:
    single = rows.numel() == rows.shape[-1]  # one row is a matrix-vector product, which MKL does faster
    if (
        single
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
