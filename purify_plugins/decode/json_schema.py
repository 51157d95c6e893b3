"""JSON schemas as llguidance follows them, and the property to blame where it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from purify_plugins.errors import ConfigError

SPACE = r"( |\n {0,24})?"
"""White space in JSON: enough to indent; without a bound a model in doubt would write nothing else."""
NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
"""Keywords whose values hold schemas by names, which are no keywords themselves."""
LITERAL = ("enum", "const", "default", "examples")
"""Keywords whose values are JSON, and no schemas."""


def json_rule(schema: Any) -> str:
    """A rule's right-hand side, in Lark, for the JSON values that a schema describes."""
    return _rule({} if schema is True else supported(schema))


def _rule(schema: Any) -> str:
    return f"%json {json.dumps({'x-guidance': {'whitespace_pattern': SPACE}, **schema})}"


def supported(schema: Any) -> Any:
    """The schema without annotations that no grammar can follow.

    `format` is an annotation by JSON Schema's own rules (pydantic writes "path", "password", "binary"),
    and where llguidance does not know one it is left out. So is `uniqueItems`, which pydantic writes of
    a set: reading the array into a set makes its items unique.
    """
    if isinstance(schema, list):
        return [supported(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _inside(key, value) for key, value in schema.items() if not _annotates(key, value)}


def _inside(key: str, value: Any) -> Any:
    if key in NAMED and isinstance(value, dict):
        return {name: supported(part) for name, part in value.items()}
    return value if key in LITERAL else supported(value)


def _annotates(key: str, value: Any) -> bool:
    """Whether a keyword says something that cannot be followed and need not be."""
    if key == "format" and isinstance(value, str):
        return not followed({"type": "string", "format": value})
    return key == "uniqueItems" and value is True


def followed(schema: Any) -> bool:
    """Whether llguidance can follow a schema as it stands."""
    return _followed(_rule(schema))


@lru_cache(maxsize=256)
def _followed(rule: str) -> bool:
    from llguidance import LLMatcher

    wrong, _ = LLMatcher.validate_grammar_with_warnings(f"start: {rule}")
    return not wrong


def culprit(schema: Any) -> str:
    """The path of the innermost property that cannot be followed by itself; empty if none is to blame."""
    definitions = schema.get("$defs") if isinstance(schema, dict) else None
    definitions = definitions if isinstance(definitions, dict) else {}
    path: list[str] = []
    while found := _first(schema, definitions):
        name, schema = found
        path.append(name)
    return ".".join(path)


def _first(schema: Any, definitions: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The first part of a schema that cannot be followed by itself, and its name."""
    for name, part in _parts(schema):
        if not followed(supported({**part, "$defs": definitions})):
            return name, part
    return None


def _parts(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of an object's properties, of an array's items, and those it defines."""
    if not isinstance(schema, dict):
        return
    for keyword in ("properties", "$defs"):
        found = schema.get(keyword)
        named = found if isinstance(found, dict) else {}
        yield from ((name, part) for name, part in named.items() if isinstance(part, dict))
    if isinstance(schema.get("items"), dict):
        yield "items", schema["items"]


def refuse(text: str, messages: str) -> ConfigError:
    """What is said of a schema (JSON) that cannot be followed: which property, and llguidance's reason."""
    try:
        field = culprit(json.loads(text))
    except (TypeError, ValueError, RecursionError):  # it is no JSON, or no schema
        field = ""
    return ConfigError(
        f"this json_schema grammar cannot be followed: {field + ': ' if field else ''}{messages}; "
        "correct or simplify it"
    )
