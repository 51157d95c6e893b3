"""Messages of a conversation, from OpenAI's shapes to what chat templates read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from purify_adapters.gateway.rejections import invalid, unsupported
from purify_adapters.gateway.schemas import Call, Message, Part

UNREAD = {
    "function_call": "write `tool_calls`",
    "audio": "only text is read",
    "prefix": "an answer is not continued",
    "partial": "an answer is not continued",
}
"""Fields of a message that would change the prompt, and that no chat template is given."""


def message(said: Message) -> Mapping[str, Any]:
    """A message as chat templates read it. Raises Rejected for what is no text, and for what is not read."""
    for name, why in UNREAD.items():
        if (said.model_extra or {}).get(name):
            raise unsupported(f"messages: {name}", why)
    found: dict[str, Any] = {
        "role": "system" if said.role == "developer" else said.role,  # OpenAI's newer word for it
        "content": _text(said.content),
        "name": said.name,
        "tool_call_id": said.tool_call_id,
        "reasoning_content": said.reasoning_content,
        "tool_calls": [_call(call) for call in said.tool_calls or ()] or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _text(content: str | list[Part] | None) -> str:
    if not isinstance(content, list):
        return content or ""
    if strange := [part.type for part in content if part.type not in ("text", "refusal")]:
        raise unsupported(strange[0], "only text is read")
    return "".join(part.text or part.refusal or "" for part in content)


def _call(call: Call) -> Mapping[str, Any]:
    """A call that was made before; its arguments as an object, which OpenAI puts into a string."""
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            raise invalid(
                f"the arguments of the call {call.function.name!r} are no JSON", "messages"
            ) from None
    function = {"name": call.function.name, "arguments": {} if arguments is None else arguments}
    return {"id": call.id or "", "type": "function", "function": function}
