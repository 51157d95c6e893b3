"""Filters an untrusted config.json: only keys that the model's own type declares reach transformers.

So a key of a later transformers that downloads or selects code has no effect until it is reviewed. Known
keys of that kind are refused by name.
"""

from __future__ import annotations

import dis
import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

from purify_hooks.local.config_values import WORD, check_value, endless
from purify_hooks.local.model_types import causal, check_architecture
from purify_plugins.errors import ModelError
from purify_plugins.utils.model_files import read_json

log = logging.getLogger(__name__)

CODE = re.compile(
    r"auto_map|custom_generate|custom_pipelines?|trust_remote_code|quantization_config|compression_config"
    r"|fusion_config|distributed_config|transformers_weights|\w*_implementation(_internal)?|use_kernels"
)
"""Keys by which transformers runs or downloads code, or reads weights from elsewhere."""
BUILT_IN = frozenset(
    ["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "batched_mm", "grouped_mm"]
)
"""Allowed values for implementations of attention and experts; all are transformers' own, and unused."""
BIDIRECTIONAL = "use_bidirectional_attention"
"""May also be "vision": bidirectional attention for image tokens, of which there are none."""
BOTH_WAYS: Mapping[str, Any] = {
    "use_bidirectional_attention": True,
    "is_causal": False,
    "causal": False,
    "is_decoder": False,
}
"""Keys, and their value for bidirectional attention."""
ALWAYS = frozenset(
    [
        "model_type",
        "vocab_size",
        "tie_word_embeddings",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "dtype",
        "torch_dtype",
        "head_dim",
        "layer_types",
        "sliding_window",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "partial_rotary_factor",
        "original_max_position_embeddings",
        "max_position_embeddings",
    ]
)
"""Keys of every type, some by names of older files."""
NEVER = frozenset({"quantization_config", "model_type"})
"""Keys in some types' code that are not taken from a file."""
INERT = frozenset(
    [
        "_name_or_path",
        "_model_name_or_path",
        "name_or_path",
        "_commit_hash",
        "architectures",
        "transformers_version",
        "id2label",
        "label2id",
        "num_labels",
        "task_specific_params",
        "torchscript",
        "pruned_heads",
        "finetuning_task",
        "tokenizer_class",
        "prefix",
        "problem_type",
        "return_dict",
        "chunk_size_feed_forward",
        "use_bfloat16",
        "tf_legacy_loss",
        "output_hidden_states",
        "output_attentions",
        "is_decoder",
        "is_encoder_decoder",
        "is_causal",
        "causal",
        "use_cache",
        "_attn_implementation",
        "attn_implementation",
        "experts_implementation",
        "_attn_implementation_autoset",
        "gradient_checkpointing",
        "cross_attention_hidden_size",
        "add_cross_attention",
        "tie_encoder_decoder",
        "sep_token_id",
        "unk_token_id",
        "decoder_start_token_id",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "repetition_penalty",
        "length_penalty",
        "no_repeat_ngram_size",
        "num_beams",
        "num_beam_groups",
        "num_return_sequences",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "max_length",
        "min_length",
        "max_new_tokens",
        "bad_words_ids",
        "suppress_tokens",
        "begin_suppress_tokens",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "remove_invalid_values",
        "return_dict_in_generate",
        "output_scores",
    ]
)
"""Common keys that no logit depends on; left out without a log line."""


def declared(kind: Any) -> frozenset[str]:
    """The keys that a configuration class takes: its fields, their other names, what its own code reads."""
    return _declared(kind) | ALWAYS


@cache
def _declared(kind: Any) -> frozenset[str]:
    from transformers import PretrainedConfig

    ours = [
        each for each in kind.__mro__ if issubclass(each, PretrainedConfig) and each is not PretrainedConfig
    ]
    base = {each.name for each in fields(PretrainedConfig)} if is_dataclass(PretrainedConfig) else set()
    names = {each.name for each in fields(kind)} - base if is_dataclass(kind) else set()
    for each in ours:
        names |= {*each.attribute_map, *each.attribute_map.values(), *_own_code(each)}
    names |= {name for each in ours for name in getattr(each, "sub_configs", {})}  # transformers' own class
    return frozenset(names - NEVER - INERT)


def _own_code(kind: type) -> Iterator[str]:
    """The arguments of a class's constructor, and the names by which it reads the rest."""
    for name in ("__init__", "__post_init__"):
        written = inspect.unwrap(kind.__dict__.get(name, _nothing))
        if inspect.isfunction(written) and written.__module__ == kind.__module__:
            yield from set(inspect.signature(written).parameters) - {"self", "args", "kwargs"}
            yield from _words(written.__code__)
    yield from (name for name, each in vars(kind).items() if isinstance(each, property) and each.fset)


def _nothing() -> None:
    """The constructor of a class without one of its own."""


def _words(code: CodeType) -> Iterator[str]:
    """The attributes that a function sets, and the strings in it that could be keys."""
    for each in dis.get_instructions(code):
        if each.opname == "STORE_ATTR":
            yield each.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)
        for word in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(word, str) and word.isidentifier():
                yield word


def refuse_keys(settings: Any, file: Path) -> None:
    """Raise ModelError for a key, at any depth, that would run, download or select code."""
    for key, value in _items(settings):
        if _names_code(key, value):
            raise ModelError(
                f"{file.name} in {file.parent} names code to run ({key!r}); refused, remove the key or use "
                "a plain, unquantised model"
            )


def _names_code(key: str, value: Any) -> bool:
    if CODE.fullmatch(key):
        return value is not None and not (isinstance(value, str) and value in BUILT_IN)
    named = isinstance(value, dict) or (isinstance(value, str) and not WORD.fullmatch(value))
    return "kernel" in key and named  # the size of a convolution is a number


def _items(settings: Any) -> Iterator[tuple[str, Any]]:
    """Every key and its value, at any depth."""
    if isinstance(settings, dict):
        yield from settings.items()
    inner = (
        settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else ()
    )
    for each in inner:
        if isinstance(each, dict | list):
            yield from _items(each)


def configuration(folder: Path) -> Any:
    """The transformers configuration of the model in `folder`, and the class that it is of.

    Raises ModelError for a type that is no causal language model's, or settings that are none.
    """
    file = folder / "config.json"
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise ModelError(
            f"{folder} does not load as a causal language model: config.json holds no JSON object"
        )
    refuse_keys(settings, file)
    kind, model = causal(settings.get("model_type"), file)
    _refuse_both_ways(settings, kind, file)
    check_architecture(settings.get("architectures"), model, file)
    if settings.get("is_encoder_decoder"):
        raise ModelError(f"{file} describes a model with an encoder; only causal models can be fused")
    kept = allowed(kind, settings, file)
    try:
        made = kind.from_dict(kept)
        text = made.get_text_config()
    except Exception as error:  # transformers raises many kinds for one cause: settings that make no model
        raise ModelError(f"{file} does not describe a causal language model: {error}") from error
    return (text if model.config_class is type(text) else made), model


def _refuse_both_ways(settings: Any, kind: Any, file: Path) -> None:
    for key, value in _items(settings):
        wrong = value is BOTH_WAYS.get(key, _nothing) or (
            key == BIDIRECTIONAL and value not in ("vision", False, None)
        )
        if wrong and not (key == "is_decoder" and _default(kind, key) is value):
            raise ModelError(
                f"{file} makes the model read both ways ({key} = {value!r}); only causal models can be "
                "fused, whose rows depend on nothing that follows"
            )


def _default(kind: Any, key: str) -> Any:
    """A configuration class's own default of a key: GPT-NeoX is causal, with is_decoder False."""
    found = inspect.signature(kind).parameters.get(key)
    return found.default if found else None


def allowed(kind: Any, settings: Mapping[str, Any], file: Path, inside: str = "") -> dict[str, Any]:
    """Those of the settings that `kind` declares, checked. Raises ModelError."""
    parts = getattr(kind, "sub_configs", {})  # transformers' own class
    names = declared(kind)
    kept: dict[str, Any] = {}
    for key, said in settings.items():
        value = endless(key, said)
        if key in parts and isinstance(value, dict):
            kept[key] = allowed(parts[key], value, file, f"{inside}{key}.")
        elif key in names and not (value is None and key in ALWAYS):
            check_value(inside + key, key, value, file)
            kept[key] = value
    if left := sorted({*settings} - names - INERT - {"model_type"}):
        _warn_once(str(file), kind.__name__, ", ".join(map(repr, left))[:500])
    return kept


@cache
def _warn_once(file: str, kind: str, left: str) -> None:
    """Log which keys were left out; once, since a file is read when it is checked and when it is loaded."""
    log.warning("%s: %s declares no %s; left out", file, kind, left)
