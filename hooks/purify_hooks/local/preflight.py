"""Checks a local model before its weights are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.local.gguf_header import read_header
from purify_hooks.local.loading import find_model
from purify_hooks.local.weight_headers import refuse_packed, stored
from purify_plugins.errors import ConfigError, TooLongError
from purify_plugins.plugin.preview import Preview
from purify_plugins.tokenizers.loading import load_tokenizer, require_tokenizer

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def looked_at(
    model: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    revision: str | None = None,
    compile: bool = False,
) -> Preview:
    """The preview of a local model: its directory, the headers of its weights, its settings and its device.

    A model of the hub is fetched. Raises ModelError, ConfigError, as loading it would.
    """
    folder = find_model(model, revision)
    _require_map(device_map)
    if folder.is_file():
        return gguf_preview(folder, lambda: _find_both(dtype, device))
    require_tokenizer(folder)
    tensors = stored(folder)
    refuse_packed(tensors)

    @cache
    def config() -> Any:
        from purify_hooks.local.config_keys import configuration

        _find_both(dtype, device)
        return configuration(folder)[0]

    def refuse(text: str) -> None:
        room = longest(config())
        # No token is shorter than a byte: a text with fewer fits, and its tokenizer need not be read.
        if room is not None and len(text.encode("utf-8", "replace")) >= room:
            require_room(_count(load_tokenizer(folder, config()), text), room, str(model))

    numbers = sum(math.prod(each.shape) for each in tensors.values())
    return Preview(folder.resolve(), numbers, config, refuse)


def _find_both(dtype: str, device: str) -> None:
    """Raise ConfigError for a precision or a device that is not here."""
    find_dtype(dtype, find_device(device))


def gguf_preview(file: Path, settle: Callable[[], None]) -> Preview:
    """The preview of a GGUF file, by its header; what transformers makes of it is seen when it is loaded."""
    header = read_header(file)

    def refuse(text: str) -> None:
        room = header.context_length
        if room is not None and len(text.encode("utf-8", "replace")) >= room:
            from purify_hooks.local.gguf_model import unpacked

            with unpacked(file) as folder:
                require_room(_count(load_tokenizer(folder), text), room, str(file))

    return Preview(file.resolve(), header.parameters, settle, refuse)


def _count(tokenizer: Any, text: str) -> int:
    """How many tokens a text has; without transformers' own warning that it is too long."""
    return len(tokenizer(text, verbose=False)["input_ids"])


def _require_map(device_map: str | None) -> None:
    """Raise ConfigError where a model cannot be spread over devices."""
    if device_map is not None and find_spec("accelerate") is None:
        raise ConfigError("device_map needs accelerate; run pip install accelerate, or leave device_map out")


def longest(config: Any) -> int | None:
    """The most tokens a model can read, by its configuration; None: no limit."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def require_room(tokens: int, room: int | None, name: str) -> None:
    """Raise PromptError for a prompt that leaves no room for an answer."""
    if room is not None and tokens >= room:
        raise TooLongError(repr(name), tokens, room)


def find_device(device: str) -> torch.device:
    """The device of that name. Raises ConfigError."""
    import torch

    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch raises either for a missing device
        raise ConfigError(f"there is no device {device!r} here; use 'auto' or 'cpu'") from error


def find_dtype(dtype: str, device: torch.device) -> Any:
    """The precision of that name, on that device. Raises ConfigError."""
    import torch

    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    return getattr(torch, dtype)
