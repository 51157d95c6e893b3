"""Files of a model's repository, read as untrusted data: regular files of bounded size, plain JSON."""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from purify_plugins.errors import ModelError

MEGABYTE = 1024 * 1024
SETTINGS = 16 * MEGABYTE
"""The most bytes of a settings file; the largest published, Gemma's of its tokenizer, has 1.2 million."""
DEPTH = 32
"""How many tables and lists may stand inside one another."""


def require_regular(file: Path, most: int) -> int:
    """The size of a file in bytes. Raises ModelError unless it is a regular file of at most `most` bytes.

    A FIFO or a device would keep its reader waiting for ever.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}; fetch the model again") from error
    if not stat.S_ISREG(found.st_mode):
        raise ModelError(f"{file} is no regular file; give a directory with the model's own files")
    if found.st_size > most:
        raise ModelError(
            f"{file} has {found.st_size:,} bytes, at most {most:,} are read; fetch the model again"
        )
    return found.st_size


def read_bytes(file: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises ModelError."""
    require_regular(file, most)
    try:
        with file.open("rb") as content:
            return content.read(most)
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}; fetch the model again") from error


def read_json(file: Path, most: int = SETTINGS) -> Any:
    """The JSON value in a file. Raises ModelError.

    Duplicate keys and NaN are refused: parsers differ in how they read them.
    """
    return parse_json(read_bytes(file, most), file)


def read_table(file: Path, most: int = SETTINGS) -> Mapping[str, Any]:
    """The JSON object in a file. Raises ModelError."""
    found = read_json(file, most)
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds no JSON object; fetch the model again")
    return found


def parse_json(content: bytes, what: object) -> Any:
    """The JSON value that `content` spells; `what` it is the content of, for errors. Raises ModelError."""
    try:
        found = json.loads(content, object_pairs_hook=_table, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{what} is not valid JSON ({error}); fetch the model again") from error
    if _deeper(found, DEPTH):
        raise ModelError(f"{what} is not valid JSON (nested deeper than {DEPTH}); fetch the model again")
    return found


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # None, so that the first time is passed over
        raise ValueError(f"{twice!r} stands there twice")
    return table


def _constant(name: str) -> float:
    if name == "Infinity":  # state-space models have a longest step of it
        return math.inf
    raise ValueError(f"{name} is no number")


def _deeper(value: Any, most: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most < 0 or any(_deeper(each, most - 1) for each in inner if isinstance(each, dict | list))


def eos_ids(folder: Path) -> frozenset[int]:
    """The ids that end an answer, from the only generation setting taken from a repository."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            said = read_json(folder / name)
            ids = said.get("eos_token_id") if isinstance(said, dict) else None
            ends = ids if isinstance(ids, list) else [] if ids is None else [ids]
            if not all(type(end) is int and end >= 0 for end in ends):
                raise ModelError(f"{name} in {folder} has no token ids in eos_token_id: {ids!r}")
            found |= set(ends)
    return frozenset(found)


def download(model: str, patterns: Sequence[str], revision: str | None = None, offline: bool = False) -> Path:
    """Download the files of a hub id that match `patterns`; return their directory. Raises ModelError."""
    from huggingface_hub import snapshot_download

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise ModelError(f"there is no model directory {model!r}; give a directory or a hub id")
    try:
        kept = list(patterns)
        found = snapshot_download(model, revision=revision, allow_patterns=kept, local_files_only=offline)
        return Path(found)
    except Exception as error:  # the hub client raises many kinds; each means the model is not to be had
        raise ModelError(
            f"{model!r} is no directory in {Path.cwd()}, nor beside the file that names it, and could not be "
            "had from the hub; check the path, or for a hub id the network and HF_HUB_OFFLINE"
        ) from error
