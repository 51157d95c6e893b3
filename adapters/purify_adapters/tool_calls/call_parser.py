"""A streaming parser of tool calls in the formats of `ToolFormat`."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any
from uuid import uuid4

from purify_adapters.tool_calls.parts import CallPart, Part
from purify_plugins.types import ToolFormat

HEAD = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
"""The beginning of a call in the usual order of keys; its arguments are streamed."""
NAMED = re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\s*([\w-]*)\s*)?(?:\[ARGS\]\s*)?(?=\{)")
"""A call that is not an object: the name, its id, a mark, then the arguments."""
BETWEEN = " \t\r\n,;[]"
"""Characters that may stand between calls."""
PYTHON_TAG = "<|python_tag|>"
MARKS = (PYTHON_TAG, "[CALL_ID]", "[ARGS]")
"""Marks within calls that may be control tokens."""


class CallParser:
    """Parse the calls of a ToolFormat; their arguments are streamed.

    A call is an object with `name` and `arguments`, among other keys and in any order, or a name with its
    arguments after it. `names` are the tools that may be called; where the format has no begin mark, an
    object is a call only if its name is one of them.
    """

    def __init__(self, format: ToolFormat, names: Collection[str] = ()) -> None:
        self.begin, self.end = format.begin.strip(), format.end.strip()
        self.names = frozenset(names)
        self.named = format.named
        self.marks = (self.begin, self.end, (format.named or "").strip(), *MARKS)
        self.calls = 0
        self._held = self._gap = ""
        self._inside = self._plain = False
        self._value: Value | None = None
        self._rest: Value | None = None

    def reads(self, name: str) -> bool:
        return any(name.strip() in mark for mark in self.marks)

    @property
    def inside(self) -> bool:
        """Whether the next text belongs to a call."""
        return self._inside

    def feed(self, text: str) -> list[Part]:
        """The parts that are certain now, in order."""
        self._held += text
        parts: list[Part] = []
        while self._step(parts):
            pass
        return parts

    def close(self) -> list[Part]:
        """The rest; an incomplete call is kept unparsed."""
        rest, self._held = self._held, ""
        if not self._inside:
            return [rest] if rest and not (self.calls and rest.isspace()) else []
        whole = self._value is not None or self._rest is not None
        body = rest.lstrip(BETWEEN)
        if whole or (self.calls and self.end.startswith(rest.strip(BETWEEN))):
            return []
        if self.calls and not self.end and body[:1] != "{":
            return [body]  # text after the calls of a format without an end mark
        if not self.calls and self.named is None and body[:1] not in ("", "{"):
            return [self._gap + self.begin + rest]  # the mark was quoted, not used
        return self._odd(rest)

    def _step(self, parts: list[Part]) -> bool:
        """Parse one element of the held text; False if more text is needed."""
        if self._value is not None:
            return self._arguments(self._value, parts)
        if self._rest is not None:
            return self._other_keys(self._rest)
        return self._call(parts) if self._inside else self._text(parts)

    def _text(self, parts: list[Part]) -> bool:
        """Parse text up to a begin mark; text that may begin the mark is held."""
        if not self.begin:
            return self._bare(parts)
        before, found, after = self._held.partition(self.begin)
        text = before if found else before[: len(before) - beginning(before, self.begin)]
        text = text.rstrip()  # white space is held: before a call it does not belong to the text
        self._gap = before[len(text) :]
        parts += [text] if text else []
        self._held, self._inside = (after if found else before[len(text) :]), bool(found)
        return bool(found)

    def _bare(self, parts: list[Part]) -> bool:
        """Without a begin mark, an answer that starts with a brace may be a call; any other has none."""
        if self._plain:
            parts += [self._held] if self._held else []
            self._held = ""
            return False
        held = self._held.lstrip()
        if PYTHON_TAG.startswith(held):
            return False
        self._held = held.removeprefix(PYTHON_TAG)
        self._inside = self._held.lstrip().startswith("{")
        self._plain = not self._inside and bool(self._held.strip())
        return self._inside or self._plain

    def _call(self, parts: list[Part]) -> bool:
        """Parse the head of a call, a whole call, or the end mark."""
        body = self._between()
        if self.end and body.startswith(self.end):
            self._held, self._inside = body[len(self.end) :], False
            return True
        if (head := HEAD.match(body)) and self._offered(json.loads(head[1])):
            return self._begun(parts, json.loads(head[1]), body[head.end() :], wrapped=True)
        if self.begin and (head := NAMED.match(body)):
            return self._begun(parts, head[1], body[head.end() :], wrapped=False, id=head[2])
        if body.startswith("{") and (end := _end(body)):
            return self._object(body[:end], body[end:], parts)
        return self._unread(parts)

    def _between(self) -> str:
        """The held text without the separators of calls; some formats repeat the begin mark there."""
        body, mark = self._held, self.begin if self.calls else ""
        while body and not (mark and mark.startswith(body)):
            if mark and body.startswith(mark):
                body = body[len(mark) :]
            elif body[0] in BETWEEN:
                body = body[1:]
            else:
                break
        return body

    def _offered(self, name: str) -> bool:
        return bool(self.begin) or not self.names or name in self.names

    def _begun(
        self, parts: list[Part], name: str, rest: str, *, wrapped: bool, id: str | None = None
    ) -> bool:
        """Begin a call; `rest` starts with its arguments. `wrapped`: the call is an object around them."""
        parts.append(CallPart(self.calls, "", id or _id(), name))
        self._held, self._value = rest, Value()
        self._wrapped = wrapped
        return True

    def _object(self, body: str, rest: str, parts: list[Part]) -> bool:
        """Parse a whole object: a call, or text."""
        found = _decoded(body)
        found = _unwrapped(found) if isinstance(found, dict) else found
        bare = not self.begin
        if bare and not (_is_call(found) and self._offered(found["name"])):
            parts.append(body)
            self._held, self._inside, self._plain = rest, False, True
            return True
        parts.append(self._whole(found, body))
        self._held = rest
        return True

    def _unread(self, parts: list[Part]) -> bool:
        """Parse text that is not a call, once its end mark has come."""
        before, found, after = self._held.partition(self.end) if self.end else (self._held, "", "")
        if not found:
            return False
        parts += self._odd(before)
        self._held, self._inside = after, False
        return True

    def _arguments(self, value: Value, parts: list[Part]) -> bool:
        """Parse the arguments as far as they have come."""
        taken = value.take(self._held)
        if taken:
            parts.append(CallPart(self.calls, self._held[:taken]))
        self._held = self._held[taken:]
        if value.depth:
            return False
        self._value, self.calls = None, self.calls + 1
        self._rest = Value(inside=True) if self._wrapped else None
        return True

    def _other_keys(self, rest: Value) -> bool:
        """Skip the other keys of the call's object."""
        taken = rest.take(self._held)
        self._held = self._held[taken:]
        if rest.depth:
            return False
        self._rest = None
        return True

    def _odd(self, body: str) -> list[Part]:
        """Parse calls with unexpected JSON; text that is not a call is kept, as a call without a name."""
        if not body.strip(BETWEEN + "}"):
            return []
        if not self.begin:
            return [body]
        return [self._whole(_decoded(body), body)]

    def _whole(self, call: Any, body: str) -> CallPart:
        """A call that has come whole; without a name its arguments are its text."""
        call = _unwrapped(call) if isinstance(call, dict) else {}
        name = call.get("name") if isinstance(call.get("name"), str) else None
        arguments = call.get("arguments", call.get("parameters"))
        arguments = {} if arguments is None else arguments
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        id = call.get("id") if isinstance(call.get("id"), str) else None
        self.calls += 1
        return CallPart(self.calls - 1, text if name else body, id or _id(), name)


class Value:
    """Find the end of a JSON object in streamed text.

    `inside`: its opening brace has been read already.
    """

    def __init__(self, inside: bool = False) -> None:
        self.depth = 1
        self._started = inside
        self._quoted = self._escaped = False

    def take(self, text: str) -> int:
        """How many characters of `text` belong to the object; `depth` is 0 once it is whole."""
        for at, char in enumerate(text):
            if self.depth == 0:
                return at
            self._advance(char)
        return len(text)

    def _advance(self, char: str) -> None:
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


def _id() -> str:
    return f"call_{uuid4().hex[:24]}"


def _unwrapped(call: dict[str, Any]) -> dict[str, Any]:
    """The call inside OpenAI's object around it, with that object's `id`."""
    inner = call.get("function")
    return {**call, **inner} if "name" not in call and isinstance(inner, dict) else call


def _is_call(found: Any) -> bool:
    """Whether an object has a name and arguments, by either key."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return False
    given = [found[key] for key in ("arguments", "parameters") if key in found]
    return bool(given) and (
        given[0] is None or isinstance(given[0], dict) or isinstance(_decoded(given[0]), dict)
    )


def _end(text: str) -> int:
    """Where the object that `text` begins with ends; 0 if it does not."""
    value = Value()
    end = value.take(text)
    return end if value.depth == 0 else 0


def _decoded(body: str) -> Any:
    """The value of JSON; None for invalid JSON."""
    try:
        return json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return None


def beginning(text: str, mark: str) -> int:
    """The length of the longest end of `text` that begins `mark`."""
    lengths = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((n for n in lengths if mark.startswith(text[-n:])), 0)
