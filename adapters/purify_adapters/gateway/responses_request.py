"""From a request to `/v1/responses` to the equivalent request to `/v1/chat/completions`."""

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
    *("model", "user", "seed", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("top_logprobs", "tool_choice", "parallel_tool_calls"),
}
"""Options with the same name on both routes."""
RESPONSE = OptionNames("input", "max_output_tokens", "top_logprobs", 20)
TEXTS = ("input_text", "output_text", "text")
SHOWN = "message.output_text.logprobs"
"""The value of `include` that requests log-probabilities."""
ACCEPTED = (SHOWN, "reasoning.encrypted_content")
"""Values of `include` that are accepted; there is no encrypted reasoning to include."""


def as_chat(request: ResponseRequest) -> ChatRequest:
    """The request as a chat. Raises Rejected for one that needs a store, a file or OpenAI's own tools."""
    for name in ("previous_response_id", "conversation", "prompt"):
        if getattr(request, name):
            raise unsupported(name, "nothing is stored here; send the whole conversation as `input`")
    tools = [_tool(each) for each in request.tools or ()]  # first: clients add what their tools include
    if unknown := [each for each in request.include or () if each not in ACCEPTED]:
        raise unsupported("include", f"there is no {unknown[0]!r}")
    messages = [{"role": "system", "content": request.instructions}] if request.instructions else []
    messages += (
        [{"role": "user", "content": request.input}]
        if isinstance(request.input, str)
        else _turns(request.input)
    )
    chat = request.model_dump(include=SAME) | {
        "messages": messages,
        "max_completion_tokens": request.max_output_tokens,
        "logprobs": wants_logprobs(request),
        "response_format": _format(request.text.format if request.text else None),
        "tools": tools or None,
    }
    return parse(encoded(chat), ChatRequest)


def wants_logprobs(request: ResponseRequest) -> bool:
    """Whether the request asks for log-probabilities."""
    return SHOWN in (request.include or ()) or bool(request.top_logprobs)


def _turns(items: Sequence[ResponseItem]) -> list[Json]:
    """The items as messages; consecutive calls become one message."""
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
    elif item.type != "reasoning":  # chat templates leave out earlier reasoning
        raise unsupported(item.type, "nothing is stored here, and only text and function calls are read")


def _text(content: str | Sequence[ResponseItemPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if unknown := [part.type for part in content if part.type not in TEXTS]:
        raise unsupported(unknown[0], "only text is read")
    return "".join(part.text or "" for part in content)


def _format(request: Any) -> Any:
    """`text.format` as `response_format`, which puts a schema one level deeper."""
    if not isinstance(request, Mapping) or request.get("type") != "json_schema":
        return request
    schema = {key: value for key, value in request.items() if key in ("name", "schema")}
    return {"type": "json_schema", "json_schema": schema}


def _tool(request: Mapping[str, Any]) -> Json:
    if request.get("type") != "function":
        raise unsupported(f"tools: {request.get('type')}", "only functions can be called")
    function = {key: request.get(key) for key in ("name", "description", "parameters")}
    return {"type": "function", "function": function}
