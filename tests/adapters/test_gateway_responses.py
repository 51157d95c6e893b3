"""`/v1/responses` is a chat in OpenAI's newer words: items of output, whole and event by event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from purify_plugins import Purifier
from purify_plugins.testing import ScriptedSource
from tests.adapters.gateways import Served, serving, stubs
from tests.toys import BYTES, Failing, real

PATH = "/v1/responses"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"days": {"enum": [1, 2]}}, "required": ["days"]},
    "strict": True,
}


@pytest.fixture(scope="module")
def trained() -> Iterator[Served]:
    """The test bed's pair."""
    with serving(real("geometric")) as found:
        yield found


@pytest.fixture(scope="module")
def sure() -> Iterator[Served]:
    """A pair that is sure of its answer."""
    script = ScriptedSource(BYTES, b"Once upon", doubt=1e-9)
    with serving(Purifier.load(script, script, "geometric")) as found:
        yield found


def streamed(served: Served, body: Any) -> list[dict[str, Any]]:
    """A stream's events; each is named by its type, and they are counted."""
    text = served.post(PATH, {**body, "stream": True}).text
    found = served.events(PATH, {**body, "stream": True})
    names = [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")]
    assert names == [event["type"] for event in found]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_a_stream_s_last_event_is_the_whole_response(sure: Served) -> None:
    asked = {"input": "Hello", "model": "mine"}
    whole = sure.post(PATH, asked).json()
    first, _, *events, last = streamed(sure, asked)
    assert (first["type"], last["type"]) == ("response.created", "response.completed")
    [item] = last["response"]["output"]
    assert item["content"][0]["text"] == "Once upon"
    assert "".join(event.get("delta", "") for event in events) == "Once upon"
    assert events[0]["item"]["id"] == item["id"] == events[-1]["item"]["id"]
    assert events[-1]["item"] == item
    for response in (whole, last["response"]):
        response["output"][0].pop("id")
        assert response.pop("id").startswith("resp_")
        response.pop("created_at")
    assert whole == last["response"]
    assert whole["status"] == "completed"
    assert whole["model"] == "mine"
    assert set(last["purify"]) == {"certificate", "guarantee", "slm_only", "upstream_requests"}


def test_an_answer_cut_short_says_why(sure: Served) -> None:
    found = sure.post(PATH, {"input": "Hello", "max_output_tokens": 4}).json()
    assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert found["output"][0]["content"][0]["text"] == "Once"
    assert found["usage"]["output_tokens"] == 4
    *_, done, last = streamed(sure, {"input": "Hello", "max_output_tokens": 4})
    assert last["type"] == "response.incomplete"
    assert done["item"]["status"] == last["response"]["output"][0]["status"] == "incomplete"


def test_an_empty_answer_is_a_message_without_text() -> None:
    silent = ScriptedSource(BYTES, b"", doubt=1e-9)
    with serving(Purifier.load(silent, silent, "geometric")) as served:
        [item] = served.post(PATH, {"input": "Hello"}).json()["output"]
        assert (item["type"], item["content"][0]["text"]) == ("message", "")


def test_instructions_and_turns_are_a_chat(trained: Served) -> None:
    """The same prompt, whichever route asks: as many tokens, and the same greedy answer."""
    turns = [
        {"role": "user", "content": [{"type": "input_text", "text": "Sun?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Rain."}]},
        {"type": "reasoning", "content": "hm"},
        {"role": "user", "content": "Sure?"},
    ]
    asked = {"instructions": "Be kind.", "input": turns, "temperature": 0, "max_output_tokens": 8}
    found = trained.post(PATH, asked).json()
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Sun?"},
        {"role": "assistant", "content": "Rain."},
        {"role": "user", "content": "Sure?"},
    ]
    body = {"messages": chat, "temperature": 0, "max_tokens": 8}
    whole = trained.post("/v1/chat/completions", body).json()
    assert found["usage"]["input_tokens"] == whole["usage"]["prompt_tokens"] > 0
    assert found["output"][0]["content"][0]["text"] == whole["choices"][0]["message"]["content"]


def test_a_function_is_called_and_its_result_read(trained: Served) -> None:
    asked = {"input": "Sun?", "tools": [WEATHER], "tool_choice": "required", "temperature": 0}
    [call] = trained.post(PATH, asked).json()["output"]
    assert (call["type"], call["name"]) == ("function_call", "weather")
    assert json.loads(call["arguments"])["days"] in (1, 2)
    events = streamed(trained, asked)
    [done] = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    deltas = [event for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(event["delta"] for event in deltas) == done["arguments"]
    assert json.loads(done["arguments"])["days"] in (1, 2)
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
    turns = [{"role": "user", "content": "Sun?"}, call, result]
    again = {"input": turns, "max_output_tokens": 4, "temperature": 0}  # drawn it may end sooner
    assert trained.post(PATH, again).json()["usage"]["output_tokens"] == 4


def test_an_answer_follows_the_schema_of_its_format(trained: Served) -> None:
    schema = {"type": "object", "properties": {"kind": {"enum": ["sun", "rain"]}}, "required": ["kind"]}
    schema["additionalProperties"] = False
    format = {"type": "json_schema", "name": "sky", "schema": schema, "strict": True}
    asked = {"input": "Sky?", "text": {"format": format}, "temperature": 0}
    found = trained.post(PATH, asked).json()
    assert json.loads(found["output"][0]["content"][0]["text"])["kind"] in ("sun", "rain")
    assert found["text"]["format"] == format


def test_log_probabilities_are_told_where_they_are_included(sure: Served) -> None:
    asked = {"input": "Hello", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    found = sure.post(PATH, asked).json()["output"][0]["content"][0]["logprobs"]
    assert "".join(each["token"] for each in found).startswith("Once upon")
    assert {len(each["top_logprobs"]) for each in found} == {2}
    deltas = [each["logprobs"] for each in streamed(sure, asked) if each["type"].endswith("text.delta")]
    assert [token["token"] for told in deltas for token in told] == list("Once upon")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1"}),
        ("include", ["file_search_call.results"]),
        ("background", True),
        ("truncation", "auto"),
        ("max_tool_calls", 1),
        ("tools", [{"type": "web_search"}]),
        ("input", [{"type": "item_reference", "id": "msg_1"}]),
        ("input", [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a"}]}]),
        ("top_p", 2),
        ("stop", "a"),
        ("n", 2),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(sure: Served, option: str, value: Any) -> None:
    refused = sure.post(PATH, {"input": "Hello", option: value})
    assert refused.status_code == 422
    named = {"input": "item_reference" if "item" in str(value) else "input_image"}.get(option, option)
    assert named in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "option",
    [
        {"store": True},
        {"background": False},
        {"truncation": "disabled"},
        {"previous_response_id": None},
        {"tools": []},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        {"reasoning": {"effort": "low"}},
        {"include": ["reasoning.encrypted_content"]},
        {"stream_options": {"include_obfuscation": False}},
        {"metadata": {"a": "b"}, "user": "u", "service_tier": "auto"},
        {"max_output_tokens": None, "temperature": 1, "top_p": 1},
    ],
)
def test_what_changes_nothing_is_accepted(sure: Served, option: dict[str, Any]) -> None:
    assert sure.post(PATH, {"input": "Hello", **option}).status_code == 200


def test_a_failure_in_a_stream_is_its_last_event() -> None:
    with serving(stubs(Failing(BYTES, at=3), walk="lockstep")) as served:
        *_, last = streamed(served, {"input": "Hello"})
        assert last["type"] == "error"
        assert last["error"]["code"] == "generation"
        assert "failed" in last["message"]
