"""One request with tools, and its answer while it is written; every framework asks and reads through here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from purify_adapters.tool_calls.grammars import closed
from purify_adapters.tool_calls.pieces import CallPiece, Message, Piece, Plain, Reader, Single, Tool
from purify_adapters.tool_calls.prompting import Speech, merged, plain
from purify_plugins.errors import UnknownNameError
from purify_plugins.grammar import Grammar
from purify_plugins.purifier import Purifier
from purify_plugins.types import Chat, Chunk, Completion, Vocabulary
from purify_plugins.types import Piece as TextPiece


def choice_of(choice: Any, tools: Sequence[Tool]) -> str | None:
    """A tool choice as "any", "none", a tool's name, or None where the model decides."""
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


def json_answer(schema: Mapping[str, Any] | None) -> Grammar | None:
    """The grammar of answers under a schema."""
    return None if schema is None else Grammar.json_schema(closed(schema))


@dataclass(frozen=True)
class Asked:
    """A conversation as a pair reads it, what its answer must look like, and what reads that."""

    chat: Chat
    grammar: Grammar | None = None
    reader: Callable[[], Reader] = Plain

    @classmethod
    def of(
        cls,
        purifier: Purifier,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        choice: Any = None,
        schema: Mapping[str, Any] | None = None,
        format: str = "auto",
    ) -> Asked:
        """What `messages` come to, with `tools` to call by `choice`, or an answer under `schema`.

        A choice of "any" or of one tool is enforced by a grammar. `format` is as in `Speech.of`.
        Raises ConfigError.
        """
        chosen = choice_of(choice, tools) if tools else None
        offered = [] if chosen == "none" else tools
        if not offered and not any(each["role"] == "tool" or "tool_calls" in each for each in messages):
            return cls._text(purifier, Chat(merged(messages)), schema)
        speech = Speech.of(purifier, format)
        chat = speech.chat(messages, offered)
        if not offered:
            return cls._text(purifier, chat, schema)
        wanted = [tool for tool in offered if chosen in (None, "any", tool["function"]["name"])]
        answer = schema if chosen is None else None
        forced = chosen is not None or schema is not None
        grammar = speech.grammar(wanted, purifier.vocabulary, answer) if forced else None
        return cls(chat, grammar, lambda: speech.reader(purifier, chat, offered))

    def single(self) -> Asked:
        """The same, but of its calls only the first is read."""
        return replace(self, reader=lambda: Single(self.reader()))

    @classmethod
    def _text(cls, purifier: Purifier, chat: Chat, schema: Mapping[str, Any] | None) -> Asked:
        """A conversation without tools; nothing is thought aloud under a grammar."""
        return (
            cls(chat, json_answer(schema))
            if schema is not None
            else cls(chat, None, lambda: plain(purifier, chat))
        )


class Reading:
    """One answer, read as it comes.

    A call may begin with a control token, which adds nothing to the text; a reader that knows it sees its
    name in the place where it was drawn.
    """

    def __init__(self, reader: Reader, vocabulary: Vocabulary) -> None:
        self.reader, self.vocabulary = reader, vocabulary
        self.called = False

    def take(self, chunk: Chunk) -> list[Piece]:
        """What is certain after this chunk; the last one brings the rest."""
        text = "".join(map(self._named, chunk.pieces))
        pieces = self.reader.feed(text) if text else []
        if chunk.completion:
            pieces = [*pieces, *self.reader.close()]
        self.called = self.called or any(isinstance(piece, CallPiece) for piece in pieces)
        return pieces

    def _named(self, piece: TextPiece) -> str:
        """A token's text; of a control token, but for ends, its name."""
        name = self.vocabulary.control.get(piece.token.id)
        if name is None or piece.token.id in self.vocabulary.eos or not self.reader.reads(name):
            return piece.text
        return name


def pieces_of(reader: Reader, completion: Completion, vocabulary: Vocabulary) -> list[Piece]:
    """A whole answer's pieces."""
    return Reading(reader, vocabulary).take(completion.chunk)
