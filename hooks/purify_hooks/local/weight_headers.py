"""Reads the headers of a model's weight files, before any weight is loaded."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purify_plugins.errors import ModelError
from purify_plugins.utils.model_files import MEGABYTE, parse_json, read_table, require_regular

log = logging.getLogger(__name__)

HEADER = 16 * MEGABYTE
"""The most bytes of one file's header: 150,000 tensors; safetensors itself would read 100 million."""
TENSORS = 1_000_000
"""How many tensors a model may have; the largest published have 150,000."""
EXABYTE = 2**60
BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "BOOL": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "C64": 64,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
PLAIN = ("F64", "F32", "F16", "BF16")
"""Plain number types; all others need a scale, or are not weights."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its type by safetensors' name, and its shape."""

    dtype: str
    shape: tuple[int, ...]
    file: Path


def stored(folder: Path) -> Mapping[str, Stored]:
    """Every tensor that transformers would read from a model's directory, by name.

    Raises ModelError for files that are missing, cut off, or not what the index beside them says.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        if index.exists():
            log.warning("%s: %s is read, and the files that %s names are not", folder, whole.name, index.name)
        return _named(folder, header(whole))
    if index.exists():
        return _named(folder, _sharded(index))
    found = ", ".join(sorted(each.name for each in folder.glob("*.safetensors"))[:3])
    if any(each.name.startswith("adapter") for each in folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds an adapter ({found}) and no model; merge it into its model first")
    raise ModelError(
        f"{folder} has {found}, and neither model.safetensors nor model.safetensors.index.json; fetch the "
        "model again, in transformers' format"
    )


def _named(folder: Path, tensors: Mapping[str, Stored]) -> Mapping[str, Stored]:
    if not tensors:
        raise ModelError(f"{folder}: the safetensors hold no tensors; fetch the model again")
    if len(tensors) > TENSORS:
        raise ModelError(
            f"{folder}: the safetensors hold {len(tensors):,} tensors, at most {TENSORS:,} are read"
        )
    return tensors


def _sharded(index: Path) -> dict[str, Stored]:
    """The tensors of an index's files, which must be beside it and hold what it says."""
    said = read_table(index, HEADER)
    places = said.get("weight_map")
    if not isinstance(places, dict) or not places or not isinstance(said.get("metadata"), dict):
        raise ModelError(
            f"{index.name} in {index.parent} has no weight_map or metadata; fetch the model again"
        )
    tensors: dict[str, Stored] = {}
    for shard in sorted(set(map(str, places.values()))):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError(
                f"{index.name} in {index.parent} names {shard!r}, which is no safetensors file beside it; "
                "refused, fetch the model again"
            )
        if not (index.parent / shard).exists():
            raise ModelError(
                f"{index.name} in {index.parent} names {shard}, which is missing; fetch the model again"
            )
        tensors |= header(index.parent / shard)
    for name, shard in places.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise ModelError(
                f"{index.name} in {index.parent} says that {name} is in {shard}, where it is not; "
                "fetch the model again"
            )
    return tensors


def header(file: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file. Raises ModelError unless its header fits its length."""
    size = require_regular(file, EXABYTE)
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if size < 8 or length > size - 8:
            raise _damaged(file, "or no safetensors file: its header is longer than all of it")
        if length > HEADER:
            raise _damaged(file, f"its header has {length:,} bytes, at most {HEADER:,} are read")
        entries = parse_json(content.read(length), f"the header of {file}")
    if not isinstance(entries, dict):
        raise _damaged(file, "its header is no table")
    found = {name: _tensor(name, entry, file) for name, entry in entries.items() if name != "__metadata__"}
    end = max(
        (entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0
    )
    if end != size - 8 - length:
        raise _damaged(file, f"it has {size - 8 - length:,} bytes of tensors where its header says {end:,}")
    return found


def _tensor(name: str, entry: Any, file: Path) -> Stored:
    """One entry of a header, checked for consistency."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(each) is int and each >= 0 for each in (*shape, start, end))
        bits = math.prod(shape) * BITS[dtype] if whole else -1
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file, f"its header does not describe {name[:200]!r}") from error
    if len(shape) > 8 or -(-bits // 8) != end - start:
        raise _damaged(file, f"its header gives {name[:200]!r} another size than a tensor of its shape has")
    return Stored(dtype, tuple(shape), file)


def _damaged(file: Path, what: str) -> ModelError:
    return ModelError(
        f"{file.parent} does not load as a causal language model: {file.name} is damaged, {what}; fetch the "
        "model again"
    )


def refuse_packed(tensors: Mapping[str, Stored]) -> None:
    """Raise ModelError for quantised weights, which transformers would take for plain numbers."""
    for name, tensor in tensors.items():
        if tensor.dtype not in PLAIN and name.endswith(("weight", "packed", "scales", "qzeros")):
            raise ModelError(
                f"{name} in {tensor.file} is stored as {tensor.dtype}; quantised weights are not read, "
                "use the model's plain ones"
            )
