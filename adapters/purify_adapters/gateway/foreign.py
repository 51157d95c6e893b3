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
        *("prompt_cache_key", "prompt_cache_retention", "cache_salt", "prediction"),
        *("reasoning_effort", "verbosity", "parallel_tool_calls", "include_reasoning"),
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


def refuse_foreign(extra: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise Rejected (422) for an option that would be ignored though it was meant to change something."""
    for name, value in extra.items():
        if value is None or name in HARMLESS or value in OFF.get(name, ()):
            continue
        raise unsupported(name) if name in OFF else _unknown(name, known)


def _unknown(name: str, known: Sequence[str]) -> Rejected:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "leave it out"
    return invalid(f"`{name}` is no option here; {hint}", name)
