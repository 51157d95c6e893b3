"""LocalModel: a causal language model in this process, and what its sessions need to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from purify_hooks.local.forward import Forward, windowed
from purify_hooks.local.preflight import longest

if TYPE_CHECKING:
    import torch
    from torch.nn import Linear

    from purify_hooks.local.static_cache import CachePool


@dataclass(frozen=True, eq=False)
class LocalModel:
    """A transformers model and what every forward pass depends on; `vocabulary_size` is its tokenizer's.

    `compile`: short passes are read by the compiled model. Raises ModelError for a model whose `forward`
    cannot be called here.
    """

    module: Any
    name: str
    vocabulary_size: int
    compile: bool = False

    @cached_property
    def forward(self) -> Forward:
        """The model's `forward`, with arguments by meaning."""
        return Forward(self.module)

    @cached_property
    def compiled(self) -> Forward:
        """The same, compiled at its first call; on a GPU as CUDA graphs."""
        import torch

        mode = "reduce-overhead" if self.device.type == "cuda" else None
        return self.forward.of(torch.compile(self.module, mode=mode))

    @cached_property
    def cache_pool(self) -> CachePool:
        """The static caches that no session uses."""
        from purify_hooks.local.static_cache import CachePool

        return CachePool(self.module.config.get_text_config().num_hidden_layers)

    @property
    def device(self) -> torch.device:
        return self.module.device  # type: ignore[no-any-return]  # transformers gives it no types

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype  # type: ignore[no-any-return]  # transformers gives it no types

    @cached_property
    def context_length(self) -> int | None:
        """The most tokens the model can read; None: no limit."""
        return longest(self.module.config)

    @cached_property
    def windowed(self) -> bool:
        """Whether a layer attends to the last columns of the cache only; hidden ones count."""
        return windowed(self.module.config.get_text_config())

    @cached_property
    def parameters(self) -> int:
        """The number of weights."""
        return int(self.module.num_parameters())

    @cached_property
    def linear_layers(self) -> Sequence[Linear]:
        """The layers that only multiply, by torch's own `Linear.forward`."""
        from torch.nn import Linear

        modules = self.module.modules()
        return [each for each in modules if type(each) is Linear and "forward" not in each.__dict__]
