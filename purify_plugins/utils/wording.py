"""Messages of pydantic and llguidance in the words of the file or option that they are about."""

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
    """One of pydantic's errors as "must be a whole number, not 'many'"."""
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


REASONS: tuple[tuple[str, str], ...] = (
    (r".*line \d+ column \d+ \(char.*", r"it is not valid JSON (\g<0>)"),
    (r"'\w+' object is not a mapping", "a schema is a JSON object"),
    (r"Unimplemented keys: \[(.*)\]", r"it uses \1, which cannot be followed"),
    (
        r"oneOf constraints are not supported.*",
        "oneOf is followed only where no value fits two of its schemas; write anyOf",
    ),
    (r"Resource '(.*)' is not present .*", r"$ref leads to '\1', and only references within it are followed"),
    (r"Pointer '(.*)' does not exist", r"$ref leads to '\1', which it does not have"),
    (r".*regex parse error: (.*?) \^+ error: (.*)", r"the regular expression \1: \2"),
    (r"Unsatisfiable schema: (.*)", r"nothing can fit it: \1"),
    (r"Expected (.*) for '(.*)', got (.*)", r"\2 must be of another kind (\1), not \3"),
    (r"invalid multiple of", "multipleOf must be above 0"),
    (r"Unknown common regex: (.*?); .*", r"there is no '\1' to import"),
    (r"unknown grammar (.*)", r"\1 is no grammar"),
)
"""A message of llguidance or its libraries (a pattern) -> our words."""
PLACE = re.compile(r"(\d+)\((\d+)\): ")


def reason(message: str) -> str:
    """Why a grammar cannot be followed, from llguidance's message, in terms of the grammar's own text."""
    told = " ".join(message.split())
    # The first line of what llguidance reads is ours.
    told = PLACE.sub(lambda at: f"line {int(at[1]) - 1}, column {at[2]}: ", told)
    for pattern, words in REASONS:
        if found := re.fullmatch(pattern, told):
            return found.expand(words)
    return told
