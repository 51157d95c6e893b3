"""The two interfaces that vLLM has for logits processors, and which one runs.

Read in vLLM's source, 0.32 and 0.33. Model Runner V2 is the default wherever Triton is; its loader takes no
V1 class. `tests/adapters/engine.py` has stand-ins written from this table, and compares it with an
installed vLLM.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from purify_plugins.errors import ConfigError, SourceError


@dataclass(frozen=True)
class Contract:
    """One runner's interface: its base class, its constructor's arguments and its methods.

    `speculates`: the processor is active during vLLM's own speculative decoding.
    """

    runner: str
    module: str
    constructor: tuple[str, ...]
    methods: tuple[str, ...]
    speculates: bool
    name: str = "LogitsProcessor"


V1 = Contract(
    "V1",
    "vllm.v1.sample.logits_processor",
    ("vllm_config", "device", "is_pin_memory"),
    ("validate_params", "apply", "is_argmax_invariant", "update_state"),
    speculates=False,
)
V2 = Contract(
    "V2",
    "vllm.v1.worker.gpu.sample.logits_processor",
    ("vllm_config", "req_states"),
    ("validate_params", "add_request", "apply_staged_writes", "apply"),
    speculates=True,
)
CONTRACTS = (V1, V2)
OFF: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_tokens": (0,),
    "logit_bias": (None, {}),
    "allowed_token_ids": (None,),
    "bad_words": (None, []),
    "structured_outputs": (None,),
    "guided_decoding": (None,),
    "thinking_token_budget": (None,),
    "trace_decode_token_ids": (None,),
    "logprobs": (None,),
    "prompt_logprobs": (None,),
    "logprob_token_ids": (None,),
    "prompt_logprob_token_ids": (None,),
}
"""Options of a request that would change the fused row, or show the LLM's, and their off values."""
SHOWING = tuple(name for name in OFF if "logprob" in name)
"""Those that show the LLM's rows."""
PLAIN = frozenset(
    (
        *("n", "temperature", "seed", "stop", "stop_token_ids", "ignore_eos", "max_tokens", "output_kind"),
        *("detokenize", "skip_special_tokens", "spaces_between_special_tokens", "flat_logprobs"),
        *("include_stop_str_in_output", "stream_interval", "skip_clone", "output_text_buffer_length"),
        *("skip_reading_prefix_cache", "repetition_detection", "prompt_logprob_start", "extra_args"),
    )
)
"""Options that change no row: how an answer ends, how often it is drawn, how it is sent."""


def v1_base() -> Any:
    """V1's base class; `object` where vLLM is not installed. Raises ConfigError for a vLLM without it."""
    try:
        return getattr(importlib.import_module(V1.module), V1.name)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "vllm":
            return object  # in documentation and tests
        raise ConfigError(
            f"this vLLM has no {V1.module}.{V1.name}, the only contract that purify speaks inside vLLM; use "
            "vLLM 0.11 to 0.33, or run `purify serve` in front of it (source = 'vllm')"
        ) from error


def admit(processor: type) -> None:
    """Let V2's loader take the class, which only checks for a subclass; its constructor serves both runners.

    A vLLM whose V2 does not import has no V2 loader.
    """
    try:
        base = getattr(importlib.import_module(V2.module), V2.name)
    except Exception:  # a module for GPUs may raise anything where there is none, and V1 runs without it
        return
    base.register(processor)


def refuse_options(params: Any) -> None:
    """Raise ValueError for an option of a request that is not known to leave the rows unchanged.

    vLLM gains options and renames them (`guided_decoding` became `structured_outputs`): one that is on no
    list here is refused unless it is at vLLM's own default.
    """
    for name, off in OFF.items():
        value = getattr(params, name, off[0])  # older and newer vLLMs lack some
        if value not in off:
            raise ValueError(
                f"{name}={value!r} would change the purified row or show the LLM's own; leave it out "
                "(the operator may set top_p and its like under [sampling] in purify.toml)"
            )
    if (params.seed or 0) < 0:
        raise ValueError(f"seed must be 0 or more, not {params.seed}; a draw is keyed by it")
    usual = type(params)()
    for name in _fields(params):
        if name not in OFF and name not in PLAIN and getattr(params, name) != getattr(usual, name):
            raise ValueError(f"{name} is an option of vLLM's that purify does not know; leave it out")


def refuse_shown(params: Any) -> None:
    """Raise SourceError, in the engine, for a request to show rows that its frontend let pass.

    A frontend of vLLM's in another language, or one that was not given the processor, checks nothing.
    """
    if all(getattr(params, name, None) is None for name in SHOWING):
        return
    warm_up = getattr(type(params), "for_sampler_warmup", None)
    if warm_up is None or params != warm_up():
        raise SourceError(
            "a request asks for the LLM's own rows (logprobs); give --logits-processors to every frontend of "
            "this engine, and run vLLM's own (without VLLM_USE_RUST_FRONTEND)"
        )


def _fields(params: Any) -> list[str]:
    """The public fields of vLLM's SamplingParams, a msgspec structure."""
    names = getattr(params, "__struct_fields__", None) or [each.name for each in fields(params)]
    return [name for name in names if not name.startswith("_")]
