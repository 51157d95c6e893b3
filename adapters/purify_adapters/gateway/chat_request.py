"""Requests to `/v1/chat/completions`: messages, tools and response format for the pair of models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_adapters.gateway.rejections import Rejected, invalid, unsupported
from purify_adapters.gateway.request_validation import answer_grammar
from purify_adapters.gateway.schemas import ChatRequest, ContentPart, Message, MessageCall
from purify_adapters.tool_calls import (
    CallPart,
    FirstCallParser,
    Parser,
    Part,
    PlainParser,
    Tool,
    ToolProtocol,
    text_parser,
)
from purify_plugins.grammar import Grammar
from purify_plugins.types import Chat

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

UNREAD = {
    "function_call": "write `tool_calls`",
    "audio": "only text is read",
    "prefix": "an answer is not continued",
    "partial": "an answer is not continued",
}
"""Fields of a message that would change the prompt, and that no chat template is given."""


class PreparedChat(NamedTuple):
    """A conversation for this pair of models, the grammar of its answer, and the parser of its answer."""

    chat: Chat
    grammar: Grammar | None
    parser: Parser


def prepare_chat(purifier: Purifier, request: ChatRequest) -> PreparedChat:
    """The conversation, grammar and parser of a request. Raises Rejected, ConfigError."""
    messages = [_message(each) for each in request.messages]
    tools = [each.model_dump(exclude_none=True) for each in request.tools or ()]
    offered, forced = _choose(tools, request.tool_choice)
    answer = answer_grammar(request.response_format)
    protocol = None
    if offered or any(each["role"] == "tool" or each.get("tool_calls") for each in messages):
        protocol = ToolProtocol.for_pair(purifier)
    chat = protocol.chat(messages, offered) if protocol else Chat(tuple(messages))
    if not (protocol and offered):
        return PreparedChat(chat, answer, PlainParser() if answer else text_parser(purifier, chat))
    if answer and (forced or answer.kind != "json_schema"):
        raise Rejected(422, "Tool error: Grammar and tools are mutually exclusive", "tool_error")
    schema = json.loads(answer.text) if answer else None
    grammar = protocol.grammar(offered, purifier.vocabulary, schema) if forced or answer else None
    parser = NamedCalls(protocol.parser(purifier, chat, offered))
    first_only = request.parallel_tool_calls is False
    return PreparedChat(chat, grammar, FirstCallParser(parser) if first_only else parser)


class NamedCalls:
    """Parse a call that has no name as text: OpenAI's schema has no place for such a call."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self._indices: dict[int, int | None] = {}

    def reads(self, name: str) -> bool:
        return self.parser.reads(name)

    def feed(self, text: str) -> list[Part]:
        return [self._part(each) for each in self.parser.feed(text)]

    def close(self) -> list[Part]:
        return [self._part(each) for each in self.parser.close()]

    def _part(self, part: Part) -> Part:
        if not isinstance(part, CallPart):
            return part
        if part.index not in self._indices:
            known = sum(index is not None for index in self._indices.values())
            self._indices[part.index] = known if part.name else None
        index = self._indices[part.index]
        return part.arguments if index is None else replace(part, index=index)


# Messages


def _message(message: Message) -> Mapping[str, Any]:
    """A message as chat templates read it. Raises Rejected for content other than text."""
    for name, why in UNREAD.items():
        if (message.model_extra or {}).get(name):
            raise unsupported(f"messages: {name}", why)
    found: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,  # OpenAI's newer word for it
        "content": _text(message.content),
        "name": message.name,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content,
        "tool_calls": [_call(call) for call in message.tool_calls or ()] or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _text(content: str | list[ContentPart] | None) -> str:
    if not isinstance(content, list):
        return content or ""
    if other := [part.type for part in content if part.type not in ("text", "refusal")]:
        raise unsupported(other[0], "only text is read")
    return "".join(part.text or part.refusal or "" for part in content)


def _call(call: MessageCall) -> Mapping[str, Any]:
    """An earlier call, its arguments as an object; OpenAI writes them as a string."""
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


# Tool choice


def _choose(tools: Sequence[Tool], choice: Any) -> tuple[Sequence[Tool], bool]:
    """The tools that may be called, and whether one must be."""
    if choice in (None, "auto", "none"):
        return () if choice == "none" else tools, False
    if choice in ("required", "any"):
        if not tools:
            raise unsupported("tool_choice", "there are no `tools` to call")
        return tools, True
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        names, forced = _allowed(choice.get("allowed_tools", choice))
    else:
        names, forced = [_name(choice)], True
    known = [tool["function"]["name"] for tool in tools]
    if unknown := [name for name in names if name not in known]:
        found = Rejected(422, f"Tool error: Tool with name {unknown[0]} not found", "tool_error")
        found.param = "tool_choice"
        raise found
    return [tool for tool in tools if tool["function"]["name"] in names], forced


def _allowed(choice: Any) -> tuple[list[Any], bool]:
    """The names of the tools that may be called, and whether one must be. Raises Rejected."""
    named = choice.get("tools", ()) if isinstance(choice, Mapping) else None
    if not isinstance(named, list | tuple) or not (named or choice.get("mode") != "required"):
        raise unsupported("tool_choice", "`allowed_tools` is a table with a list of `tools`")
    return [_name(each) for each in named], choice.get("mode") == "required"


def _name(tool: Any) -> Any:
    """The name of a tool in a choice: alone, or in a mapping."""
    if not isinstance(tool, Mapping):
        return tool
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else tool.get("name")
