"""Reading by a compiled model: a static KV cache, and torch.compile, with CUDA graphs on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from purify_hooks.local.session import LocalSession, additive_mask, causal
from purify_hooks.local.static_cache import StaticCache
from purify_hooks.local.trial import NEAR, ROUGH, reads_correctly
from purify_plugins.errors import ModelError
from purify_plugins.sources.read_scope import for_fusion

if TYPE_CHECKING:
    from purify_hooks.local.model import LocalModel

SHORT = 8
"""Columns that a compiled pass reads at most; prompts, of any length, are read as ever."""


class CompiledSession(LocalSession):
    """For a model that is compiled: masks and KV cache have a few fixed widths.

    Sessions are read apart: each has a cache of its own, whose addresses a CUDA graph holds.
    """

    cache_state = "on, static, the model compiled"
    batches = False

    def __init__(self, model: LocalModel, prompts: Sequence[tuple[int, ...]], branches: bool = False) -> None:
        super().__init__(model, prompts, branches)
        self.cache: StaticCache = model.cache_pool.take(len(prompts))

    def logits_after(self, new: Tensor, cache: Any, seen: Tensor, wanted: int) -> Tensor:
        columns = new.shape[1]
        return self._static_pass(new, causal(seen, columns), self._positions(seen, columns), wanted)

    def tree_logits(self, new: Tensor, cache: Any, seen: Tensor) -> Tensor:
        return self._static_pass(new, seen, self._within(seen.sum(dim=-1) - 1), new.shape[1])

    def _static_pass(self, new: Tensor, seen: Tensor, at: Tensor, wanted: int) -> Tensor:
        """Logits (rows, wanted, V) after the columns `new`; `seen` (rows, n, columns) is what each sees."""
        total = seen.shape[2]
        self.cache.reserve(total - new.shape[1], total, new.device)
        mask = additive_mask(pad(seen, (0, self.cache.width - total)), self.model.dtype)
        short = new.shape[1] <= SHORT
        forward = self.model.compiled if short else self.model.forward
        logits = forward(new, self.cache, mask=mask, positions=at, last=wanted).logits
        self.cache.advance(total)
        return logits.clone() if short and new.is_cuda else logits  # the next graph writes over its output

    def close(self) -> None:
        cache, self.cache = self.cache, None  # type: ignore[assignment]  # closed
        if cache is not None:
            self.model.cache_pool.give(cache)


def compiled_session(model: LocalModel) -> type[CompiledSession]:
    """CompiledSession, if its rows are the model's. Raises ModelError for a model that cannot be compiled."""
    with torch.compiler.set_stance("force_eager"):
        right = not model.windowed and reads_correctly(model, CompiledSession)
    if not right:
        raise ModelError(
            f"{model.name!r} cannot be read with a static cache, which compile = true needs; leave it out"
        )
    _require_same_row(model)
    return CompiledSession


def _require_same_row(model: LocalModel) -> None:
    """Raise ModelError unless the model can be compiled and then has the row it had."""
    with torch.compiler.set_stance("force_eager"):
        expected = _row(model)
    try:
        row = _row(model)
    except Exception as error:  # whatever the compiler raises: a missing C++ compiler, a graph it cannot make
        raise ModelError(
            f"{model.name!r} cannot be compiled here, as compile = true asks ({_first_line(error)}); "
            "install a C++ compiler, or leave it out"
        ) from error
    if not torch.allclose(row, expected, atol=10 * NEAR.get(model.dtype, ROUGH)):
        raise ModelError(f"{model.name!r} has other rows when it is compiled; leave compile = true out")


def _row(model: LocalModel) -> Tensor:
    """The log-probabilities (V,) after two tokens, read one by one."""
    with torch.inference_mode(), for_fusion(), CompiledSession(model, [(0,)]) as session:
        session.prefill(0)
        return torch.log_softmax(session.extend(torch.tensor([[1]]))[0, -1].float(), -1)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
