"""A KV cache whose tensors keep their shapes and addresses, for compiled models and CUDA graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from purify_hooks.local.kv_cache import GrowingLayer

WIDTH = 256
"""Columns that a cache begins with; it doubles when they are used up."""


class Places:
    """Where the next forward pass writes: the columns `at` (n,), one tensor for all layers."""

    def __init__(self) -> None:
        self.at = torch.empty(0, dtype=torch.long)


class StaticLayer(GrowingLayer):
    """One layer's keys and values (rows, heads, width, head size), all of which attention is given.

    The mask hides columns that are not in use. Unlike in a GrowingLayer, `columns` is counted by the cache:
    a compiled forward pass changes tensors only.
    """

    def __init__(self, places: Places, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers' own
        self.places, self.width = places, width

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        values = key_states if value_states is None else value_states
        self.dtype, self.device = key_states.dtype, key_states.device
        self.columns = 0
        self._keys, self._values = _zeros(key_states, self.width), _zeros(values, self.width)
        self.is_initialized = True
        self._use(0)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns where `places` says; return the whole buffers."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._keys.index_copy_(2, self.places.at, key_states)
        self._values.index_copy_(2, self.places.at, value_states)
        return self._keys, self._values

    def _use(self, columns: int) -> None:
        self.columns = columns

    def widen(self, width: int) -> None:
        """Make room for this many columns; what is in use is copied."""
        self.width = width
        if self.is_initialized:
            grown = [_zeros(old, width) for old in (self._keys, self._values)]
            for new, old in zip(grown, (self._keys, self._values), strict=True):
                new[:, :, : self.columns] = old[:, :, : self.columns]
            self._keys, self._values = grown

    def clear(self) -> None:
        """Forget everything, in place."""
        self._use(0)
        self._keys.zero_()
        self._values.zero_()


class StaticCache(Cache):
    """StaticLayers of one width. `reserve` before a forward pass, `advance` after it."""

    def __init__(self, layers: int) -> None:
        self.places, self.width = Places(), WIDTH
        self.parts = [StaticLayer(self.places, WIDTH) for _ in range(layers)]
        super().__init__(layers=self.parts)  # type: ignore[arg-type]  # a list, which it may not extend

    @property
    def rows(self) -> int:
        """The number of rows; 0 before the first forward pass."""
        [first, *_] = self.parts
        return len(first._keys) if first.is_initialized else 0

    def reserve(self, start: int, end: int, device: torch.device) -> None:
        """The next forward pass writes the columns from `start` to `end`."""
        width = self.width
        while width < end:
            width *= 2
        if width > self.width:
            self.width = width
            for layer in self.parts:
                layer.widen(width)
        self.places.at = torch.arange(start, end, device=device)

    def advance(self, end: int) -> None:
        """The first `end` columns are in use."""
        for layer in self.parts:
            layer._use(end)

    def clear(self) -> None:
        """Forget every text, in place."""
        for layer in self.parts:
            layer.clear()


class CachePool:
    """Caches that no session uses, by rows: a CUDA graph is of one cache's addresses.

    At most `size` are kept; their texts are erased.
    """

    def __init__(self, layers: int, size: int = 4) -> None:
        self._layers, self._size = layers, size
        self._free: list[StaticCache] = []

    def take(self, rows: int) -> StaticCache:
        """A cache of so many rows, if there is one; else a new one."""
        for at, cache in enumerate(self._free):
            if cache.rows == rows:
                return self._free.pop(at)
        return StaticCache(self._layers)

    def give(self, cache: StaticCache) -> None:
        """Take back a cache that is no longer used."""
        if cache.rows and len(self._free) < self._size:
            with torch.inference_mode():
                cache.clear()
            self._free.append(cache)


def _zeros(like: Tensor, width: int) -> Tensor:
    """Zeros, since a masked column still takes part in a sum, and nothing times NaN is NaN."""
    rows, heads, _, size = like.shape
    return torch.zeros((rows, heads, width, size), dtype=like.dtype, device=like.device)
