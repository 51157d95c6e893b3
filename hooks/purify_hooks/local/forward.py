"""Calls a transformers model's `forward` by the meaning of its arguments, whatever their names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from purify_plugins.errors import ModelError

NAMES: Mapping[str, tuple[str, ...]] = {
    # The KV cache or state. transformers 5.24 calls every kind of it `cache`; before that, keys
    # and values were `past_key_values`, Mamba's states `cache_params`, and RWKV's are `state` to this day.
    "cache": ("cache", "past_key_values", "cache_params", "state"),
    "mask": ("attention_mask",),
    "positions": ("position_ids",),
    "columns": ("cache_position",),  # where new columns stand in the cache; transformers 4 only
    "last": ("logits_to_keep", "num_logits_to_keep"),  # the older one up to transformers 4.44, and in forks
    "keeping": ("use_cache",),
}
"""Each argument's names, newest first."""


class Read(NamedTuple):
    """Logits (rows, n, V), and the model's cache."""

    logits: Tensor
    cache: Any


class Forward:
    """A causal language model's `forward`, with arguments by meaning.

    `named` maps each meaning to the model's own argument; a missing one is not supported. `stateful`: the
    model has a recurrent state, from which no token can be removed. Raises ModelError for a model that takes
    no cache, or cannot be called with tokens alone.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        taken = _taken(model)
        found = {meaning: [name for name in names if name in taken] for meaning, names in NAMES.items()}
        self.named = {meaning: names[0] for meaning, names in found.items() if names}
        _require_known(type(model).__name__, taken)
        self.stateful = bool(getattr(model, "_is_stateful", False))  # transformers' own attribute, in 4 and 5
        if "cache" not in self.named and not self.stateful:
            raise ModelError(
                f"{type(model).__name__}.forward takes no cache by any name known here "
                f"({', '.join(NAMES['cache'])}), so every token would be a reading of the whole text; "
                "use a model that does"
            )

    def of(self, model: Any) -> Self:
        """The same arguments for another callable of this model."""
        other = copy(self)
        other.model = model
        return other

    def __call__(
        self,
        tokens: Tensor,
        cache: Any = None,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        columns: Tensor | None = None,
        last: int = 0,
        keeping: bool = True,
    ) -> Read:
        """Read tokens (rows, n) after what `cache` holds; the logits after the `last` of them (0: all).

        `mask` (rows, columns) or (rows, 1, n, columns), `positions` (rows, n) and `columns` (n,) are left
        to the model if None. Raises ModelError for one that this model does not take.
        """
        said = {"cache": cache, "mask": mask, "positions": positions, "columns": columns}
        told = {**self._named(said, tokens.device), **self._optional(last, keeping)}
        read = self.model(tokens, **told)
        logits: Tensor = read.logits
        return Read(logits[:, -last:], kept(read))

    def _named(self, said: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """The arguments that are not None, by the model's own names. Raises ModelError."""
        told = {meaning: value for meaning, value in said.items() if value is not None}
        if unknown := next((meaning for meaning in told if meaning not in self.named), None):
            kind, name = type(self.model).__name__, NAMES[unknown][0]
            raise ModelError(f"{kind}.forward takes no {name}, which these rows cannot be read without")
        return {
            self.named[meaning]: value.to(device) if isinstance(value, Tensor) else value
            for meaning, value in told.items()
        }

    def _optional(self, last: int, keeping: bool) -> dict[str, Any]:
        """Arguments that change no logit, where the model takes them."""
        known = {"last": last, "keeping": keeping}
        return {self.named[meaning]: value for meaning, value in known.items() if meaning in self.named}

    def alone(self, tokens: Tensor, cache: Any, read: int, last: int) -> Read:
        """Read one row's tokens (n,), none of them padding, after the `read` that `cache` holds."""
        places = torch.arange(read, read + len(tokens), device=tokens.device)
        # Mamba in transformers 4 writes a token where it stands while the text is shorter than its kernel,
        # but fills that from the right: `generate` counts from the kernel's width on.
        early = (
            getattr(self.model.config, "conv_kernel", 0) if self.named.get("cache") == "cache_params" else 0
        )
        said = {"cache": cache, "positions": places[None], "columns": places + early}
        if cache is None:
            said |= self._prepared(tokens[None], places)
        said = {meaning: value for meaning, value in said.items() if meaning in self.named}
        return self(tokens[None], last=last, **said)

    def _prepared(self, tokens: Tensor, places: Tensor) -> dict[str, Any]:
        """The initial arguments for hybrid models of transformers 4, which make no cache by themselves.

        `generate` lets the model prepare them, as this does.
        """
        if "columns" not in self.named or "keeping" not in self.named:
            return {}
        prepared = self.model.prepare_inputs_for_generation(
            tokens, use_cache=True, cache_position=places, attention_mask=torch.ones_like(tokens)
        )
        return {meaning: prepared.get(self.named[meaning]) for meaning in ("cache", "columns")}


def _taken(model: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a model's `forward` after the tokens, by name.

    With **kwargs, those of the overridden `forward` are included.
    """
    found: dict[str, inspect.Parameter] = {}
    overridden = [each.__dict__["forward"] for each in type(model).__mro__ if "forward" in each.__dict__]
    for forward in (model.forward, *overridden):
        given = list(inspect.signature(forward).parameters.values())
        plain = [each for each in given if each.kind in PLAIN and each.name != "self"]
        found = {**{each.name: each for each in plain[1:]}, **found}
        if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in given):
            break
    return found


PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _require_known(model: str, taken: Mapping[str, inspect.Parameter]) -> None:
    """Raise ModelError for an unknown argument without a default."""
    known = {name for names in NAMES.values() for name in names}
    for name, each in taken.items():
        if each.default is each.empty and name not in known:
            raise ModelError(
                f"{model}.forward must be given {name!r}, which is not known here; "
                "use a model that reads text alone"
            )


def kept(out: Any) -> Any:
    """The cache in a model's output, under any known name; None if there is none."""
    # By its own keys: from 5.24 on, an older name logs a warning to the user.
    there = set(out.keys() if isinstance(out, Mapping) else dir(out))
    return next((getattr(out, name) for name in NAMES["cache"] if name in there), None)


def windowed(config: Any) -> bool:
    """Whether a model's settings mention windowed or chunked attention.

    A false True costs copies of the cache; a false False gives wrong rows. So any setting named after a
    window or a chunk counts, and any layer type that is not known to be full attention.
    """
    settings = config.to_dict()
    layers = settings.get("layer_types") or settings.get("attention_layers")
    if layers:
        return not set(layers) <= {"full_attention", "global"}
    return any(value for key, value in settings.items() if any(word in key for word in ("window", "chunk")))
