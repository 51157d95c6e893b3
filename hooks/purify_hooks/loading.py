"""Get a model's files onto this machine, and refuse those that could run code.

A model repository is data from a stranger. What is read: safetensors, JSON, tokenizer files. What
is never read: pickles, Python files, `auto_map`, `custom_generate`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from purify_plugins.errors import ModelError

SAFE_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken"]
FORBIDDEN_KEYS = ("auto_map", "custom_generate", "custom_pipelines")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def find_model(model: str | Path, revision: str | None = None) -> Path:
    """The directory of `model`: a local path, or a hub id whose safe files are fetched.

    Raises ModelError when there is no such model, or its files are unsafe.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _download(str(model), revision)
    check_files(folder)
    return folder


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise ModelError(f"there is no model directory {model!r}; give a directory or a hub id")
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=SAFE_FILES))
    except Exception as error:  # the hub client raises many kinds; each means the model is not to be had
        raise ModelError(
            f"{model!r} is no directory here and could not be had from the hub "
            f"({type(error).__name__}); check the name, the network or HF_HUB_OFFLINE"
        ) from error


def check_files(folder: Path) -> None:
    """Raise ModelError unless `folder` holds a model that loads without running anyone's code."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json; give the directory of a transformers model")
    for file in _json_files(folder):
        if file.name == "adapter_config.json":
            raise ModelError(
                f"{file.name} in {folder} names another model to load; refused, merge the adapter"
            )
        if found := _names_code(_read(file)):
            raise ModelError(
                f"{file.name} in {folder} names code to run ({found!r}); refused, remove the key"
            )
    code = next(chain(folder.glob("*.py"), folder.glob("custom_generate*")), None)
    if code:
        raise ModelError(f"{folder} brings its own code ({code.name}); refused, use a plain model directory")
    if not any(folder.glob("*.safetensors")):
        _refuse_weights(folder)
    for index in folder.glob("*.safetensors.index.json"):
        _check_shards(index)


def _names_code(settings: Any) -> str | None:
    """The first key, at any depth, by which transformers would run a repository's code."""
    if not isinstance(settings, dict):
        return None
    inner = (_names_code(value) for value in settings.values())
    return next(chain((key for key in FORBIDDEN_KEYS if key in settings), filter(None, inner)), None)


def _check_shards(index: Path) -> None:
    """An index may name safetensors files beside it, and nothing else: it says what is opened."""
    shards = _read(index).get("weight_map")
    for shard in set(map(str, shards.values() if isinstance(shards, dict) else ())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError(
                f"{index.name} in {index.parent} names {shard!r}, which is no safetensors file beside it; "
                "refused, fetch the model again"
            )


def _refuse_weights(folder: Path) -> None:
    pickle = next((file for pattern in PICKLES for file in folder.glob(pattern)), None)
    if pickle:
        raise ModelError(
            f"{pickle.name} in {folder} is a pickle, which can run code; convert it to safetensors first"
        )
    raise ModelError(f"{folder} has no *.safetensors weights")


def _json_files(folder: Path) -> Iterator[Path]:
    yield from (file for file in folder.glob("*config*.json") if file.is_file())


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not valid JSON ({error}); fetch the model again") from error
    return content if isinstance(content, dict) else {}


def eos_ids(folder: Path) -> frozenset[int]:
    """The ids that end an answer, from the only generation setting taken from a repository."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            ids = _read(folder / name).get("eos_token_id")
            ends = ids if isinstance(ids, list) else [] if ids is None else [ids]
            if not all(isinstance(end, int) for end in ends):
                raise ModelError(f"{name} in {folder} has no token ids in eos_token_id: {ids!r}")
            found |= set(ends)
    return frozenset(found)


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file a model is loaded from, by name."""
    files = sorted({file for pattern in SAFE_FILES for file in folder.glob(pattern) if file.is_file()})
    return {
        file.name: _digest(file.resolve(), file.stat().st_size, file.stat().st_mtime_ns) for file in files
    }


@lru_cache(maxsize=1024)
def _digest(file: Path, size: int, changed: int) -> str:
    """Hashed once for each state of the file; `size` and `changed` only tell the states apart."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
