"""LlamaIndex's messages as every chat template reads them, and answers as LlamaIndex's messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from purify_adapters.tool_calls import ParsedCall, Part, calls_in, reasoning_in, text_in
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


def rendered(message: ChatMessage) -> dict[str, Any]:
    """One message as a template's mapping; raises PromptError for what is not text."""
    texts, calls = [], []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            calls.append(_function(block))
        elif not isinstance(block, ThinkingBlock):
            raise PromptError(f"a {block.block_type!r} block is not text, and these models read nothing else")
    found: dict[str, Any] = {"role": ROLES[message.role], "content": "\n".join(texts)}
    return {**found, **_answered(message), **({"tool_calls": calls} if calls else {})}


def _function(block: ToolCallBlock) -> dict[str, Any]:
    function = {"name": block.tool_name, "arguments": _arguments(block)}
    return {"type": "function", "id": block.tool_call_id, "function": function}


def _answered(message: ChatMessage) -> dict[str, Any]:
    """Which call a tool's result answers."""
    known = message.additional_kwargs if ROLES[message.role] == "tool" else {}
    return {key: known[key] for key in ("tool_call_id", "name") if key in known}


def text_of(prompt: Any) -> str:
    """The whole text of a prompt, to search for quoted documents."""
    if isinstance(prompt, Chat):
        return "\n".join(str(message["content"]) for message in prompt.messages)
    return str(prompt)


def message_of(pieces: Sequence[Part]) -> ChatMessage:
    """The assistant's message: text, thought and calls as blocks.

    A call that cannot be parsed is kept in `additional_kwargs["invalid_tool_calls"]`.
    """
    text, reasoning, calls = text_in(pieces), reasoning_in(pieces), calls_in(pieces)
    blocks: list[Any] = [ThinkingBlock(content=reasoning)] if reasoning else []
    blocks += [TextBlock(text=text)] if text or not calls else []
    blocks += [_block(call) for call in calls if not call.error]
    invalid = [{"name": each.name, "text": each.text, "error": each.error} for each in calls if each.error]
    extra = {"invalid_tool_calls": invalid} if invalid else {}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=extra)


def _block(call: ParsedCall) -> ToolCallBlock:
    return ToolCallBlock(tool_call_id=call.id, tool_name=str(call.name), tool_kwargs=call.arguments)


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
