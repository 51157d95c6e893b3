"""What an answer consists of while it is read: text, thought and calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Tool = Mapping[str, Any]
"""A tool as chat templates read it: `type` "function", and `function` with its name and parameters."""
Message = Mapping[str, Any]


@dataclass(frozen=True)
class CallPart:
    """A part of call number `index`: its first part brings `id` and `name`, the others more `arguments`."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Reasoning:
    """A part of what the model thought before it answered."""

    text: str


Part = str | CallPart | Reasoning
"""A part of an answer: its text, a call, or thought."""


class Parser(Protocol):
    """Splits an answer into text and calls while it is written."""

    def reads(self, name: str) -> bool:
        """Whether a control token of this name belongs to what is read; the others are no text."""
        ...

    def feed(self, text: str) -> list[Part]: ...

    def close(self) -> list[Part]: ...


class Plain:
    """Reads text as text."""

    inside = False

    def reads(self, name: str) -> bool:
        return False

    def feed(self, text: str) -> list[Part]:
        return [text] if text else []

    def close(self) -> list[Part]:
        return []


class Single:
    """Read the first call of an answer and no other, for who takes one at a time."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser

    def reads(self, name: str) -> bool:
        return self.parser.reads(name)

    def feed(self, text: str) -> list[Part]:
        return _first(self.parser.feed(text))

    def close(self) -> list[Part]:
        return _first(self.parser.close())


def _first(pieces: Sequence[Part]) -> list[Part]:
    return [piece for piece in pieces if not (isinstance(piece, CallPart) and piece.index)]


@dataclass(frozen=True)
class ParsedCall:
    """A whole call. `error` says why there are no `arguments`, or no name: then `text` is all there is."""

    id: str | None
    name: str | None
    text: str
    arguments: dict[str, Any]
    error: str | None = None


def text_in(pieces: Sequence[Part]) -> str:
    """The text among the pieces."""
    return "".join(piece for piece in pieces if isinstance(piece, str))


def reasoning_in(pieces: Sequence[Part]) -> str:
    """What was thought, among the pieces."""
    return "".join(piece.text for piece in pieces if isinstance(piece, Reasoning))


def calls_in(pieces: Sequence[Part]) -> list[ParsedCall]:
    """The calls among the pieces, put together."""
    parts: dict[int, list[CallPart]] = {}
    for piece in pieces:
        if isinstance(piece, CallPart):
            parts.setdefault(piece.index, []).append(piece)
    return [_whole(call) for call in parts.values()]


def _whole(parts: Sequence[CallPart]) -> ParsedCall:
    first, text = parts[0], "".join(part.arguments for part in parts)
    try:
        arguments = json.loads(text, strict=False)  # models write line ends into strings as they are
    except ValueError as wrong:
        return ParsedCall(first.id, first.name, text, {}, f"the arguments are not valid JSON: {wrong}")
    if not isinstance(arguments, dict):
        return ParsedCall(first.id, first.name, text, {}, "the arguments are no JSON object")
    return ParsedCall(first.id, first.name, text, arguments, None if first.name else "no name")
