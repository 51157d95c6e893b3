"""The parts of a parsed answer: text, reasoning and tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Tool = Mapping[str, Any]
"""A tool in the form of chat templates: `type` "function", and `function` with its name and parameters."""
Message = Mapping[str, Any]


@dataclass(frozen=True)
class CallPart:
    """A part of call number `index`: the first part has `id` and `name`, the later ones more `arguments`."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Reasoning:
    """A part of the model's reasoning before its answer."""

    text: str


Part = str | CallPart | Reasoning
"""A part of an answer: text, a tool call, or reasoning."""


class Parser(Protocol):
    """Parses an answer into parts while it is written."""

    def reads(self, name: str) -> bool:
        """Whether a control token of this name is syntax to parse; the names of others are not fed."""
        ...

    def feed(self, text: str) -> list[Part]: ...

    def close(self) -> list[Part]: ...


class PlainParser:
    """Parse all text as text."""

    inside = False

    def reads(self, name: str) -> bool:
        return False

    def feed(self, text: str) -> list[Part]:
        return [text] if text else []

    def close(self) -> list[Part]:
        return []


class FirstCallParser:
    """Drop all calls of an answer but the first, for clients that take one at a time."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser

    def reads(self, name: str) -> bool:
        return self.parser.reads(name)

    def feed(self, text: str) -> list[Part]:
        return _first(self.parser.feed(text))

    def close(self) -> list[Part]:
        return _first(self.parser.close())


def _first(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if not (isinstance(part, CallPart) and part.index)]


@dataclass(frozen=True)
class ParsedCall:
    """A whole call. `error` says why `arguments` or `name` are missing; `text` is the unparsed call."""

    id: str | None
    name: str | None
    text: str
    arguments: dict[str, Any]
    error: str | None = None


def text_in(parts: Sequence[Part]) -> str:
    """The text among the parts."""
    return "".join(part for part in parts if isinstance(part, str))


def reasoning_in(parts: Sequence[Part]) -> str:
    """The reasoning among the parts."""
    return "".join(part.text for part in parts if isinstance(part, Reasoning))


def calls_in(parts: Sequence[Part]) -> list[ParsedCall]:
    """The calls among the parts, each put together."""
    calls: dict[int, list[CallPart]] = {}
    for part in parts:
        if isinstance(part, CallPart):
            calls.setdefault(part.index, []).append(part)
    return [_whole(call) for call in calls.values()]


def _whole(parts: Sequence[CallPart]) -> ParsedCall:
    first, text = parts[0], "".join(part.arguments for part in parts)
    try:
        arguments = json.loads(text, strict=False)  # models write line ends into strings as they are
    except ValueError as wrong:
        return ParsedCall(first.id, first.name, text, {}, f"the arguments are not valid JSON: {wrong}")
    if not isinstance(arguments, dict):
        return ParsedCall(first.id, first.name, text, {}, "the arguments are no JSON object")
    return ParsedCall(first.id, first.name, text, arguments, None if first.name else "no name")
