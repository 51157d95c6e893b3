"""Linear layers whose weights lie in oneDNN's own order: on a CPU several rows then cost what one costs."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from purify_hooks.local import onednn
from purify_plugins.sources.read_scope import for_fusion

ROWS = 8
"""The rows for which oneDNN chooses the order; it reads any number of rows by it."""
LEAST = 4
"""Fewer rows are padded to these. oneDNN multiplies one and two by another program, which is slower."""
# 346 MB of layers 768 wide, one core of an EPYC with AVX-512, ms for 1, 2, 3, 4, 6, 8, 16 and 256 rows: MKL
# 26, 42, 48, 35, 43, 43, 58 and 500; oneDNN in place 25, 35, 33, 35, 39, 43, 59 and 440; packed 24, 29, 23,
# 20, 20, 26, 35 and 420.
NEAR = 1e-3
"""The largest difference of logits that counts as rounding."""
SAMPLE = 11
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)
"""What a model raises whose own code reads a packed weight."""

log = logging.getLogger(__name__)


class PackedLinear(nn.Module):
    """A linear layer in float32 on a CPU, (…, in) -> (…, out); `weight` is opaque but for `to_dense()`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        if rows.dtype != torch.float32 or (torch.is_grad_enabled() and rows.requires_grad):
            return linear(rows, self.weight.to_dense(), self.bias)
        flat = rows.reshape(-1, self.in_features)
        missing = LEAST - len(flat)
        enough = pad(flat, (0, 0, 0, missing)) if missing > 0 else flat
        product = onednn.onednn_product(enough, self.weight, self.bias)
        return product[: len(flat)].reshape(*rows.shape[:-1], self.out_features)

    def unpacked(self) -> nn.Linear:
        """The layer that this one was made of."""
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        layer.weight, layer.bias = nn.Parameter(self.weight.to_dense(), requires_grad=False), self.bias
        return layer


def pack(model: Any) -> bool:
    """Put packed layers in the place of a large float32 model's linear ones, on a CPU; whether it was done.

    Weights that two modules share stay as they are. A model whose logits for a sample text change by more
    than rounding, or that fails (some read their layers' weights themselves), gets its layers back.
    """
    if not onednn.onednn_gains(model.device, model.dtype, model.num_parameters()):
        return False
    layers, before = _linear_layers(model), _sample_logits(model)
    if not layers or before is None:
        return False
    for parent, name, layer in layers:
        setattr(parent, name, PackedLinear(layer))
    after = _sample_logits(model)
    if after is not None and torch.allclose(before, after, atol=NEAR, rtol=NEAR):
        return True
    unpack(model)
    log.info("the layers of %s stay as they are: it does not read packed ones", type(model).__name__)
    return False


def unpack(model: Any) -> None:
    """Put plain layers in the place of packed ones."""
    for parent, name, layer in _children(model):
        if isinstance(layer, PackedLinear):
            setattr(parent, name, layer.unpacked())


def plain_copy(model: Any) -> Any:
    """The model with plain layers; it shares all other weights with this one, which stays as it is."""
    shared = {id(each): each for each in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    unpack(copied)
    return copied


def _children(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    return [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]


def _linear_layers(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Each layer that only multiplies, by a weight that nothing shares: its parent, its name and itself."""
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    return [
        (parent, name, layer)
        for parent, name, layer in _children(model)
        if type(layer) is nn.Linear and "forward" not in layer.__dict__ and uses[id(layer.weight)] == 1
    ]


def _sample_logits(model: Any) -> Tensor | None:
    """The logits (1, n, V) of a text of ordinary tokens; None if the model fails on it."""
    size = model.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(SAMPLE)[None] + size // 2
    with for_fusion(), torch.inference_mode(), suppress(*FAILURES):
        logits: Tensor = model(tokens).logits
        return logits
    return None
