"""A model of n-grams as a directory: its tables in one safetensors file, its record and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.local.loading import file_digests
from purify_hooks.ngram.counting import Level, NgramCounts
from purify_hooks.ngram.model import NgramModel
from purify_hooks.ngram.smoothing import ESTIMATOR
from purify_plugins.errors import ModelError
from purify_plugins.utils.model_files import SETTINGS, read_json, require_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECORD, TABLES = "ngram.json", "ngrams.safetensors"
FORMAT = "purify-ngram/1"
ORDERS = range(2, 13)
"""The orders that can be built."""
MOST = 2**40
"""The most bytes of the tables."""


class Text(NamedTuple):
    """A document that was counted: its name, its file's SHA-256 and bytes, and its tokens."""

    name: str
    sha256: str
    size: int
    tokens: int


class Record(NamedTuple):
    """What is known of a model beside its counts.

    `fingerprint` is that of the vocabulary, `starts` (D,) where each document begins in the stream.
    """

    size: int
    fingerprint: str
    discounts: Sequence[Sequence[float]]
    texts: Sequence[Text]
    starts: Sequence[int]


def save(folder: Path, counts: NgramCounts, record: Record) -> None:
    """Write the tables and the record into an empty directory; the same counts give the same bytes."""
    from safetensors.numpy import save_file

    arrays = {
        f"{n}.{name}": values
        for n, level in enumerate(counts.levels, start=1)
        for name, values in level._asdict().items()
    }
    save_file({**arrays, "positions": counts.positions}, folder / TABLES)
    (folder / TABLES).chmod(0o644)
    said = {
        "format": FORMAT,
        "estimator": ESTIMATOR,
        "tables": file_digests(folder / TABLES)[TABLES],
        "order": len(counts.levels),
        "vocabulary": {"tokens": record.size, "fingerprint": record.fingerprint},
        "tokens": sum(text.tokens for text in record.texts),
        "ngrams": [len(level.tokens) for level in counts.levels],
        "discounts": [list(each) for each in record.discounts],
        "documents": [text._asdict() for text in record.texts],
        "starts": list(record.starts),
    }
    (folder / RECORD).write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", "utf-8")


def load(folder: Path) -> tuple[NgramModel, Record]:
    """The model in a directory, its tables memory-mapped. Raises ModelError."""
    record, order, digest = _record(folder)
    try:
        found = _model(_mapped(folder / TABLES), record, order)
        if digest and file_digests(folder / TABLES)[TABLES] != digest:
            raise ValueError("its content is not what was built")
        return found, record
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise _damaged(folder, f"{TABLES}: {error}") from error


def documents(model: NgramModel, record: Record) -> list[NDArray[Any]]:
    """The token ids (n,) int32 of each document."""
    begins = (start + 1 for start in record.starts)
    return [model.stream[at : at + text.tokens] for at, text in zip(begins, record.texts, strict=True)]


def require_model(folder: Path) -> None:
    """Raise ModelError for a directory that is none of `purify slm build`."""
    if not (folder / RECORD).is_file():
        raise ModelError(
            f"{str(folder)!r} holds no model of n-grams (no {RECORD}); make one with `purify slm build`"
        )


def _record(folder: Path) -> tuple[Record, int, str]:
    """The record, the order, and the SHA-256 of the tables; "" in a record that has none."""
    require_model(folder)
    said = read_json(folder / RECORD, 16 * SETTINGS)
    try:
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']!r}, and {FORMAT!r} is read")
        texts = [Text(**each) for each in said["documents"]]
        discounts = [tuple(map(float, each)) for each in said["discounts"]]
        known = said["vocabulary"]
        starts = [*map(int, said["starts"])]
        record = Record(int(known["tokens"]), known["fingerprint"], discounts, texts, starts)
        if len(starts) != len(texts):
            raise ValueError("its documents and their starts differ in number")
        if len(discounts) != said["order"] or said["order"] not in ORDERS:
            raise ValueError(f"its order is {said['order']!r}")
        if not all(0 <= each <= most for found in discounts for most, each in enumerate(found, 1)):
            raise ValueError("a discount is negative, or more than the count that it is taken from")
        return record, said["order"], str(said.get("tables", ""))
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(folder, f"{RECORD}: {error}") from error


def _damaged(folder: Path, why: str) -> ModelError:
    return ModelError(f"the n-grams in {str(folder)!r} cannot be used ({why}); build them again")


def _mapped(file: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of a safetensors file of uint32, memory-mapped. Raises ValueError."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    require_regular(file, MOST)
    try:
        with safe_open(file, "np"):  # which checks the header
            pass
    except SafetensorError as error:
        raise ValueError(error) from error
    content = np.asarray(np.memmap(file, np.uint8, "r"))
    begin = 8 + int(content[:8].view("<u8")[0])
    header: Mapping[str, Any] = json.loads(content[8:begin].tobytes())
    found = {}
    for name, said in header.items():
        if name != "__metadata__":
            if said["dtype"] != "U32":
                raise ValueError(f"{name} is {said['dtype']}, not U32")
            start, end = said["data_offsets"]
            found[name] = content[begin + start : begin + end].view("<u4")
    return found


def _model(arrays: Mapping[str, NDArray[Any]], record: Record, order: int) -> NgramModel:
    """The checked tables. Raises KeyError, ValueError."""
    levels = [Level(*(arrays[f"{n}.{name}"] for name in Level._fields)) for n in range(1, order + 1)]
    positions = arrays["positions"]
    for n, level in enumerate(levels, start=1):
        below = len(levels[n].tokens) if n < order else 0
        _check_level(f"order {n}", level, below, record.size, len(positions))
    if len(positions) and positions.max() >= len(positions) + order * len(record.texts):
        raise ValueError("a position is out of range")
    if not len(levels[0].tokens) or levels[0].tokens[-1] != record.size:
        raise ValueError("no document begins")
    return NgramModel(NgramCounts(tuple(levels), positions), record.discounts, record.size)


def _check_level(what: str, level: Level, below: int, size: int, positions: int) -> None:
    """Raise ValueError for arrays that do not fit each other; one pass over each."""
    import numpy as np

    if len({len(each) for each in level[:4]}) != 1:
        raise ValueError(f"{what}: its arrays differ in length")
    if not len(level.tokens):  # no document is that long
        return
    ends = level.first.astype(np.int64) + level.uses
    if level.tokens.max() > size or ends.max() > positions or not (level.counts.all() and level.uses.all()):
        raise ValueError(f"{what}: an entry is out of range")
    if below:
        children = level.children
        if len(children) != len(level.tokens) + 1 or children[0] or children[-1] != below:
            raise ValueError(f"{what}: its continuations are not those of the next order")
        if (children[1:] < children[:-1]).any():
            raise ValueError(f"{what}: its continuations are out of order")
