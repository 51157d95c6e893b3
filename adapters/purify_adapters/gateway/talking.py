"""Conversations with tools: how this pair is told of them, and how its calls are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_adapters.gateway.asking import answer_grammar
from purify_adapters.gateway.messages import message
from purify_adapters.gateway.rejections import Rejected, unsupported
from purify_adapters.gateway.schemas import ChatRequest
from purify_adapters.tool_calls import CallPiece, Piece, Plain, Reader, Single, Speech, Tool, plain
from purify_plugins.grammar import Grammar
from purify_plugins.types import Chat

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
    offered, forced = _chosen(
        [each.model_dump(exclude_none=True) for each in asked.tools or ()], asked.tool_choice
    )
    answer = answer_grammar(asked.response_format)
    speech = None
    if offered or any(each["role"] == "tool" or each.get("tool_calls") for each in said):
        speech = Speech.of(purifier)
    chat = speech.chat(said, offered) if speech else Chat(tuple(said))
    if not (speech and offered):
        return Talk(chat, answer, Plain() if answer else plain(purifier, chat))
    if answer and (forced or answer.kind != "json_schema"):
        raise Rejected(422, "Tool error: Grammar and tools are mutually exclusive", "tool_error")
    schema = json.loads(answer.text) if answer else None
    grammar = speech.grammar(offered, purifier.vocabulary, schema) if forced or answer else None
    reader = Named(speech.reader(purifier, chat, offered))
    return Talk(chat, grammar, reader if asked.parallel_tool_calls is not False else Single(reader))


class Named:
    """Keep as text what stands where a call was due, and names no tool: no client has a place for it."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._places: dict[int, int | None] = {}

    def reads(self, name: str) -> bool:
        return self.reader.reads(name)

    def feed(self, text: str) -> list[Piece]:
        return [self._piece(each) for each in self.reader.feed(text)]

    def close(self) -> list[Piece]:
        return [self._piece(each) for each in self.reader.close()]

    def _piece(self, piece: Piece) -> Piece:
        if not isinstance(piece, CallPiece):
            return piece
        if piece.index not in self._places:
            known = sum(place is not None for place in self._places.values())
            self._places[piece.index] = known if piece.name else None
        place = self._places[piece.index]
        return piece.arguments if place is None else replace(piece, index=place)


def _chosen(tools: Sequence[Tool], choice: Any) -> tuple[Sequence[Tool], bool]:
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
    if strange := [name for name in names if name not in known]:
        found = Rejected(422, f"Tool error: Tool with name {strange[0]} not found", "tool_error")
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
    """The name of a tool as a choice has it: alone, or in a table."""
    if not isinstance(tool, Mapping):
        return tool
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else tool.get("name")
