"""OpenAI's Responses as chats: `/v1/responses` asks in other words what `/v1/chat/completions` asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from purify_adapters.gateway.rejections import unsupported
from purify_adapters.gateway.request_body import parse
from purify_adapters.gateway.request_validation import OptionNames
from purify_adapters.gateway.schemas import ChatRequest, ResponseItem, ResponseItemPart, ResponseRequest
from purify_adapters.gateway.sse import encoded
from purify_adapters.openai_schema import Json

SAME = {
    *("model", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("top_logprobs", "tool_choice", "parallel_tool_calls"),
}
"""Options that both routes have, by one name."""
RESPONSE = OptionNames("input", "max_output_tokens", "top_logprobs", 20)
TEXTS = ("input_text", "output_text", "text")
SHOWN = "message.output_text.logprobs"
"""What `include` asks for to see log-probabilities."""
NOTHING = (SHOWN, "reasoning.encrypted_content")
"""Values of `include` that promise nothing we lack: thought is never encrypted here."""


def as_chat(asked: ResponseRequest) -> ChatRequest:
    """The same request as a chat. Raises Rejected for what needs a store, a file or OpenAI's own tools."""
    for name in ("previous_response_id", "conversation", "prompt"):
        if getattr(asked, name):
            raise unsupported(name, "nothing is stored here; send the whole conversation as `input`")
    tools = [_tool(each) for each in asked.tools or ()]  # first: clients add what their tools include
    if strange := [each for each in asked.include or () if each not in NOTHING]:
        raise unsupported("include", f"there is no {strange[0]!r}")
    said = [{"role": "system", "content": asked.instructions}] if asked.instructions else []
    said += (
        [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else _turns(asked.input)
    )
    chat = asked.model_dump(include=SAME) | {
        "messages": said,
        "max_completion_tokens": asked.max_output_tokens,
        "logprobs": wants_logprobs(asked),
        "response_format": _format(asked.text.format if asked.text else None),
        "tools": tools or None,
    }
    return parse(encoded(chat), ChatRequest)


def wants_logprobs(asked: ResponseRequest) -> bool:
    """Whether log-probabilities are told."""
    return SHOWN in (asked.include or ()) or bool(asked.top_logprobs)


def _turns(items: Sequence[ResponseItem]) -> list[Json]:
    """Messages; calls made at once are one message's."""
    found: list[Json] = []
    for item in items:
        if item.type == "function_call":
            call = {"id": item.call_id or "", "function": {"name": item.name, "arguments": item.arguments}}
            if not (found and found[-1].get("tool_calls")):
                found.append({"role": "assistant", "content": "", "tool_calls": []})
            found[-1]["tool_calls"].append(call)
        else:
            found += _turn(item)
    return found


def _turn(item: ResponseItem) -> Iterator[Json]:
    if item.type == "message":
        yield {"role": item.role or "user", "content": _text(item.content)}
    elif item.type == "function_call_output":
        yield {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)}
    elif item.type != "reasoning":  # templates leave out what was thought before
        raise unsupported(item.type, "nothing is stored here, and only text and function calls are read")


def _text(content: str | Sequence[ResponseItemPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if strange := [part.type for part in content if part.type not in TEXTS]:
        raise unsupported(strange[0], "only text is read")
    return "".join(part.text or "" for part in content)


def _format(asked: Any) -> Any:
    """`text.format` as `response_format`, which puts a schema one level deeper."""
    if not isinstance(asked, Mapping) or asked.get("type") != "json_schema":
        return asked
    schema = {key: value for key, value in asked.items() if key in ("name", "schema")}
    return {"type": "json_schema", "json_schema": schema}


def _tool(asked: Mapping[str, Any]) -> Json:
    if asked.get("type") != "function":
        raise unsupported(f"tools: {asked.get('type')}", "only functions can be called")
    function = {key: asked.get(key) for key in ("name", "description", "parameters")}
    return {"type": "function", "function": function}
