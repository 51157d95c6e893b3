"""Every text of a prompt is read, and every one can be changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purify_plugins.errors import PromptError
from purify_plugins.stages.texts import rewritten, texts
from purify_plugins.types import Chat

SECRET = "ada@lovelace.example"
ARGUMENTS = json.dumps({"to": [SECRET, 7], "\u00e4": {"n": SECRET.upper()}, SECRET: 4915112345678})
CALL = {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": ARGUMENTS}}
SCHEMA = {
    "type": "object",
    "properties": {"to": {"type": "string", "enum": [SECRET], "description": f"such as {SECRET}"}},
}
CHAT = Chat(
    (
        {"role": "system", "content": f"You write for {SECRET}."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "ada@love"}, {"type": "text", "text": "lace.example"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": f"sent to {SECRET}"},
    ),
    ({"type": "function", "function": {"name": "mail", "parameters": SCHEMA}},),
)


def gone(text: str) -> str:
    return text.replace(SECRET, "x@y.example").replace(SECRET.upper(), "X@Y").replace("4915112345678", "17")


def test_everything_is_read() -> None:
    found = list(texts(CHAT))
    assert SECRET in found  # the joined parts, the key, the values in the arguments' JSON and the schema
    assert {"4915112345678", "ä", SECRET.upper(), "mail"} <= set(found)
    assert not {"user", "function", "arguments"} & set(found)


def test_everything_is_changed_and_stays_what_it_is() -> None:
    changed = rewritten(CHAT, gone)
    assert isinstance(changed, Chat)
    assert SECRET not in repr(changed).lower()
    assert json.loads(changed.messages[2]["tool_calls"][0]["function"]["arguments"]) == {
        "to": ["x@y.example", 7],
        "ä": {"n": "X@Y"},
        "x@y.example": 17,
    }
    assert changed.tools[0]["function"]["parameters"]["properties"]["to"]["type"] == "string"


def test_escaped_arguments_are_changed_in_what_they_hold() -> None:
    spelled = "".join(f"\\u{ord(each):04x}" for each in SECRET)
    call = {"type": "function", "function": {"name": "f", "arguments": f'{{"to": "{spelled}"}}'}}
    changed = rewritten(Chat(({"role": "assistant", "content": "", "tool_calls": [call]},)), gone)
    assert isinstance(changed, Chat)
    assert "x@y.example" in changed.messages[0]["tool_calls"][0]["function"]["arguments"]


def test_token_ids_and_colliding_keys_are_refused() -> None:
    with pytest.raises(PromptError, match="token ids have no text"):
        list(texts((1, 2)))
    with pytest.raises(PromptError, match="token ids have no text"):
        rewritten((1, 2), str)
    with pytest.raises(PromptError, match="the same"):
        rewritten(Chat(({"role": "user", "content": {"a": 1, "b": 2}},)), lambda _: "c")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=3), max_size=3))
def test_what_is_not_changed_is_the_same(messages: list[Mapping[str, Any]]) -> None:
    chat = Chat(tuple(messages))
    same = rewritten(chat, str)
    assert isinstance(same, Chat)
    assert [*same.messages] == messages
