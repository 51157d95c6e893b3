"""Loads a GGUF file as a transformers model: settings and tokenizer as transformers reads them, weights
dequantised by gguf.

What transformers makes of the file is untrusted like a directory's: it is written to one, and read from
there by the same checks.
"""

from __future__ import annotations

import json
import logging
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from purify_hooks.local.config_keys import configuration
from purify_hooks.local.gguf_header import Block, GgufHeader, read_header
from purify_hooks.local.weight_headers import Stored
from purify_hooks.local.weights import check_loaded, from_weights, outlined, quiet, refuse_nan
from purify_plugins.errors import ModelError
from purify_plugins.tokenizers.loading import ADDED, PIECE, TOKENS, check_template, load_tokenizer, panics

log = logging.getLogger(__name__)

DIGITS = frozenset(["smollm", "starcoder", "refact", "command-r", "codeshell"])
"""Pre-tokenizers that are GPT-2's after every digit was set apart, which transformers does not know."""
PART = 2**17
"""How many numbers are dequantised by one call: as many as stay in a core's cache, in float32."""


@contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """A temporary directory with the settings and the tokenizer of a GGUF file, as transformers writes them.

    Raises ModelError for an architecture or a tokenizer that transformers cannot make of it.
    """
    header = read_header(file)
    with TemporaryDirectory(prefix="purify-") as made:
        folder = Path(made)
        _write(folder / "config.json", _settings(header))
        _write(folder / "generation_config.json", {"eos_token_id": sorted(header.ends)})
        _write_tokenizer(header, folder)
        yield folder


def unpacked_tokenizer(file: Path) -> Any:
    """The tokenizer of a GGUF file, with its chat template. Raises ModelError."""
    with TemporaryDirectory(prefix="purify-") as made:
        _write_tokenizer(read_header(file), Path(made))
        return load_tokenizer(Path(made))


def _write(file: Path, settings: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(settings, default=_plain), "utf-8")


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's own, for JSON."""
    return value.tolist()


def _settings(header: GgufHeader) -> Mapping[str, Any]:
    """config.json's content, as transformers translates the file's settings."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with TemporaryDirectory(prefix="purify-") as made, quiet():
        skeleton = _skeleton(header, Path(made) / "header.gguf")
        try:
            found: dict[str, Any] = load_gguf_checkpoint(skeleton, return_tensors=False)["config"]
        except Exception as error:  # transformers raises many kinds for one cause: not a model it can load
            raise _unknown(header, error) from error
    size = header.settings.get(f"{header.architecture}.vocab_size", len(header.tokens))
    return {**found, "vocab_size": size}


def _unknown(header: GgufHeader, error: Exception) -> ModelError:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES as KNOWN

    if header.architecture in KNOWN:
        return ModelError(f"{header.file} does not load as a causal language model: {error}")
    return ModelError(
        f"{header.file} holds a model of llama.cpp's architecture {header.architecture[:80]!r}, which this "
        f"transformers does not read from GGUF (it reads {', '.join(sorted(KNOWN))}); take the model in "
        "safetensors, or run the file with source = 'gguf'"
    )


def _skeleton(header: GgufHeader, file: Path) -> Path:
    """A GGUF file with the settings and the tensors' names, without vocabulary and weights.

    transformers reads its settings by gguf's reader, which needs 40 s for Qwen's vocabulary where two cores
    are shared, and the names alone decide whether the embeddings are tied.
    """
    kept = list(header.raw.values())
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(header.tensors), len(kept)), *kept]
    for at, name in enumerate(header.tensors):
        spelled = name.encode()
        parts.append(struct.pack("<Q", len(spelled)) + spelled + struct.pack("<IQIQ", 1, 1, 0, 32 * at))
    content = b"".join(parts)
    stride = header.settings.get("general.alignment", 32)
    file.write_bytes(content + bytes(-len(content) % stride + 32 * len(header.tensors)))
    return file


def _write_tokenizer(header: GgufHeader, folder: Path) -> None:
    """Write the file's tokenizer with its chat template. Raises ModelError."""
    from transformers import PreTrainedTokenizerFast

    _check_vocabulary(header)
    with panics(f"the tokenizer in {header.file} does not load"), quiet():
        made = PreTrainedTokenizerFast.from_pretrained(header.file.parent, gguf_file=header.file.name)
        if header.settings.get("tokenizer.ggml.pre") in DIGITS:
            _set_digits_apart(made.backend_tokenizer)
        made.save_pretrained(folder)


def _check_vocabulary(header: GgufHeader) -> None:
    """Raise ModelError for a vocabulary that is too large, or names tokens that it does not have."""
    said, file, size = header.settings, header.file, len(header.tokens)
    longest = max(map(len, header.tokens))
    special = sum(kind in (3, 4) for kind in said.get("tokenizer.ggml.token_type", ()))
    if size > TOKENS or longest > PIECE or special > ADDED:
        raise ModelError(
            f"{file} has {size:,} tokens, {special:,} of them added, the longest of {longest:,} characters; "
            f"at most {TOKENS:,}, {ADDED:,} and {PIECE:,} are read"
        )
    if len(set(header.tokens)) < size:
        raise ModelError(f"{file} has one token under two ids; fetch the model again")
    for name in ("bos", "eos", "unknown", "padding"):
        token = said.get(f"tokenizer.ggml.{name}_token_id", 0)
        if type(token) is not int or not 0 <= token < size:
            raise ModelError(
                f"tokenizer.ggml.{name}_token_id in {file} is {token!r}, which is no token of it"
            )
    check_template(said.get("tokenizer.chat_template"), file)


def _set_digits_apart(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def load_gguf(file: Path, folder: Path, dtype: Any, device_map: str | None) -> Any:
    """The causal language model of a GGUF file, which `unpacked` has written to `folder`.

    `dtype` is torch's; "auto" is float32, since nothing is stored in a type of torch. Raises ModelError.
    """
    header = read_header(file)
    wanted = torch.float32 if dtype == "auto" else dtype
    config, kind = configuration(folder)
    sizes = {name: Stored("GGUF", each.shape, file) for name, each in header.tensors.items()}
    outline = outlined(config, kind, sizes, file)
    state = _weights(header, outline, wanted)
    model, info = from_weights(kind, file, config, wanted, device_map, state)
    check_loaded(
        model, info, {name: Stored("GGUF", tuple(each.shape), file) for name, each in state.items()}, file
    )
    refuse_nan(model, file)
    return model


def _weights(header: GgufHeader, outline: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights by transformers' names, dequantised, in its shapes. Raises ModelError."""
    from transformers import modeling_gguf_pytorch_utils as theirs

    config = outline.config.to_dict()
    made_by: Any = theirs.TENSOR_PROCESSORS.get(header.architecture, theirs.TensorProcessor)
    processor = made_by(config=config)
    names = theirs.get_gguf_hf_weights_map(_Outline(outline, outline.config), processor)
    made: dict[str, Tensor] = {}  # a processor itself puts here what it joins of several tensors
    left: list[str] = []
    for name, numbers in _read(header):
        given = processor.process(
            weights=numbers,
            name=name,
            tensor_key_mapping=names,
            parsed_parameters={"tensors": made, "config": config},
        )
        if given.name in names:
            made[names[given.name]] = _owned(given.weights).to(dtype)
        elif given.name is not None:
            left.append(name)
    _judge(left, header)
    return made


class _Outline:
    """A model's weights and those of its parts, without the parts' own.

    transformers looks names up in every module of a model, and gguf makes its table of names anew for each
    (319 times for Qwen, 4 s); no model needs more than its parts' names.
    """

    def __init__(self, model: Any, config: Any, deep: bool = True) -> None:
        self.config, self.state_dict = config, model.state_dict
        self._parts = dict(model.named_children()) if deep else {}

    def named_children(self) -> list[tuple[str, _Outline]]:
        return [(name, _Outline(part, self.config, deep=False)) for name, part in self._parts.items()]


def _owned(numbers: Any) -> Tensor:
    """The numbers as a tensor that may be written to: a view of the file is copied, nothing else."""
    plain = np.ascontiguousarray(numbers)
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy())


def _judge(left: Sequence[str], header: GgufHeader) -> None:
    """Warn of tensors without a place in transformers' model; refuse those without which rows differ."""
    if "rope_freqs.weight" in left:
        raise ModelError(
            f"{header.file} scales positions by rope_freqs.weight, which transformers does not read from "
            "GGUF, so that its rows would differ; take the model in safetensors, or source = 'gguf'"
        )
    if left:
        log.warning(
            "%s: %d tensors have no place in transformers' model and were not loaded, first %s",
            header.file,
            len(left),
            left[0],
        )


def _read(header: GgufHeader) -> Iterator[tuple[str, Any]]:
    """Every tensor's name and its numbers in float32, several parts dequantised at once."""
    content = np.memmap(header.file, mode="r")
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        begun = deque(
            (name, *_begun(threads, content, block, header.file)) for name, block in header.tensors.items()
        )
        while begun:
            name, numbers, parts = begun.popleft()
            for part in parts:
                part.result()
            yield name, numbers


def _begun(
    threads: ThreadPoolExecutor, content: Any, block: Block, file: Path
) -> tuple[Any, list[Future[None]]]:
    """A tensor's numbers (its shape) in float32, unfinished, and the parts that are being written."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType(block.kind)
    per, size = GGML_QUANT_SIZES[kind]
    made = np.empty(block.shape, dtype=np.float32)
    numbers, stored = made.reshape(-1), content[block.start : block.start + block.size]
    step = max(PART // per, 1)
    return made, [
        threads.submit(
            _dequantise,
            stored[at * size : (at + step) * size],
            kind,
            numbers[at * per : (at + step) * per],
            file,
        )
        for at in range(0, block.size // size, step)
    ]


def _dequantise(stored: Any, kind: Any, numbers: Any, file: Path) -> None:
    """Write the numbers that the bytes `stored` stand for into `numbers` (n,). Raises ModelError."""
    from gguf import dequantize

    try:
        # as one row: gguf itself takes sixteen rows at a time, which for a large vocabulary is mostly calls
        numbers[:] = dequantize(stored.reshape(1, -1), kind).reshape(-1)
    except NotImplementedError as error:
        raise ModelError(
            f"{file} is quantised as {kind.name}, which this gguf cannot undo; run it with source = 'gguf', "
            "or take another quantisation"
        ) from error
