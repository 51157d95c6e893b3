"""Every text that a prompt holds, at any depth: to be read, or to be changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from purify_plugins.errors import PromptError
from purify_plugins.types import Chat, Prompt

FORMAT = {
    *("role", "type", "id", "tool_call_id", "content", "text", "name", "function", "arguments", "tool_calls"),
    *("parameters", "properties", "required", "description", "items", "enum", "anyOf", "strict"),
    *("additionalProperties", "object", "string", "number", "integer", "boolean", "array", "null"),
    *("user", "assistant", "system", "developer", "tool"),
}
"""Keys of messages and tools, and values of `role` and `type`, that are the format's own words."""


def texts(prompt: Prompt) -> Iterator[str]:
    """Every text of a prompt: of all its messages, their parts and calls, and its tools.

    Keys and numbers count, but for the format's own words; a message's texts come once more joined, since a
    template joins its parts; the arguments of a call come once more as the texts in their JSON. Raises
    PromptError for token ids, which have no text.
    """
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, Chat):
        for message in prompt.messages:
            found = [*_texts(message)]
            yield from found
            if len(found) > 1:
                yield "".join(found)
            yield from _spelled(message)
        yield from _texts(prompt.tools)
    else:
        raise PromptError("token ids have no text to judge or change; give text or messages")


def rewritten(prompt: Prompt, change: Callable[[str], str]) -> Prompt:
    """The prompt with `change` made in each of its texts, keys too but for the format's own words.

    The arguments of a call, which are JSON in a string, are changed in what they hold and stay JSON. Raises
    PromptError for token ids, and where two keys of one object would become the same.
    """
    if isinstance(prompt, str):
        return change(prompt)
    if isinstance(prompt, Chat):
        messages = tuple(_changed(message, change) for message in prompt.messages)
        return Chat(messages, tuple(_changed(tool, change) for tool in prompt.tools))
    raise PromptError("token ids have no text to judge or change; give text or messages")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if key not in FORMAT:
                yield str(key)
            if not _own(key, each):
                yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif _number(value):
        yield str(value)


def _spelled(value: Any) -> Iterator[str]:
    """The texts in the JSON of a message's calls."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            parsed = _parsed(each) if key == "arguments" and isinstance(each, str) else None
            yield from _spelled(each) if parsed is None else _texts(parsed)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _spelled(each)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        found = {
            key if key in FORMAT else change(str(key)): each
            if _own(key, each)
            else _inside(key, each, change)
            for key, each in value.items()
        }
        if len(found) < len(value):
            raise PromptError("two keys of one object in the prompt would become the same")
        return found
    if isinstance(value, list | tuple):
        return [_changed(each, change) for each in value]
    if _number(value):
        text = str(value)
        new = change(text)
        return value if new == text else _read(new)
    return value


def _inside(key: str, value: Any, change: Callable[[str], str]) -> Any:
    parsed = _parsed(value) if key == "arguments" and isinstance(value, str) else None
    if parsed is None:
        return _changed(value, change)
    return json.dumps(_changed(parsed, change), ensure_ascii=False)


def _own(key: Any, value: Any) -> bool:
    """Whether a value is the format's own word, which says what a message or a schema is."""
    return key in ("role", "type") and isinstance(value, str) and value in FORMAT


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read(text: str) -> Any:
    """A changed number, which stays one where it still spells one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if _number(found) else text


def _parsed(text: str) -> Any:
    """The objects and lists that a text spells in JSON; None where it spells none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None
