"""Options of a request that are none of ours: harmless ones pass, the others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from purify_adapters.gateway.rejections import Rejected, invalid, unsupported

HARMLESS = frozenset(
    (
        *("inputs", "prompt", "messages", "model", "stream"),  # what another route asks by
        *("user", "metadata", "store", "service_tier", "safety_identifier", "request_id", "priority"),
        *("prompt_cache_key", "prompt_cache_retention", "cache_salt", "cache_prompt", "prediction"),
        *("reasoning_effort", "verbosity", "include_reasoning", "parallel_tool_calls"),
        *("timings_per_token", "return_progress", "id_slot", "slot_id"),
        *("options", "use_cache", "wait_for_model", "keep_alive"),
    )
)
"""Options that choose no token, and hints that promise nothing."""
OFF: Mapping[str, Sequence[Any]] = {
    **dict.fromkeys(("best_of", "num_beams", "num_beam_groups", "n", "num_return_sequences"), (1,)),
    **dict.fromkeys(("length_penalty", "epsilon_cutoff", "eta_cutoff", "guidance_scale"), (0, 1)),
    **dict.fromkeys(("presence_penalty", "no_repeat_ngram_size", "min_length", "min_new_tokens"), (0,)),
    **dict.fromkeys(("min_tokens", "prompt_logprobs", "truncate_prompt_tokens", "top_a", "tfs"), (0,)),
    **dict.fromkeys(
        ("skip_special_tokens", "spaces_between_special_tokens", "add_generation_prompt"), (True,)
    ),
    **dict.fromkeys(("use_beam_search", "early_stopping", "ignore_eos", "echo", "raw"), (False,)),
    **dict.fromkeys(("include_stop_str_in_output", "continue_final_message", "return_token_ids"), (False,)),
    **dict.fromkeys(("watermark", "details", "decoder_input_details", "return_full_text"), (False,)),
    **dict.fromkeys(("top_n_tokens", "mirostat", "xtc_probability", "dry_multiplier"), (0,)),
    **dict.fromkeys(("dynatemp_range", "repeat_last_n", "penalty_last_n", "n_keep", "n_probs"), (0,)),
    **dict.fromkeys(("repeat_penalty", "typ_p", "tfs_z", "typical_p"), (1,)),
    **dict.fromkeys(("stop_sequences", "adapter_id", "samplers"), ([], "")),
    "audio": ({},),
    "function_call": ("none", "auto"),
    "n_predict": (-1,),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    **dict.fromkeys(("logit_bias", "bad_words", "stop_token_ids", "allowed_token_ids"), ([], {})),
    **dict.fromkeys(
        ("chat_template", "chat_template_kwargs", "documents", "mm_processor_kwargs"), ({}, [], "")
    ),
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), ({}, [], "")),
    **dict.fromkeys(("structured_outputs", "extra_body", "vllm_xargs", "logits_processors"), ({}, [])),
    **dict.fromkeys(("functions", "web_search_options", "thinking", "suffix", "grammar"), ({}, [], "")),
    "modalities": (["text"],),
    "truncation": ("disabled",),
    "background": (False,),
    "max_tool_calls": (),
    **dict.fromkeys(("moderation", "context_management"), ({}, [])),
    "mm_processor_kwargs": ({},),
    "add_special_tokens": (True,),
    "add_generation_prompt": (True,),
}
"""Options of other servers, and the values at which they change nothing."""
SAME = (
    {"stop", "stop_sequences"},
    {"max_tokens", "max_completion_tokens", "max_new_tokens", "max_output_tokens", "n_predict", "max_length"},
    {"repetition_penalty", "repeat_penalty"},
    {"typical_p", "typ_p"},
    {"grammar", "response_format", "guided_json", "structured_outputs"},
    {"top_n_tokens", "top_logprobs"},
)
"""What one thing is called elsewhere."""


def refuse_foreign(extra: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise Rejected (422) for an option that would be ignored though it was meant to change something."""
    for name, value in extra.items():
        if value is None or name in HARMLESS or _off(name, value):
            continue
        raise _unknown(name, known) if name not in OFF or _here(name, known) else unsupported(name)


def _off(name: str, value: Any) -> bool:
    """Whether an option is at a value that changes nothing."""
    if name == "logit_bias" and isinstance(value, Mapping):
        return not any(value.values())
    return value in OFF.get(name, ())


def _here(name: str, known: Sequence[str]) -> list[str]:
    """What an option of another server is called here."""
    return [each for each in known for names in SAME if {each, name} <= names]


def _unknown(name: str, known: Sequence[str]) -> Rejected:
    near = _here(name, known) or get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "leave it out"
    return invalid(f"`{name}` is no option here; {hint}", name)
