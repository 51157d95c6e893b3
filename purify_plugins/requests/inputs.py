"""Validation of a call's arguments: prompts, conversations and sampling; errors say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from purify_plugins.errors import ConfigError, PromptError, UnknownNameError
from purify_plugins.sampling import Sampling
from purify_plugins.types import Alignment, Chat, Fallback, Fidelity, Prompt

ROLES = (
    *("system", "developer", "user", "assistant", "model", "tool", "function"),
    *("ipython", "observation", "environment", "document", "context", "control"),
)
"""The roles that published chat templates have."""


def several(prompts: Any) -> list[Prompt]:
    """The prompts of a call; a lone one is a batch of one. Raises PromptError."""
    if isinstance(prompts, str | Chat):
        return [one(prompts)]
    if isinstance(prompts, bytes | bytearray | Mapping) or not isinstance(prompts, Iterable):
        raise _no_prompt(prompts)
    found = list(prompts)
    if found and _all_ids(found):
        return [one(prompts)]
    if found and isinstance(found[0], Mapping):
        raise PromptError("a list of messages is one conversation; call chat(messages)")
    return [one(each) for each in found]


def one(prompt: Any) -> Prompt:
    """A valid prompt. Raises PromptError."""
    if isinstance(prompt, tuple) and prompt and not _all_ids(prompt):
        raise PromptError(
            f"a prompt's token ids are whole numbers of a vocabulary, not {_first_wrong(prompt)!r}"
        )
    if not isinstance(prompt, str | Chat | tuple):
        raise _no_prompt(prompt)
    if not prompt or (isinstance(prompt, Chat) and not prompt.messages):
        raise PromptError("the prompt is empty; give at least one word of text")
    if isinstance(prompt, Chat):
        conversation(prompt.messages, prompt.tools)
    return prompt


def conversation(messages: Any, tools: Any = ()) -> Chat:
    """The conversation that a list of messages makes. Raises PromptError."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise PromptError(
            'a conversation is a list of messages, such as [{"role": "user", "content": "Hello"}], '
            f"not {_short(messages)}"
        )
    if not messages:
        raise PromptError("the conversation is empty; give at least one message")
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise PromptError(
            f"a chat's tools are a list of JSON schemas, as chat templates take them, not {_short(tools)}"
        )
    for number, message in enumerate(messages, 1):
        _check_message(number, message)
    return Chat(tuple(messages), tuple(tools))


def _check_message(number: int, message: Any) -> None:
    if not isinstance(message, Mapping):
        raise PromptError(
            f"message {number} must have a role and a content, "
            f'such as {{"role": "user", "content": "Hello"}}; it is {_short(message)}'
        )
    if "role" not in message:
        named = ", ".join(repr(key) for key in message) or "nothing"
        raise PromptError(f"message {number} has no 'role' ('system', 'user', 'assistant', …), only {named}")
    if message["role"] not in ROLES:
        raise PromptError(f"message {number}: {UnknownNameError('role', str(message['role']), ROLES)}")
    _check_content(number, message)


def _check_content(number: int, message: Mapping[str, Any]) -> None:
    """Raise PromptError unless the content is text or parts of text; with tool calls it may be missing."""
    content = message.get("content")
    if content is None and "content" not in message and not message.get("tool_calls"):
        raise PromptError(f"message {number} has no 'content'; give its text")
    parts = content if isinstance(content, list | tuple) else ()
    for part in parts:
        if isinstance(part, Mapping) and part.get("type", "text") != "text":
            raise PromptError(
                f"message {number} has a part of type {part['type']!r}; both models read text only"
            )
        if not isinstance(part.get("text") if isinstance(part, Mapping) else part, str):
            raise PromptError(f"message {number}: a part of its content must be text, not {_short(part)}")
    if content is not None and not isinstance(content, str | list | tuple):
        raise PromptError(f"message {number}: its content must be text, not {_short(content)}")


def texts(**values: Any) -> None:
    """Raise PromptError for a value that is no text."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise PromptError(f"the {name} must be text, not {_short(value)}")


def drawn(base: Sampling, sampling: Any, options: Mapping[str, Any]) -> Sampling:
    """A call's sampling settings: its Sampling, else `base`, with options by name. Raises ConfigError."""
    if sampling is not None and not isinstance(sampling, Sampling):
        way = "**options" if isinstance(sampling, Mapping) else "max_tokens=40"
        raise ConfigError(
            f"{_no_sampling(sampling)}; options may also be given by name: generate(prompt, {way})"
        )
    chosen = sampling or base
    return replace(chosen, **options) if options else chosen


DIGEST = re.compile("[0-9a-f]{64}")


def check_options(
    sampling: Any, on_llm_failure: Any, batch_size: Any, explain: Any, top: Any, configuration: Any = None
) -> None:
    """Raise ConfigError for an option of a Purifier that has no such value."""
    if not isinstance(sampling, Sampling):
        raise ConfigError(_no_sampling(sampling))
    require_listed("on_llm_failure", on_llm_failure, get_args(Fallback))
    for name, number, least in (("batch_size", batch_size, 1), ("top", top, 0)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise ConfigError(f"{name} must be a whole number, not {number!r}")
        if number < least:
            raise ConfigError(f"{name} must be at least {least}, not {number!r}")
    if not isinstance(explain, bool):
        raise ConfigError(f"explain must be True or False, not {explain!r}")
    if configuration is not None and not (isinstance(configuration, str) and DIGEST.fullmatch(configuration)):
        raise ConfigError(f"configuration is a SHA-256 in 64 hexadecimal digits, not {configuration!r}")


def require_listed(name: str, value: Any, known: Sequence[str]) -> None:
    """Raise ConfigError unless an option has one of its `known` values."""
    if value not in known:
        *most, last = map(repr, known)
        raise ConfigError(f"{name} must be {', '.join(most)} or {last}, not {value!r}")


def _no_sampling(value: Any) -> str:
    return f"sampling must be a Sampling, such as Sampling(max_tokens=40), not {_short(value)}"


def _all_ids(prompt: Sequence[Any]) -> bool:
    return all(_is_id(each) for each in prompt)


def _is_id(value: Any) -> bool:
    """Whether it is an id of a vocabulary, or below -1: a token that the other model lacks."""
    return isinstance(value, int) and not isinstance(value, bool) and value != -1


def _first_wrong(prompt: Sequence[Any]) -> Any:
    return next(each for each in prompt if not _is_id(each))


def _no_prompt(prompt: Any) -> PromptError:
    """The error for a value that is no prompt, with advice."""
    if isinstance(prompt, bytes | bytearray):
        return PromptError("a prompt is text, not bytes; decode it first: prompt.decode()")
    if isinstance(prompt, Mapping):
        return PromptError("a prompt is not a message; call chat([message])")
    if isinstance(prompt, list) and prompt and _all_ids(prompt):
        return PromptError("a prompt's token ids stand in a tuple, not a list; give tuple(ids)")
    return PromptError(f"a prompt is text, a Chat or a tuple of token ids, not {_short(prompt)}")


def _short(value: Any) -> str:
    """A value as an error quotes it: itself if it is short, else its type."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"a value of type {type(value).__name__}"


def require_symbols(alignment: object, fidelity: object) -> None:
    """Raise ConfigError for an alignment or a fidelity that there is not."""
    require_listed("alignment", alignment, get_args(Alignment))
    require_listed("fidelity", fidelity, get_args(Fidelity))
