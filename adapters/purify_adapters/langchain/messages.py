"""LangChain's messages and tools as chat templates read them, and answers as LangChain's messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    InvalidToolCall,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call_chunk

from purify_adapters.tool_calls import ParsedCall, Part, Reasoning, calls_in, reasoning_in, text_in
from purify_plugins.errors import PromptError

ROLES = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool", "function": "tool"}
SILENT = ("tool_use", "tool_call", "thinking", "reasoning", "redacted_thinking", "server_tool_call")
"""Content blocks of an assistant's message that are not text: its calls are in `tool_calls`."""


def rendered(message: BaseMessage) -> dict[str, Any]:
    """A message as chat templates read it. Raises PromptError for anything but text."""
    found: dict[str, Any] = {"role": _role(message), "content": _text(message)}
    if isinstance(message, AIMessage) and message.tool_calls:
        found["tool_calls"] = [_call(call) for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        found["tool_call_id"] = message.tool_call_id
    if message.name:
        found["name"] = message.name
    return found


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    kind = message.type.removesuffix("MessageChunk").lower()
    if kind not in ROLES:
        raise PromptError(f"a {type(message).__name__} has no place in a prompt; leave it out")
    return ROLES[kind]


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "function",
        "id": call["id"],
        "function": {"name": call["name"], "arguments": call["args"]},
    }


def _text(message: BaseMessage) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(_of_block(block) for block in content)


def _of_block(block: Any) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind in SILENT:
        return ""
    if kind == "tool_result":
        inside = block.get("content", "")
        return inside if isinstance(inside, str) else "".join(map(_of_block, inside))
    if "text" in block and kind in ("text", None):
        return str(block["text"])
    if kind == "json":
        return json.dumps(block.get("json"), ensure_ascii=False)
    raise PromptError(f"these models read text alone, and a message holds a {kind!r}; describe it in words")


def chunk_of(piece: Part) -> AIMessageChunk:
    """A piece of an answer as a LangChain chunk."""
    if isinstance(piece, str):
        return AIMessageChunk(content=piece)
    if isinstance(piece, Reasoning):
        return AIMessageChunk(content="", additional_kwargs={"reasoning_content": piece.text})
    part = tool_call_chunk(name=piece.name, args=piece.arguments, id=piece.id, index=piece.index)
    return AIMessageChunk(content="", tool_call_chunks=[part])


def message_of(pieces: Sequence[Part], **rest: Any) -> AIMessage:
    """A whole answer as a message; calls that cannot be parsed become invalid ones."""
    reasoning = reasoning_in(pieces)
    calls = [_read(call) for call in calls_in(pieces)]
    return AIMessage(
        content=text_in(pieces),
        additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
        tool_calls=[call for call in calls if call["type"] == "tool_call"],
        invalid_tool_calls=[call for call in calls if call["type"] == "invalid_tool_call"],
        **rest,
    )


def _read(call: ParsedCall) -> ToolCall | InvalidToolCall:
    if call.error is None and call.name is not None:
        return ToolCall(name=call.name, args=call.arguments, id=call.id, type="tool_call")
    return InvalidToolCall(
        name=call.name, args=call.text, id=call.id, error=call.error, type="invalid_tool_call"
    )
