"""Conversations with tools: how this pair is told of them, and how its calls are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_adapters.gateway.asking import message
from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.schemas import ChatRequest
from purify_adapters.tools import Plain, Reader, Speech
from purify_plugins.types import Chat, Grammar

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier


class Talk(NamedTuple):
    """A conversation as this pair reads it, what its answer must be, and what reads that."""

    chat: Chat
    grammar: Grammar | None
    reader: Reader


def talk(purifier: Purifier, asked: ChatRequest) -> Talk:
    """What to ask the pair. Raises Rejected, ConfigError."""
    said = [message(each) for each in asked.messages]
    tools = [tool.model_dump(exclude_none=True) for tool in asked.tools or ()]
    chosen = _chosen(tools, asked.tool_choice)
    if not chosen and not any(each["role"] == "tool" or each.get("tool_calls") for each in said):
        return Talk(Chat(tuple(said)), None, Plain())
    if chosen and asked.response_format:
        raise Rejected(422, "Tool error: Grammar and tools are mutually exclusive", "tool_error")
    speech = Speech.of(purifier)
    chat = speech.chat(said, chosen)
    forced = asked.tool_choice not in (None, "auto")
    grammar = speech.grammar(chosen, purifier.vocabulary) if chosen and forced else None
    return Talk(chat, grammar, speech.reader(purifier, chat, chosen) if chosen else Plain())


def _chosen(tools: Sequence[Mapping[str, Any]], choice: Any) -> Sequence[Mapping[str, Any]]:
    """The tools that may be called."""
    if choice == "none":
        return ()
    if choice in (None, "auto", "required"):
        return tools
    name = choice
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
    named = [tool for tool in tools if tool["function"]["name"] == name]
    if not named:
        raise Rejected(422, f"Tool error: Tool with name {name} not found", "tool_error")
    return named
