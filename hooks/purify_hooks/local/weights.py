"""Load a model's weights, and refuse those that are not all of the model that its configuration describes.

transformers fills what a checkpoint lacks with random numbers and says so in a log. A model of random
numbers answers too, so nothing may be missing, and nothing of another shape.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from purify_hooks.local.config_keys import configuration
from purify_hooks.local.weight_headers import Stored, refuse_packed, stored
from purify_plugins.errors import ModelError
from purify_plugins.utils.locks import ForkedLock

log = logging.getLogger(__name__)

BUFFERS = re.compile(
    r".*(inv_freq|cos_cached|sin_cached|masked_bias|attn\.bias|attention\.bias|position_ids|_float_tensor|rope\.\w+)"
)
"""Buffers that are computed when a model is made, so that a checkpoint may leave them out."""
EXTRA = 2**27
"""How many numbers a model's buffers may have besides its weights: half a gigabyte in float32."""
_LOADING = ForkedLock(reentrant=True)


def load_model(folder: Path, dtype: Any, device_map: str | None) -> Any:
    """The causal language model in `folder`, every weight of it from there.

    `dtype` is torch's or "auto"; `device_map` is accelerate's. Raises ModelError.
    """
    tensors = stored(folder)
    refuse_packed(tensors)
    config, kind = configuration(folder)
    outline = outlined(config, kind, tensors, folder)
    _refuse_untied(outline, tensors)
    model, info = from_weights(kind, folder, config, dtype, device_map)
    check_loaded(model, info, tensors, folder)
    _check_ignored(outline, tensors, folder)
    refuse_nan(model, folder)
    return model


def attention(kind: Any) -> str:
    """The attention implementation of a class of models: torch's own, or "eager" if it has no other."""
    return "sdpa" if kind._supports_sdpa else "eager"


def from_weights(
    kind: Any,
    place: Path,
    config: Any,
    dtype: Any,
    device_map: str | None,
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[Any, Any]:
    """transformers' model, and its `missing_keys`, `unexpected_keys` and `mismatched_keys`.

    Its weights are those in the directory `place`, or `weights` by name.
    """
    from transformers import GenerationConfig

    try:
        with quiet():
            return kind.from_pretrained(  # type: ignore[no-any-return]  # transformers is untyped here
                place if weights is None else None,
                state_dict=weights,
                config=config,
                dtype=dtype,
                device_map=device_map,
                attn_implementation=attention(kind),
                generation_config=GenerationConfig(),  # so that the repository's is not read
                ignore_mismatched_sizes=True,  # so that we can name them
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
    except Exception as error:  # transformers raises many kinds for one cause: not a model it can load
        raise ModelError(f"{place} does not load as a causal language model: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' report of missing weights, which are errors here, and its progress bars.

    Threads take turns: while transformers loads a model it changes its own classes and torch's defaults for
    the whole process, and a model that another thread makes meanwhile lacks what ties its weights.
    """
    from transformers.utils import logging as theirs

    with _LOADING:
        before, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
        theirs.set_verbosity_error()
        theirs.disable_progress_bar()
        try:
            yield
        finally:
            theirs.set_verbosity(before)
            if bars:
                theirs.enable_progress_bar()


def outlined(config: Any, kind: Any, tensors: Mapping[str, Stored], folder: Path) -> Any:
    """The model on the meta device. Raises ModelError for one that is larger than its weights."""
    there = sum(_numbers(tensor.shape) for tensor in tensors.values())
    try:
        with quiet(), _counting(there, len(tensors), folder), torch.device("meta"):
            outline = kind._from_config(config, attn_implementation=attention(kind))
    except ModelError:
        raise
    except Exception as error:  # transformers raises many kinds for one cause: not a model it can load
        raise ModelError(f"{folder} does not load as a causal language model: {error}") from error
    wanted = sum(parameter.numel() for parameter in outline.parameters())
    tables = sum(buffer.numel() for buffer in outline.buffers())
    if wanted > there:
        raise ModelError(
            f"config.json in {folder} describes a model of {wanted:,} numbers, its weights are {there:,}"
            f"{_first_absent(outline, tensors)}; fetch the model again"
        )
    if tables > there + EXTRA:
        raise ModelError(f"config.json in {folder} asks for tables of {tables:,} numbers; correct its sizes")
    return outline


def _numbers(shape: Iterable[int]) -> int:
    count = 1
    for each in shape:
        count *= each
    return count


@contextmanager
def _counting(there: int, tensors: int, folder: Path) -> Iterator[None]:
    """End the making of a model in this thread as soon as it is far larger than its weights are."""
    thread, seen = get_ident(), 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal seen
        if get_ident() != thread or parameter is None:
            return
        seen += 1
        if seen > 4 * tensors + 64 or parameter.numel() > 2 * there:  # tied and fused ones are made too
            raise ModelError(
                f"config.json in {folder} describes a model that is larger than its weights, which are "
                f"{tensors:,} tensors of {there:,} numbers in all; fetch the model again"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _spellings(name: str, prefix: str) -> tuple[str, ...]:
    """A weight's names in files, with and without the prefix of the model's body."""
    return name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"


def _stored_as(name: str, model: Any, tensors: Mapping[str, Stored]) -> Stored | None:
    found = (tensors.get(each) for each in _spellings(name, model.base_model_prefix))
    return next((each for each in found if each), None)


def _first_absent(outline: Any, tensors: Mapping[str, Stored]) -> str:
    names = [name for name, _ in outline.named_parameters()]
    absent = [name for name in names if not _stored_as(name, outline, tensors)]
    return (
        f" ({absent[0]} is missing)" if 0 < len(absent) < len(names) else ""
    )  # llama.cpp names all otherwise


def _tied(model: Any) -> list[list[str]]:
    """The names of tied weights, in groups."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _refuse_untied(outline: Any, tensors: Mapping[str, Stored]) -> None:
    """Raise ModelError if the configuration ties two weights that differ in the file."""
    for names in _tied(outline):
        kept = [
            (each, tensors[each])
            for name in names
            for each in dict.fromkeys(_spellings(name, outline.base_model_prefix))
            if each in tensors
        ]
        for name, tensor in kept[1:]:
            if tensor.shape != kept[0][1].shape or not _alike(*kept[0], name, tensor):
                raise ModelError(
                    f"{kept[0][0]} and {name} in {tensor.file.parent} differ, where config.json says that "
                    "they are one (tie_word_embeddings); correct config.json"
                )


def _alike(one: str, first: Stored, other: str, second: Stored) -> bool:
    """Whether two stored tensors of one shape hold the same numbers; a few rows at a time."""
    from safetensors import safe_open

    with safe_open(first.file, "pt") as left, safe_open(second.file, "pt") as right:
        ours, theirs = left.get_slice(one), right.get_slice(other)
        steps = range(0, first.shape[0] if first.shape else 1, 4096)
        return all(_equal(ours[at : at + 4096], theirs[at : at + 4096]) for at in steps)


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.float(), other.float())


def check_loaded(model: Any, info: Mapping[str, Any], tensors: Mapping[str, Stored], folder: Path) -> None:
    """Raise ModelError for a missing weight or one of another shape; warn of unused ones."""
    # transformers 4.57 names them, 5 adds both shapes.
    for name in sorted(each if isinstance(each, str) else each[0] for each in info["mismatched_keys"]):
        found = _stored_as(name, model, tensors)
        needs = tuple(model.state_dict()[name].shape)
        raise ModelError(
            f"{name} in {folder} has the shape {found.shape if found else 'of another'}, "
            f"{type(model).__name__} needs {needs}; config.json and the weights are of two models"
        )
    if missing := sorted(name for name in info["missing_keys"] if not BUFFERS.fullmatch(name)):
        raise _missing(missing, info["unexpected_keys"], type(model).__name__, folder)
    if info.get("error_msgs"):
        raise ModelError(f"{folder} does not load as a causal language model: {info['error_msgs'][0]}")
    if unexpected := sorted(name for name in info["unexpected_keys"] if not BUFFERS.fullmatch(name)):
        _judge(unexpected, model, folder)
        left = sum(_numbers(tensors[name].shape) for name in unexpected if name in tensors)
        if 2 * left > sum(_numbers(tensor.shape) for tensor in tensors.values()):
            raise ModelError(
                f"most of the weights in {folder} have no place in {type(model).__name__}, first "
                f"{unexpected[0]}; config.json and the weights are of two models"
            )


def _missing(missing: list[str], unexpected: Iterable[str], kind: str, folder: Path) -> ModelError:
    """The missing weights, and the similar name that each may have in the file."""
    there = sorted(unexpected)
    renamed = {name: other for name in missing for other in there if other.endswith(f".{name}")}
    first = next(iter(renamed), missing[0])
    advice = "; fetch the model again, or correct config.json"
    if first in renamed:
        prefix = renamed[first].removesuffix(first)
        advice = f"; it is there as {renamed[first]}: save the model again without the prefix {prefix!r}"
    more = f" and {len(missing) - 1} more weights are" if len(missing) > 1 else " is"
    return ModelError(f"{first}{more} missing from {folder}, so that {kind} would answer at random{advice}")


def _judge(unexpected: list[str], model: Any, folder: Path) -> None:
    """Refuse weights of a part that the model has, or of layers it should have; warn of any others."""
    modules = dict(model.named_modules())
    shapes = {_pattern(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    for name in unexpected:
        spelled = _spellings(name, model.base_model_prefix)
        if any(_within_a_part(each, modules) or _pattern(each) in shapes for each in spelled):
            raise ModelError(
                f"{name} in {folder} has no place in the {type(model).__name__} that config.json describes; "
                "config.json and the weights are of two models"
            )
    log.warning(
        "%s: %d tensors have no place in %s and were not loaded, first %s",
        folder,
        len(unexpected),
        type(model).__name__,
        unexpected[0],
    )


def _within_a_part(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the weight `name` belongs inside a module with weights of its own, or inside a numbered layer.

    Adapters that were not merged (`q_proj.lora_A.weight`) and norms that this model's layers lack are such
    weights: without them the layer computes something else.
    """
    path = name.rpartition(".")[0]
    while path and path not in modules:
        path = path.rpartition(".")[0]
    if not path:
        return False
    has_weights = next(modules[path].parameters(recurse=False), None) is not None
    return has_weights or re.search(r"\.\d+(\.|$)", path) is not None


def refuse_nan(model: Any, folder: Path) -> None:
    """Raise ModelError for a weight that holds NaN. Weights that are not in memory are not read for it."""
    for name, weight in model.named_parameters():
        if weight.is_meta or not bool(weight.sum().isnan()):
            continue
        if bool(weight.isnan().any()):  # a sum of infinities of both signs is NaN too
            raise ModelError(f"{name} in {folder} holds NaN, which is no weight; fetch the model again")


def _pattern(name: str) -> str:
    """A weight's name without its layer."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def _check_ignored(outline: Any, tensors: Mapping[str, Stored], folder: Path) -> None:
    """Raise ModelError for a missing weight that transformers does not report."""
    tied = {name: names for names in _tied(outline) for name in names}
    patterns = [re.compile(each) for each in outline._keys_to_ignore_on_load_missing or ()]
    for name, _ in outline.named_parameters():
        if any(each.search(name) for each in patterns):
            names = tied.get(name, [name])
            if not any(_stored_as(each, outline, tensors) for each in names):
                raise _missing([name], (), type(outline).__name__, folder)


def refuse_another_vocabulary(model: Any, tokenizer: Any, folder: Path) -> None:
    """Raise ModelError when the tokenizer belongs to a model of another vocabulary.

    A model may be padded to a round number of rows, and tokens that were added later may have none.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    ids = len(tokenizer)
    if tokenizer.vocab_size > rows or max(rows, ids) > min(rows, ids) * 5 // 4 + 1024:
        raise ModelError(
            f"the tokenizer in {folder} has {ids:,} tokens and the model {rows:,} rows for them; they are of "
            "two models, fetch both again"
        )
