"""What a value must be, in the words of who writes it: pydantic's own speak of dictionaries and parsing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": 'a list, such as ["one", "two"]',
    "tuple": 'a list, such as ["one", "two"]',
    "dict": "a table",
    "model": "a table",
    "path": "a path",
}
"""The beginning of the name of a pydantic error -> what was expected."""
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def must_be(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors asks for, and what was found: "must be a whole number, not 'many'"."""
    found = repr(error["input"])
    shown = found if len(found) < 80 else f"{found[:76]}…"
    expected = _expected(error["type"], error.get("ctx", {}))
    return f"must be {expected}, not {shown}" if expected else _own(error["msg"])


def _expected(kind: str, context: Mapping[str, Any]) -> str:
    for bound, words in BOUNDS.items():
        if bound in context:
            return f"{words} {context[bound]:g}"
    if kind.startswith(("too_short", "string_too_short")):
        least = context["min_length"]
        return f"at least {least} {'item' if kind == 'too_short' else 'character'}{'s' * (least > 1)} long"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "int_parsing_size":
        return "a smaller number"
    return next((words for name, words in KINDS.items() if kind.startswith(name)), "")


def _own(message: str) -> str:
    """A message that no table has: pydantic's, or of a validator."""
    return re.sub(r"^(Value|Assertion) error, ", "", message).rstrip(".")
