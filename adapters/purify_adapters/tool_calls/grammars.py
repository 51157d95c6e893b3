"""Schemas and literals for the grammars that force a tool call."""

from __future__ import annotations

import json
from typing import Any

from purify_plugins.types import Vocabulary


def literal(text: str, vocabulary: Vocabulary | None = None) -> str:
    """A text as a Lark terminal; the name of a control token becomes that token."""
    names = {name: index for index, name in vocabulary.control.items()} if vocabulary else {}
    if text.strip() in names:
        return f"<[{names[text.strip()]}]>"
    return json.dumps(text, ensure_ascii=False) if text else ""


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties` false in objects that list their properties, unless set."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {
        key: {name: closed(part) for name, part in value.items()}
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict)
        else value
        if key in ("allOf", "enum", "const", "default", "examples")
        else closed(value)
        for key, value in schema.items()
    }
    return (
        {**inside, "additionalProperties": schema.get("additionalProperties", False)}
        if {"properties", "patternProperties"} & schema.keys()
        else inside
    )
