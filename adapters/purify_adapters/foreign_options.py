"""Options of other servers and libraries, and their values that change no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HARMLESS = frozenset(
    (
        *("user", "metadata", "store", "service_tier", "safety_identifier", "request_id", "priority"),
        *("prompt_cache_key", "prompt_cache_retention", "cache_salt", "cache_prompt", "prediction"),
        *("reasoning_effort", "verbosity", "include_reasoning"),
        *("timings_per_token", "return_progress", "id_slot", "slot_id"),
        *("options", "use_cache", "wait_for_model", "keep_alive"),
    )
)
"""Options that never change a token, and hints."""
OFF: Mapping[str, Sequence[Any]] = {
    **dict.fromkeys(("best_of", "num_beams", "num_beam_groups", "n", "num_return_sequences"), (1,)),
    **dict.fromkeys(("length_penalty", "epsilon_cutoff", "eta_cutoff", "guidance_scale"), (0, 1)),
    **dict.fromkeys(("presence_penalty", "no_repeat_ngram_size", "min_length", "min_new_tokens"), (0,)),
    **dict.fromkeys(("min_tokens", "prompt_logprobs", "truncate_prompt_tokens", "top_a", "tfs"), (0,)),
    **dict.fromkeys(("skip_special_tokens", "spaces_between_special_tokens"), (True,)),
    **dict.fromkeys(("use_beam_search", "early_stopping", "ignore_eos", "echo", "raw"), (False,)),
    **dict.fromkeys(("include_stop_str_in_output", "continue_final_message", "return_token_ids"), (False,)),
    **dict.fromkeys(("watermark", "details", "decoder_input_details", "return_full_text"), (False,)),
    **dict.fromkeys(("top_n_tokens", "mirostat", "xtc_probability", "dry_multiplier"), (0,)),
    **dict.fromkeys(("dynatemp_range", "repeat_last_n", "penalty_last_n", "n_keep", "n_probs"), (0,)),
    **dict.fromkeys(("repeat_penalty", "typ_p", "tfs_z", "typical_p"), (1,)),
    **dict.fromkeys(("stop_sequences", "adapter_id", "samplers"), ([], "")),
    "audio": ({},),
    "parallel_tool_calls": (True,),
    "function_call": ("none", "auto"),
    "n_predict": (-1,),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    **dict.fromkeys(("logit_bias", "bad_words", "stop_token_ids", "allowed_token_ids"), ([], {})),
    **dict.fromkeys(("chat_template", "chat_template_kwargs", "documents"), ({}, [], "")),
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
"""Options of other servers, and their values that change nothing."""


def changes_nothing(name: str, value: Any) -> bool:
    """Whether an option of another server or library changes nothing at this value."""
    if name in HARMLESS or (value is None and name in OFF):
        return True
    if name == "logit_bias" and isinstance(value, Mapping):
        return not any(value.values())
    return value in OFF.get(name, ())
