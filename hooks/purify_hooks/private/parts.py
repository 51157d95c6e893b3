"""`joined`: a message's parts of text as one, where a private value stands across them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from purify_hooks.private.finders.finder import Finder
from purify_plugins.types import Chat, Prompt


def joined(prompt: Prompt, finder: Finder) -> Prompt:
    """The prompt; where a private value stands across parts of a message, its parts of text are one."""
    if not isinstance(prompt, Chat):
        return prompt
    return Chat(tuple(_joined(message, finder) for message in prompt.messages), prompt.tools)


def _joined(message: Mapping[str, Any], finder: Finder) -> Mapping[str, Any]:
    content = message.get("content")
    if not isinstance(content, list | tuple) or len(content) < 2:
        return message
    parts: list[Any] = []
    for said, some in groupby(content, lambda part: _said(part) is not None):
        run = list(some)
        parts += _one(run, finder) if said else run
    return message if len(parts) == len(content) else {**message, "content": parts}


def _one(parts: Sequence[Any], finder: Finder) -> Sequence[Any]:
    """Parts of text, as one where a private value stands across them."""
    ends, whole = [], ""
    for part in parts:
        whole += _said(part) or ""
        ends.append(len(whole))
    across = any(bisect_right(ends, start) < bisect_left(ends, stop) for start, stop, _ in finder.find(whole))
    return [{"type": "text", "text": whole}] if across else parts


def _said(part: Any) -> str | None:
    """The text of a part of a message; None: it is none."""
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else None
    return text if isinstance(text, str) else None
