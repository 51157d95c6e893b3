"""LlamaIndex's messages as every chat template reads them, and tool calls in what a model writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection

from purify_plugins.errors import PromptError
from purify_plugins.types import Chat

ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
OPEN, CLOSE = "<tool_call>", "</tool_call>"
TAGGED = re.compile(f"{OPEN}(.*?)(?:{CLOSE}|$)", re.DOTALL)
TOLD = """You may call one of these functions, given as JSON schemas, one a line:
{tools}
To call one, write nothing but {open}{{"name": NAME, "arguments": {{...}}}}{close}."""


def conversation(
    messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = (), told: bool = False
) -> Chat:
    """The conversation; `told` describes the tools in words, for templates that do not know tools.

    Neighbours of one role become one message: many templates refuse two in a row.
    """
    rendered = [_rendered(message) for message in messages]
    if told and tools:
        lines = "\n".join(json.dumps(tool["function"]) for tool in tools)
        rendered.insert(0, {"role": "system", "content": TOLD.format(tools=lines, open=OPEN, close=CLOSE)})
    return Chat(tuple(_merged(rendered)), () if told else tuple(tools))


def _rendered(message: ChatMessage) -> dict[str, Any]:
    """One message as a template's mapping; raises PromptError for what is not text."""
    texts, calls = [], []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            calls.append(_function(block))
        else:
            raise PromptError(f"a {block.block_type!r} block is not text, and these models read nothing else")
    rendered: dict[str, Any] = {"role": ROLES[message.role], "content": "\n".join(texts)}
    return {**rendered, "tool_calls": calls} if calls else rendered


def _function(block: ToolCallBlock) -> dict[str, Any]:
    called = {"name": block.tool_name, "arguments": block.tool_kwargs}
    return {"type": "function", "id": block.tool_call_id, "function": called}


def _merged(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    merged: list[dict[str, Any]] = []
    for message in messages:
        if merged and message["role"] == merged[-1]["role"] != "tool" and not _calls(merged[-1], message):
            merged[-1] = {**message, "content": f"{merged[-1]['content']}\n\n{message['content']}"}
        else:
            merged.append(message)
    return merged


def _calls(*messages: Mapping[str, Any]) -> bool:
    return any("tool_calls" in message for message in messages)


def text_of(prompt: Any) -> str:
    """Everything a prompt says, to look for what it quotes."""
    if isinstance(prompt, Chat):
        return "\n".join(str(message["content"]) for message in prompt.messages)
    return str(prompt)


def message_of(text: str, tools: bool) -> ChatMessage:
    """The assistant's message; with `tools`, tagged calls in it become blocks.

    A call that is not valid JSON stays in the text, and in `additional_kwargs["invalid_tool_calls"]`.
    """
    calls, invalid = _parsed(text) if tools else ([], [])
    content = _without(text, invalid) if calls or invalid else text
    extra = {"invalid_tool_calls": invalid} if invalid else {}
    blocks = [TextBlock(text=content)] if content or not calls else []
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=[*blocks, *calls], additional_kwargs=extra)


def _parsed(text: str) -> tuple[list[ToolCallBlock], list[str]]:
    found = [match[1].strip() for match in TAGGED.finditer(text)]
    calls = {inner: _call(inner) for inner in found}
    return [call for call in calls.values() if call], [inner for inner in found if not calls[inner]]


def _call(inner: str) -> ToolCallBlock | None:
    try:
        called = json.loads(inner)
        name, arguments = called["name"], called.get("arguments", {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return ToolCallBlock(tool_call_id=f"call-{uuid4()}", tool_name=name, tool_kwargs=arguments)


def _without(text: str, invalid: Sequence[str]) -> str:
    """The text without its valid calls."""
    return TAGGED.sub(lambda match: match[0] if match[1].strip() in invalid else "", text).strip()


def selections(message: ChatMessage) -> list[ToolSelection]:
    """The tool calls in a message."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=_arguments(block)
        )
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _arguments(block: ToolCallBlock) -> dict[str, Any]:
    given = block.tool_kwargs
    return given if isinstance(given, dict) else dict(json.loads(given or "{}"))
