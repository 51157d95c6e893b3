"""Reads the header of a GGUF file: its settings and its tensors' places, before any weight is loaded.

gguf's own reader takes seconds for a large vocabulary and does not check a file's length. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from purify_plugins.errors import ModelError
from purify_plugins.utils.extras import require_extra
from purify_plugins.utils.model_files import require_regular

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of numbers -> their format in `struct`."""
TEXT, ARRAY = 8, 9
"""The other types of settings."""
VERSIONS = (2, 3)
ENTRIES = 1_000_000
"""How many settings and how many tensors a file may have."""
EXABYTE = 2**60
STRIDE = 32
"""Tensors stand at multiples of this many bytes, unless `general.alignment` says another number."""


@dataclass(frozen=True)
class Block:
    """A tensor in the file: its type's number in ggml, torch's shape, where its bytes begin and how many."""

    kind: int
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of its model.

    `settings`: every setting by name; `raw`: the same as the file writes them, without the tokenizer's;
    `tensors`: by llama.cpp's name.
    """

    file: Path
    settings: Mapping[str, Any]
    raw: Mapping[str, bytes]
    tensors: Mapping[str, Block]

    @property
    def architecture(self) -> str:
        """What llama.cpp calls this kind of model."""
        return str(self.settings["general.architecture"])

    @property
    def tokens(self) -> list[str]:
        """The tokens as the file spells them, by id."""
        return self.settings["tokenizer.ggml.tokens"]  # type: ignore[no-any-return]  # checked by read_header

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(math.prod(each.shape) for each in self.tensors.values())

    @property
    def quantisation(self) -> str:
        """The type of most of the weights, by ggml's name: "Q4_K", "F16"."""
        from gguf import GGMLQuantizationType

        weights: Counter[int] = Counter()
        for each in self.tensors.values():
            weights[each.kind] += math.prod(each.shape)
        return str(GGMLQuantizationType(weights.most_common(1)[0][0]).name)

    @property
    def context_length(self) -> int | None:
        """The most tokens the model can read; None: the file names no limit."""
        found = self.settings.get(f"{self.architecture}.context_length")
        return found if type(found) is int and found > 0 else None

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end an answer: of a text, of a turn, of a message."""
        named = (f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
        found = [self.settings[name] for name in named if name in self.settings]
        if any(type(end) is not int or not 0 <= end < len(self.tokens) for end in found):
            raise _damaged(self.file, "a token that ends an answer is not in its vocabulary")
        return frozenset(found)


def read_header(file: Path) -> GgufHeader:
    """The header of a GGUF file. Raises ModelError unless the file is whole; ConfigError without gguf."""
    require_extra("gguf", "a GGUF file")
    require_regular(file, EXABYTE)
    state = file.stat()
    return _read_header(file, state.st_size, state.st_mtime_ns, state.st_ino)


def forget_headers() -> None:
    """Free the headers that were kept while a model was loaded: a vocabulary takes tens of megabytes."""
    _read_header.cache_clear()


@lru_cache(maxsize=2)
def _read_header(file: Path, size: int, changed: int, inode: int) -> GgufHeader:
    """The header, kept by the file's size, time of change and inode: two may be written in one tick."""
    if size < 24:
        raise _damaged(file, f"it has {size} bytes")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            header = _header(file, _Reader(content))
        except (struct.error, UnicodeDecodeError, OverflowError) as error:
            raise _damaged(file, f"its header ends too early or is not text ({error})") from error
    _check(header)
    return header


class _Reader:
    """Values of a file one after another."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.at = content, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self.content, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return found

    def text(self) -> str:
        (length,) = self.take("Q")
        start, self.at = self.at, self.at + length
        if self.at > len(self.content):
            raise struct.error("a text longer than the file")
        return self.content[start : self.at].decode()

    def value(self, kind: int) -> Any:
        """A setting of this type; struct.error for an unknown one."""
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            return self.take(NUMBERS.get(kind, "!"))[0]
        inner, count = self.take("IQ")
        if count > len(self.content):
            raise struct.error("a list longer than the file")
        return [self.text() for _ in range(count)] if inner == TEXT else self._numbers(inner, count)

    def _numbers(self, kind: int, count: int) -> list[Any]:
        if kind not in NUMBERS:
            raise struct.error(f"a list of type {kind}")
        return list(self.take(f"{count}{NUMBERS[kind]}"))


def _header(file: Path, reader: _Reader) -> GgufHeader:
    magic, version, tensors, settings = reader.take("4sIQQ")
    if magic != b"GGUF":
        raise ModelError(f"{file} is no GGUF file: it does not begin with 'GGUF'; fetch the model again")
    if version not in VERSIONS:
        raise ModelError(f"{file} is of GGUF's version {version}, 2 and 3 are read; convert the model again")
    if max(tensors, settings) > ENTRIES:
        raise _damaged(file, f"it counts {tensors:,} tensors and {settings:,} settings")
    values, raw = _settings(file, reader, settings)
    places = {}
    for _ in range(tensors):
        name, place = _place(reader)
        if name in places:
            raise _damaged(file, f"{name[:80]!r} stands there twice")
        places[name] = place
    stride = values.get("general.alignment", STRIDE)
    if type(stride) is not int or stride < 1 or stride > 2**20:
        raise _damaged(file, f"general.alignment is {stride!r}")
    start = -(-reader.at // stride) * stride
    blocks = {name: _block(file, name, *place, start) for name, place in places.items()}
    return GgufHeader(file, values, raw, blocks)


def _settings(file: Path, reader: _Reader, count: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    values: dict[str, Any] = {}
    raw: dict[str, bytes] = {}
    for _ in range(count):
        start, name = reader.at, reader.text()
        if name in values:
            raise _damaged(file, f"{name[:80]!r} stands there twice")
        values[name] = reader.value(*reader.take("I"))
        if not name.startswith("tokenizer.ggml."):
            raw[name] = reader.content[start : reader.at]
    return values, raw


def _place(reader: _Reader) -> tuple[str, tuple[int, tuple[int, ...], int]]:
    """A tensor's name, type, shape and offset; ggml writes the shape's last number first."""
    name = reader.text()
    (dimensions,) = reader.take("I")
    if dimensions > 8:
        raise struct.error(f"a tensor of {dimensions} dimensions")
    *shape, kind, offset = reader.take(f"{dimensions}QIQ")
    return name, (kind, tuple(reversed(shape)), offset)


def _block(file: Path, name: str, kind: int, shape: tuple[int, ...], offset: int, start: int) -> Block:
    per, size = _sizes().get(kind, (0, 0))
    if not per:
        raise ModelError(
            f"{name[:80]!r} in {file} is stored as ggml's type {kind}, which this gguf does not know; "
            "install a newer gguf, or quantise the model by another method"
        )
    numbers = math.prod(shape)
    if not shape or shape[-1] % per:
        raise _damaged(file, f"a row of {name[:80]!r} is no whole number of blocks")
    return Block(kind, shape, start + offset, numbers // per * size)


@cache
def _sizes() -> Mapping[int, tuple[int, int]]:
    """ggml's types -> numbers in a block, and its bytes."""
    from gguf import GGML_QUANT_SIZES

    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}


def _check(header: GgufHeader) -> None:
    """Raise ModelError for a file that is cut off, a part of a model, or not a language model's."""
    said, file = header.settings, header.file
    end = max((each.start + each.size for each in header.tensors.values()), default=0)
    if end > file.stat().st_size:
        raise _damaged(file, f"its tensors need {end:,} bytes and it has {file.stat().st_size:,}")
    if said.get("split.count", 0) not in (0, 1):
        raise ModelError(
            f"{file} is one of {said['split.count']} parts; join them with "
            "llama.cpp's llama-gguf-split --merge"
        )
    wanted: Mapping[str, Callable[[Any], bool]] = {
        "general.architecture": lambda value: isinstance(value, str) and value.isascii(),
        "tokenizer.ggml.model": lambda value: isinstance(value, str),
        "tokenizer.ggml.tokens": lambda value: isinstance(value, list) and isinstance([*value, 0][0], str),
    }
    for name, holds in wanted.items():
        if not holds(said.get(name)):
            raise ModelError(
                f"{file} has no {name}, so that it is no language model; take a model's whole GGUF file"
            )
    if not isinstance(said.get("tokenizer.ggml.token_type", []), list):
        raise _damaged(file, "tokenizer.ggml.token_type is no list")
    if not header.tensors:
        raise ModelError(f"{file} holds no weights; take a model's whole GGUF file")


def _damaged(file: Path, what: str) -> ModelError:
    return ModelError(f"{file} is damaged, {what}; fetch the model again")
