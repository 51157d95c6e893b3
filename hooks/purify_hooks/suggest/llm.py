"""What `suggest` has to know of an LLM: its tokenizer and its size, without reading a weight."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.suggest.catalogue import vocabulary_digest
from purify_plugins.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from purify_plugins.types import Vocabulary

NORMAL, USER_DEFINED, BYTE = 1, 4, 6
"""Types of tokens in a GGUF file (`tokenizer.ggml.token_type`); the others are control and unused ones."""


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
    place = Path(llm).expanduser()
    if place.is_file():
        if place.suffix != ".gguf":
            raise ModelError(f"{llm!r} is a file; give a model's directory, a hub id or a GGUF file")
        return _gguf(place)
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


def ordinary_digest(vocabulary: Vocabulary) -> str:
    """`vocabulary_digest` of the tokens that are neither control nor added ones."""
    left_out = vocabulary.added | vocabulary.control.keys()
    return vocabulary_digest(each for at, each in enumerate(vocabulary.tokens) if at not in left_out)


def _parameters(folder: Path) -> int | None:
    """The number of weights by the headers of the files; None where there are none here."""
    from purify_hooks.local.weight_headers import stored

    if not next(folder.glob("*.safetensors"), None):
        return None
    return sum(math.prod(each.shape) for each in stored(folder).values())


def _gguf(file: Path) -> UntrustedModel:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ConfigError("reading a GGUF file needs the package gguf; run pip install gguf") from error
    try:
        reader: Any = GGUFReader(str(file))
        tokens = [*_gguf_tokens(reader)]
        parameters = sum(math.prod(int(n) for n in each.shape) for each in reader.tensors)
        size = len(reader.fields["tokenizer.ggml.tokens"].data)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ModelError(f"{str(file)!r} cannot be read as GGUF ({error}); fetch it again") from error
    return UntrustedModel(file.name, size, vocabulary_digest(tokens), parameters)


def _gguf_tokens(reader: Any) -> Iterator[bytes]:
    """The bytes of the ordinary tokens of a GGUF file: byte-level BPE ("gpt2") or SentencePiece ("llama")."""
    from purify_plugins.tokenizers.token_bytes import piece_bytes

    kind = bytes(reader.fields["tokenizer.ggml.model"].parts[-1]).decode()
    pieces, types = reader.fields["tokenizer.ggml.tokens"], reader.fields.get("tokenizer.ggml.token_type")
    for at, part in enumerate(pieces.data):
        type_ = int(types.parts[types.data[at]][0]) if types else NORMAL
        if type_ in (NORMAL, BYTE):
            yield piece_bytes(bytes(pieces.parts[part]).decode("utf-8", "replace"), kind == "gpt2")
