"""Calls in the formats that plugins offer, read from text however it is cut."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

from purify_adapters.tools.pieces import CallPiece, Piece
from purify_plugins.types import ToolFormat

HEAD = re.compile(
    r'[\s,\[]*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
"""The beginning of a call, up to its arguments."""


class Tagged:
    """Reads the calls that a ToolFormat describes; arguments are passed on as they come."""

    def __init__(self, format: ToolFormat) -> None:
        self.begin, self.end = format.begin.strip(), format.end.strip()
        self.calls = 0
        self._held = ""
        self._inside = False
        self._value: Value | None = None

    def feed(self, text: str) -> list[Piece]:
        """What is certain now, in order."""
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def close(self) -> list[Piece]:
        """The rest: a call that is not whole is kept as it stands."""
        rest, self._held = self._held, ""
        if not self._inside:
            return [rest] if rest and not (self.calls and rest.isspace()) else []
        unfinished_end = self.calls and self.end.startswith(rest.strip(" \n\t,]}"))
        return self._odd(rest) if self._value is None and not unfinished_end else []

    def _step(self, pieces: list[Piece]) -> bool:
        """Take one thing from what is held; False when more text is needed."""
        if self._value is not None:
            return self._arguments(self._value, pieces)
        return self._call(pieces) if self._inside else self._text(pieces)

    def _text(self, pieces: list[Piece]) -> bool:
        """Text up to where a call begins; what may be a beginning is held."""
        if not self.begin:
            return self._bare(pieces)
        before, found, after = self._held.partition(self.begin)
        text = before if found else before[: len(before) - _beginning(before, self.begin)]
        text = text.rstrip()  # white space waits: before a call it is no part of the text
        pieces += [text] if text else []
        self._held, self._inside = (after if found else before[len(text) :]), bool(found)
        return bool(found)

    def _bare(self, pieces: list[Piece]) -> bool:
        """An answer that starts with a brace is a call; any other has none."""
        if not self._held.strip().removeprefix("<|python_tag|>"):
            return False
        self._held = self._held.lstrip().removeprefix("<|python_tag|>")
        if self._held.startswith("{"):
            self._inside = True
            return True
        self.begin = "\0"  # no text holds it
        return True

    def _call(self, pieces: list[Piece]) -> bool:
        """The head of a call, or the end of them."""
        if head := HEAD.match(self._held):
            pieces.append(CallPiece(self.calls, "", f"call_{uuid4().hex[:24]}", json.loads(head[1])))
            self._held, self._value = self._held[head.end() :], Value()
            return True
        before, found, after = self._held.partition(self.end) if self.end else (self._held, "", "")
        if not found:
            return False
        pieces += self._odd(before)
        self._held, self._inside = after, False
        return True

    def _arguments(self, value: Value, pieces: list[Piece]) -> bool:
        """As much of the arguments as has come."""
        taken = value.take(self._held)
        if taken:
            pieces.append(CallPiece(self.calls, self._held[:taken]))
        self._held = self._held[taken:]
        if value.depth or not self._held.lstrip():
            return False
        self._held = self._held.lstrip().removeprefix("}")
        self._value, self.calls = None, self.calls + 1
        return True

    def _odd(self, body: str) -> list[Piece]:
        """Calls whose JSON is not written as expected; what is no call stays as it is, to be told of."""
        if not body.strip(" \n\t,]}"):
            return []
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        calls = found if isinstance(found, list) else [found]
        if not self.begin and not all(isinstance(call, dict) and "name" in call for call in calls):
            return [body]
        return [self._whole(call, body) for call in calls]

    def _whole(self, call: Any, body: str) -> CallPiece:
        call = call if isinstance(call, dict) else {}
        arguments = call.get("arguments", call.get("parameters", body))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        name = call.get("name")
        self.calls += 1
        named = name if isinstance(name, str) else None
        return CallPiece(self.calls - 1, text if named else body, f"call_{uuid4().hex[:24]}", named)


class Value:
    """Finds the end of a JSON object in text that comes in pieces."""

    def __init__(self) -> None:
        self.depth = 1
        self._started = self._quoted = self._escaped = False

    def take(self, text: str) -> int:
        """How many characters of `text` belong to the object; `depth` is 0 once it is whole."""
        for at, char in enumerate(text):
            if self.depth == 0:
                return at
            self._see(char)
        return len(text)

    def _see(self, char: str) -> None:
        if self._quoted:
            self._quoted = self._escaped or char != '"'
            self._escaped = char == "\\" and not self._escaped
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self.depth += self._started
            self._started = True
        elif char in "}]":
            self.depth -= 1


def _beginning(text: str, mark: str) -> int:
    """The length of the longest end of `text` that begins `mark`."""
    lengths = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((n for n in lengths if mark.startswith(text[-n:])), 0)
