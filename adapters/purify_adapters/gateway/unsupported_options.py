"""Unknown options of a request: those without effect are accepted, the others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from purify_adapters.foreign_options import OFF, changes_nothing
from purify_adapters.gateway.rejections import Rejected, invalid, unsupported

ELSEWHERE = ("inputs", "prompt", "messages", "model", "stream", "parallel_tool_calls")
"""Fields of other routes."""
SAME = (
    {"stop", "stop_sequences"},
    {"max_tokens", "max_completion_tokens", "max_new_tokens", "max_output_tokens", "n_predict", "max_length"},
    {"repetition_penalty", "repeat_penalty"},
    {"typical_p", "typ_p"},
    {"grammar", "response_format", "guided_json", "structured_outputs"},
    {"top_n_tokens", "top_logprobs"},
)
"""Names of one option on different servers."""


def refuse_foreign(extra: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise Rejected (422) for an unknown option whose value is not its no-effect value."""
    for name, value in extra.items():
        if value is None or name in ELSEWHERE or changes_nothing(name, value):
            continue
        raise _unknown(name, known) if name not in OFF or _here(name, known) else unsupported(name)


def _here(name: str, known: Sequence[str]) -> list[str]:
    """This gateway's names of another server's option."""
    return [each for each in known for names in SAME if {each, name} <= names]


def _unknown(name: str, known: Sequence[str]) -> Rejected:
    near = _here(name, known) or get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "leave it out"
    return invalid(f"`{name}` is no option here; {hint}", name)
