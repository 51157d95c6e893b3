"""The options of `generate` as sampling options; unsupported ones are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import GenerationConfig

from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.sampling import Sampling

DRAWN = tuple(field.name for field in fields(Sampling) if field.name in vars(GenerationConfig()))
"""Options that `Sampling` has too."""
SUPPORTED = frozenset(
    (
        *DRAWN,
        *("do_sample", "max_length", "max_new_tokens", "stop_strings", "eos_token_id", "pad_token_id"),
        *("num_return_sequences", "return_dict_in_generate"),
    )
)
HARMLESS = frozenset(
    (
        *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size"),
        *("compile_config", "disable_compile", "renormalize_logits", "low_memory", "bos_token_id"),
        *("transformers_version", "_from_model_config", "tokenizer", "synced_gpus"),
    )
)
"""Options that change no answer here: cache, tokenizer, normalisation."""
DEFAULT_LENGTH = 20
"""The default number of new tokens, as in transformers."""
SUGGESTED = frozenset((*DRAWN, "do_sample", "max_length", "max_new_tokens", "pad_token_id"))
"""The settings taken from a model's own generation config, which is untrusted; ends are the SLM's."""


@dataclass(frozen=True)
class GenerateSettings:
    """One call of `generate`. `ends` are token ids that end an answer besides the SLM's own."""

    sampling: Sampling
    pad: int
    copies: int = 1
    ends: frozenset[int] = frozenset()
    as_dict: bool = False


def sanitised(config: GenerationConfig | None) -> GenerationConfig:
    """A generation config reduced to lengths and sampling: nothing that forces or bans tokens."""
    said = {} if config is None else config.to_diff_dict()
    return GenerationConfig(**{name: value for name, value in said.items() if name in SUGGESTED})


def settings(
    own: GenerationConfig,
    given: GenerationConfig | None,
    options: Mapping[str, Any],
    width: int,
    eos: frozenset[int],
) -> GenerateSettings:
    """The settings of one call: its options override its generation config, which overrides the model's own.

    `width` is the prompts' length in tokens, `eos` the purifier's ends. Raises ConfigError.
    """
    asked = {**_said(given), **{name: value for name, value in options.items() if value is not None}}
    refuse(asked)
    asked = {**{name: value for name, value in _said(own).items() if name in SUPPORTED}, **asked}
    ends = _ids(asked.get("eos_token_id"))
    sampling = _sampling(asked, _room(asked, width))
    pad = asked.get("pad_token_id")
    copies = int(asked.get("num_return_sequences") or 1)
    if copies > 1 and sampling.greedy:
        raise ConfigError("num_return_sequences above 1 needs do_sample=True; greedy answers are all alike")
    return GenerateSettings(
        sampling,
        min(ends or eos, default=0) if pad is None else int(pad),
        copies,
        ends - eos,
        bool(asked.get("return_dict_in_generate")),
    )


def _said(config: GenerationConfig | None) -> dict[str, Any]:
    """The settings that differ from the defaults."""
    said = {} if config is None else config.to_diff_dict()
    return {name: value for name, value in said.items() if value is not None}


def refuse(asked: Mapping[str, Any]) -> None:
    """Raise ConfigError for an unsupported option that is not off."""
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    for name, value in asked.items():
        if name in SUPPORTED | HARMLESS or _is_off(name, value):
            continue
        if name not in known | REFUSED:
            raise UnknownNameError("option of generate", name, SUPPORTED)
        raise ConfigError(
            f"a purified model does not do {name}={_shown(value)}, for only the fused row may choose tokens; "
            f"it does {', '.join(sorted(SUPPORTED))}"
        )


REFUSED = frozenset(
    (
        *("logits_processor", "prefix_allowed_tokens_fn", "assistant_model", "assistant_tokenizer"),
        *("negative_prompt_ids", "negative_prompt_attention_mask", "custom_generate", "trust_remote_code"),
        *("inputs_embeds", "past_key_values", "cache", "cache_params", "position_ids"),
        *("token_type_ids", "num_beam_groups"),
        *("constraints", "force_words_ids", "penalty_alpha", "dola_layers", "diversity_penalty"),
    )
)
OFF: Mapping[str, Any] = {
    **dict.fromkeys(("num_beams", "num_beam_groups"), 1),
    **dict.fromkeys(("length_penalty", "encoder_repetition_penalty", "guidance_scale"), 1.0),
    **dict.fromkeys(
        ("min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), 0
    ),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "diversity_penalty"), 0.0),
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
}
"""The value at which each option does nothing."""


def _is_off(name: str, value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return name == "token_type_ids" and not bool(value.any())
    empty = isinstance(value, Sequence) and not value
    return value is None or value is False or empty or (name in OFF and value == OFF[name])


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, int | float | str) else f"<{type(value).__name__}>"


def _room(asked: Mapping[str, Any], width: int) -> int:
    """The most new tokens: `max_new_tokens`, else `max_length` minus the prompt's width."""
    if asked.get("max_new_tokens") is not None:
        return int(asked["max_new_tokens"])
    total = asked.get("max_length")
    room = DEFAULT_LENGTH if total is None else int(total) - width
    if room < 1:
        raise ConfigError(f"max_length={total} leaves no room after a prompt of {width}; use max_new_tokens")
    return room


def _sampling(asked: Mapping[str, Any], room: int) -> Sampling:
    """The sampling options; the seed is drawn from torch, so that `torch.manual_seed` repeats answers."""
    stop = asked.get("stop_strings") or ()
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    drawn = {name: asked[name] for name in DRAWN if asked.get(name) is not None}
    if not asked.get("do_sample"):
        penalty = drawn.get("repetition_penalty", 1.0)
        return Sampling(max_tokens=room, temperature=0.0, repetition_penalty=penalty, stop=stop)
    seed = int(torch.randint(2**31, ()))
    return Sampling(max_tokens=room, seed=seed, stop=stop, **{"top_k": 50, **drawn})


def _ids(ends: Any) -> frozenset[int]:
    if isinstance(ends, torch.Tensor):
        ends = ends.tolist()
    several = ends if isinstance(ends, list | tuple) else [ends]
    return frozenset(int(end) for end in several if end is not None and int(end) >= 0)
