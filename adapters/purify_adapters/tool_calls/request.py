"""A request with tools and the parsing of its answer, for every framework's adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from purify_adapters.tool_calls.grammars import closed
from purify_adapters.tool_calls.parts import (
    CallPart,
    FirstCallParser,
    Message,
    Parser,
    Part,
    PlainParser,
    Tool,
)
from purify_adapters.tool_calls.prompting import ToolProtocol, merge_roles, text_parser
from purify_plugins.errors import UnknownNameError
from purify_plugins.grammar import Grammar
from purify_plugins.purifier import Purifier
from purify_plugins.types import Chat, Chunk, Completion, Piece, Vocabulary


def parse_tool_choice(choice: Any, tools: Sequence[Tool]) -> str | None:
    """A tool choice as "any", "none", a name, or None if the model decides. Raises UnknownNameError."""
    if isinstance(choice, Mapping):
        choice = choice.get("function", choice).get("name", choice.get("type"))
    if choice in (None, False, "auto"):
        return None
    if choice in (True, "any", "required"):
        return "any"
    names = [tool["function"]["name"] for tool in tools]
    if choice != "none" and choice not in names:
        raise UnknownNameError("tool", str(choice), [*names, "auto", "any", "none"])
    return str(choice)


def json_grammar(schema: Mapping[str, Any] | None) -> Grammar | None:
    """The grammar of answers under a schema."""
    return None if schema is None else Grammar.json_schema(closed(schema))


@dataclass(frozen=True)
class ToolRequest:
    """A conversation for a pair of models, the grammar of its answer, and the parser of its answer."""

    chat: Chat
    grammar: Grammar | None = None
    parser: Callable[[], Parser] = PlainParser

    @classmethod
    def of(
        cls,
        purifier: Purifier,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        choice: Any = None,
        schema: Mapping[str, Any] | None = None,
        format: str = "auto",
    ) -> ToolRequest:
        """The request for `messages` with `tools` to call by `choice`, or an answer under `schema`.

        A choice of "any" or of one tool is enforced by a grammar. `format` is as in `ToolProtocol.for_pair`.
        Raises ConfigError.
        """
        chosen = parse_tool_choice(choice, tools) if tools else None
        offered = [] if chosen == "none" else tools
        if not offered and not any(each["role"] == "tool" or "tool_calls" in each for each in messages):
            return cls._text(purifier, Chat(merge_roles(messages)), schema)
        protocol = ToolProtocol.for_pair(purifier, format)
        chat = protocol.chat(messages, offered)
        if not offered:
            return cls._text(purifier, chat, schema)
        wanted = [tool for tool in offered if chosen in (None, "any", tool["function"]["name"])]
        answer = schema if chosen is None else None
        forced = chosen is not None or schema is not None
        grammar = protocol.grammar(wanted, purifier.vocabulary, answer) if forced else None
        return cls(chat, grammar, lambda: protocol.parser(purifier, chat, offered))

    def single(self) -> ToolRequest:
        """The same request, of whose calls only the first is parsed."""
        return replace(self, parser=lambda: FirstCallParser(self.parser()))

    @classmethod
    def _text(cls, purifier: Purifier, chat: Chat, schema: Mapping[str, Any] | None) -> ToolRequest:
        """A conversation without tools; under a grammar there is no reasoning to parse."""
        return (
            cls(chat, json_grammar(schema))
            if schema is not None
            else cls(chat, None, lambda: text_parser(purifier, chat))
        )


class ChunkParser:
    """Parse one answer, chunk by chunk.

    A call may begin with a control token, which adds nothing to the text; a parser that uses it is fed its
    name in the place where it was drawn. An operator's text is no part of a call that it ends: it is text.
    """

    def __init__(self, parser: Parser, vocabulary: Vocabulary) -> None:
        self.parser, self.vocabulary = parser, vocabulary
        self.called = self._ended = False

    def take(self, chunk: Chunk) -> list[Part]:
        """The parts that are certain after this chunk; all of them after the last."""
        parts: list[Part] = []
        for said, pieces in groupby(chunk.pieces, key=lambda piece: piece.token is None):
            text = "".join(map(self._named, pieces))
            parts += self._said(text) if said else self.parser.feed(text) if text else []
        if chunk.completion and not self._ended:
            parts += self.parser.close()
        self.called = self.called or any(isinstance(part, CallPart) for part in parts)
        return parts

    def _said(self, text: str) -> list[Part]:
        """An operator's text, which ends the answer, after all that is held of it."""
        self._ended = True
        return [*self.parser.close(), text]

    def _named(self, piece: Piece) -> str:
        """A token's text; for a control token that the parser uses, its name."""
        if piece.token is None:
            return piece.text
        name = self.vocabulary.control.get(piece.token.id)
        if name is None or piece.token.id in self.vocabulary.eos or not self.parser.reads(name):
            return piece.text
        return name


def parts_of(parser: Parser, completion: Completion, vocabulary: Vocabulary) -> list[Part]:
    """A whole answer's parts."""
    return ChunkParser(parser, vocabulary).take(completion.chunk)
