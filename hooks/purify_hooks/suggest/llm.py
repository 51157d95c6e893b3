"""What `suggest` has to know of an LLM: its tokenizer and its size, without reading a weight."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from purify_hooks.suggest.catalogue import vocabulary_digest
from purify_plugins.errors import ModelError

if TYPE_CHECKING:
    from purify_plugins.types import Vocabulary


ORDINARY = (1, 6)
"""The types of ordinary tokens in a GGUF file, normal ones and single bytes, by llama.cpp's numbers."""


class UntrustedModel(NamedTuple):
    """An LLM: its name, tokens, `vocabulary_digest` and, where its files show it, how many parameters."""

    name: str
    tokens: int
    digest: str
    parameters: int | None


def look_at(llm: str) -> UntrustedModel:
    """An LLM by its directory, a hub id in this machine's cache, or a GGUF file; nothing is fetched.

    Raises ModelError, VocabularyError, ConfigError.
    """
    from purify_hooks.local.loading import find_gguf_tokenizer

    if "://" in llm:
        raise ModelError(
            f"{llm!r} is a server, which is not asked; give the directory, hub id or GGUF file of its model"
        )
    if file := find_gguf_tokenizer(llm):
        return _gguf(llm, file)
    if Path(llm).expanduser().is_file():
        raise ModelError(f"{llm!r} is a file; give a model's directory, a hub id or a GGUF file")
    from purify_plugins.tokenizers.loading import find_tokenizer

    folder = find_tokenizer(llm, offline=True)
    vocabulary = read_vocabulary(folder)
    return UntrustedModel(llm, len(vocabulary), ordinary_digest(vocabulary), _parameters(folder))


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a model's directory. Raises ModelError, VocabularyError."""
    from purify_plugins.tokenizers.loading import load_tokenizer, require_tokenizer
    from purify_plugins.tokenizers.token_bytes import vocabulary

    require_tokenizer(folder)
    return vocabulary(load_tokenizer(folder), folder.name, ())


def ordinary_digest(vocabulary: Vocabulary, unused: Collection[int] = ()) -> str:
    """`vocabulary_digest` of the tokens that are neither control, added nor `unused` ones."""
    left_out = vocabulary.added | vocabulary.control.keys() | {*unused}
    return vocabulary_digest(each for at, each in enumerate(vocabulary.tokens) if at not in left_out)


def _parameters(folder: Path) -> int | None:
    """The number of weights by the headers of the files; None where there are none here."""
    from purify_hooks.local.weight_headers import stored

    if not next(folder.glob("*.safetensors"), None):
        return None
    return sum(math.prod(each.shape) for each in stored(folder).values())


def _gguf(name: str, file: Path) -> UntrustedModel:
    """What a GGUF file says. Raises ModelError; ConfigError without gguf."""
    from purify_hooks.local.gguf_header import read_header
    from purify_hooks.local.gguf_model import unpacked

    header = read_header(file)
    with unpacked(file) as folder:
        known = read_vocabulary(folder)
    # Rows that only pad the weights are tokens to transformers, by names such as [PAD151643].
    types = header.settings.get("tokenizer.ggml.token_type", ())
    unused = {at for at, kind in enumerate(types) if kind not in ORDINARY}
    return UntrustedModel(name, len(known), ordinary_digest(known, unused), header.parameters)
