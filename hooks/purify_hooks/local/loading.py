"""Finds or downloads a model's files, and refuses those that could run code.

A model repository is untrusted. Read are safetensors, GGUF, JSON and tokenizer files; never read are pickles,
Python files, `auto_map` and `custom_generate`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from pathlib import Path

from purify_hooks.local.config_keys import refuse_keys
from purify_hooks.local.gguf_header import read_header
from purify_plugins.errors import ConfigError, ModelError
from purify_plugins.tokenizers.loading import has_tokenizer
from purify_plugins.utils.model_files import download, eos_ids, read_json, require_regular

__all__ = [
    "check_files",
    "eos_ids",
    "file_digests",
    "file_states",
    "find_gguf",
    "find_gguf_tokenizer",
    "find_model",
    "model_ends",
]

log = logging.getLogger(__name__)

SAFE_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken"]
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".onnx")
ANY_SIZE = 2**60


def find_model(model: str | Path, revision: str | None = None) -> Path:
    """The directory of `model`, or its GGUF file: a local path, or a hub id whose safe files are fetched.

    Raises ModelError when there is no such model, or its files are unsafe; ConfigError for what is no name.
    """
    if not isinstance(model, str | Path) or not str(model).strip():
        raise ConfigError(
            f"source 'local': model must be a directory, a GGUF file or a hub id, not {model!r}"
        )
    place = Path(model).expanduser()
    if file := find_gguf(place):
        return file
    if not place.is_dir():
        _refuse_file(place)
        place = download(str(model), SAFE_FILES, revision)
    check_files(place)
    return place


def find_gguf(place: Path) -> Path | None:
    """The GGUF file that is meant: `place` itself, or the only one in a directory without safetensors.

    Raises ModelError where there are several.
    """
    if not place.is_dir():
        return place if place.suffix == ".gguf" and place.exists() else None
    if any(place.glob("*.safetensors")):
        return None
    found = sorted(place.glob("*.gguf"))
    if len(found) > 1:
        names = ", ".join(each.name for each in found[:5])
        raise ModelError(f"{place} holds {len(found)} GGUF files ({names}); name one of them")
    return found[0] if found else None


def find_gguf_tokenizer(name: str) -> Path | None:
    """The GGUF file that a tokenizer is read from: the one named, or a directory's that has no other.

    Raises ModelError where there are several.
    """
    place = Path(name).expanduser()
    return None if has_tokenizer(place) else find_gguf(place)


def _refuse_file(file: Path) -> None:
    """Raise ModelError for a file where a directory is wanted, with what to do about its kind."""
    if not file.exists():
        return
    if file.suffix in WEIGHTS:
        advice = "a file of weights; give the directory it is in, which has config.json too"
    else:
        advice = "a file; give the directory of a transformers model, or a hub id"
    raise ModelError(f"{str(file)!r} is {advice}")


def check_files(folder: Path) -> None:
    """Raise ModelError unless `folder` holds a model that loads without running anyone's code."""
    if (folder / "ngram.json").exists():
        raise ModelError(f'{folder} is a model of n-grams; write source = "ngram"')
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} has no config.json; give the directory of a transformers model")
    for file in chain.from_iterable(map(folder.glob, SAFE_FILES)):
        require_regular(file, ANY_SIZE)
    for file in folder.glob("*config*.json"):
        if file.name == "adapter_config.json":
            raise ModelError(
                f"{file.name} in {folder} names another model to load; refused, merge the adapter"
            )
        refuse_keys(read_json(file), file)
    code = next(chain(folder.glob("*.py"), folder.glob("custom_generate*")), None)
    if code:
        raise ModelError(f"{folder} brings its own code ({code.name}); refused, use a plain model directory")
    if not any(folder.glob("*.safetensors")):
        _refuse_weights(folder)


def _refuse_weights(folder: Path) -> None:
    pickle = next((file for pattern in PICKLES for file in folder.glob(pattern)), None)
    if pickle:
        raise ModelError(
            f"{pickle.name} in {folder} is a pickle, which can run code; convert it to safetensors first"
        )
    raise ModelError(f"{folder} has no *.safetensors weights")


FileState = tuple[int, int, int]
"""A file's inode, size in bytes and time of change in nanoseconds."""


def model_ends(place: Path) -> frozenset[int]:
    """The ids that end an answer of the model in a directory or GGUF file."""
    return eos_ids(place) if place.is_dir() else read_header(place).ends


def file_states(place: Path) -> dict[str, FileState]:
    """The state of every file a model is loaded from, by name."""
    files = [file for pattern in SAFE_FILES for file in place.glob(pattern)] if place.is_dir() else [place]
    found = {file.name: file.stat() for file in files if file.is_file()}
    return {name: (each.st_ino, each.st_size, each.st_mtime_ns) for name, each in sorted(found.items())}


def file_digests(place: Path, loaded: Mapping[str, FileState] | None = None) -> dict[str, str]:
    """SHA-256 of every file a model is loaded from, by name.

    `loaded` are their states when it was loaded. If any has changed since, there are no digests: they would
    not be of what was loaded.
    """
    now = file_states(place)
    loaded = now if loaded is None else loaded
    if changed := sorted(name for name in loaded if loaded[name] != now.get(name)):
        log.warning(
            "%s: %s changed after the model was loaded, so certificates name no files of it",
            place,
            changed[0],
        )
        return {}
    folder = place if place.is_dir() else place.parent
    places = {name: (folder / name).resolve() for name in loaded}
    return {name: _digest(each, *loaded[name][1:], each.stat().st_ctime_ns) for name, each in places.items()}


@lru_cache(maxsize=1024)
def _digest(file: Path, size: int, changed: int, touched: int) -> str:
    """The file's SHA-256, cached by its size, its time of change, and the one that only the system sets."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
