"""What changes nothing is accepted anywhere; what would be ignored is refused, as its user calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from purify_plugins import Purifier
from purify_plugins.testing import ScriptedSource
from purify_plugins.types import Prompt
from tests.adapters.gateways import Served, serving
from tests.toys import BYTES, real

CHAT, TEXT, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
SAID = [{"role": "user", "content": "Sun?"}]
CALLS = "".join(f'<tool_call>{{"name": "{name}", "arguments": {{"x": 1}}}}</tool_call>' for name in "ab")
TOOLS = [{"type": "function", "function": {"name": name}} for name in "ab"]


def sure_of(text: str, **settings: Any) -> Any:
    """A gateway in front of two models that are sure of a text."""
    script = ScriptedSource(BYTES, text.encode(), doubt=1e-9)
    return serving(Purifier.load(script, script, "geometric"), **{"max_total_tokens": 512, **settings})


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with sure_of("Once upon") as found:
        yield found


@pytest.fixture(scope="module")
def calling() -> Iterator[Served]:
    with sure_of(CALLS) as found:
        yield found


@pytest.fixture(scope="module")
def trained() -> Iterator[Served]:
    with serving(real("geometric")) as found:
        yield found


def body(path: str, **options: Any) -> dict[str, Any]:
    if path == GENERATE:
        return {"inputs": "Sun?", "parameters": options}
    return {"messages": SAID, **options} if path == CHAT else {"prompt": "Sun?", **options}


@pytest.mark.parametrize("path", [CHAT, TEXT, GENERATE])
@pytest.mark.parametrize(
    "option",
    [
        *[{"stop": value} for value in ("", [], [""], ["Z", ""], None)],
        *[{"seed": -1}, {"seed": 2**63}, {"top_k": 0}, {"top_k": -1}, {"top_p": 1}, {"typical_p": 1.0}],
        *[{"logit_bias": value} for value in (None, {}, [], {"5": 0})],
        *[{"presence_penalty": 0}, {"frequency_penalty": 0}, {"best_of": 1}, {"n": None}, {"echo": False}],
        *[{"watermark": False}, {"details": False}, {"return_full_text": False}, {"top_n_tokens": 0}],
        *[{"decoder_input_details": False}, {"adapter_id": None}, {"truncate": None}, {"grammar": None}],
        *[{"suffix": ""}, {"audio": None}, {"functions": []}, {"function_call": "none"}],
        *[{"response_format": {"type": "text"}}, {"logprobs": None}, {"stream_options": None}],
        *[
            {"cache_prompt": True},
            {"mirostat": 0},
            {"repeat_penalty": 1.0},
            {"n_predict": -1},
            {"id_slot": 0},
        ],
    ],
    ids=str,
)
def test_a_value_that_changes_nothing_is_accepted_on_every_route(
    served: Served, path: str, option: dict[str, Any]
) -> None:
    found = served.post(path, body(path, **option))
    assert found.status_code == 200, found.text


@pytest.mark.parametrize(
    "option",
    [
        *[{"logprobs": 0}, {"logprobs": False, "top_logprobs": 0}, {"tools": []}, {"tool_choice": "none"}],
        *[{"tool_choice": "auto"}, {"parallel_tool_calls": False}, {"response_format": None}],
        *[{"max_completion_tokens": None, "max_tokens": None}, {"reasoning_effort": "low"}],
    ],
    ids=str,
)
def test_a_chat_s_values_that_change_nothing_are_accepted(served: Served, option: dict[str, Any]) -> None:
    assert served.post(CHAT, body(CHAT, **option)).json()["choices"][0]["message"]["content"] == "Once upon"


@pytest.mark.parametrize(
    ("path", "option", "named"),
    [
        (CHAT, {"max_tokens": 0}, "max_tokens"),
        (CHAT, {"max_completion_tokens": 0}, "max_completion_tokens"),
        (TEXT, {"max_tokens": 0}, "max_tokens"),
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (TEXT, {"logprobs": 21}, "logprobs"),
        (CHAT, {"stop": 5}, "stop"),
        (CHAT, {"stop": list("abcde")}, "stop"),
        (CHAT, {"temperature": -1}, "temperature"),
        (CHAT, {"temperature": "0.5"}, "temperature"),
        (CHAT, {"seed": 2**64}, "seed"),
        (CHAT, {"n": 5}, "n"),
        (TEXT, {"best_of": 9}, "best_of"),
        (TEXT, {"best_of": 2, "temperature": 0}, "best_of"),
        (TEXT, {"best_of": 3, "n": 2}, "best_of"),
        (CHAT, {"logit_bias": {"5": 1}}, "logit_bias"),
        (CHAT, {"presence_penalty": 0.5}, "presence_penalty"),
        (CHAT, {"function_call": {"name": "a"}}, "function_call"),
        (CHAT, {"tool_choice": "required"}, "tool_choice"),
        (CHAT, {"tool_choice": "nobody"}, "tool_choice"),
        (CHAT, {"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        (CHAT, {"response_format": {"type": "foo"}}, "response_format"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "response_format"),
        (CHAT, {"response_format": {"type": "regex", "value": "("}}, "response_format"),
    ],
    ids=str,
)
def test_an_error_names_the_option_as_its_user_does(
    served: Served, path: str, option: dict[str, Any], named: str
) -> None:
    """A limit of `max_tokens` used to be refused as one of TGI's `max_new_tokens`, which nobody had set."""
    refused = served.post(path, body(path, **option))
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (422, named)
    assert named in error["message"] or "Tool with name" in error["message"]
    assert "new_tokens" not in error["message"]


@pytest.mark.parametrize(
    ("option", "meant"),
    [("stop_sequences", "stop"), ("n_predict", "max_new_tokens"), ("repeat_penalty", "repetition_penalty")],
)
def test_what_is_called_otherwise_here_is_named(served: Served, option: str, meant: str) -> None:
    refused = served.post(GENERATE, body(GENERATE, **{option: 4}))
    assert f"`{option}` is no option here; did you mean `{meant}`?" in refused.json()["error"]


@pytest.mark.parametrize(("path", "name"), [(CHAT, "messages"), (TEXT, "prompt"), ("/v1/responses", "input")])
def test_too_long_a_prompt_is_told_in_openai_s_words(trained: Served, path: str, name: str) -> None:
    """Clients look for these words: LangChain and litellm raise an error of their own for them."""
    long = "sun " * trained.app.service.validator.max_total_tokens
    asked = {"messages": [{"role": "user", "content": long}]} if path == CHAT else {name: long}
    error = trained.post(path, asked).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", name)
    assert "This model's maximum context length is" in error["message"]
    assert "slm" not in error["message"]


@pytest.mark.parametrize(
    ("path", "name"), [(CHAT, "max_tokens"), (TEXT, "max_tokens"), (GENERATE, "max_new_tokens")]
)
def test_a_limit_beyond_what_the_models_read_is_that(served: Served, path: str, name: str) -> None:
    """LangChain sends 512 by default, and was refused: an SLM may read less than its LLM."""
    assert served.post(path, body(path, **{name: 100_000})).status_code == 200
    with sure_of("a" * 400, max_total_tokens=64) as short:
        asked = body(CHAT, max_tokens=512)
        found = short.post(CHAT, asked).json()
        assert found["choices"][0]["finish_reason"] == "length"
        assert found["usage"]["total_tokens"] <= 64


# Messages


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (
            {"role": "assistant", "content": None, "function_call": {"name": "a", "arguments": "{}"}},
            "function_call",
        ),
        ({"role": "assistant", "content": "a", "audio": {"id": "1"}}, "audio"),
        ({"role": "assistant", "content": "a", "prefix": True}, "prefix"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a"}}]}, "image_url"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_of_a_message_is_refused(
    served: Served, message: dict[str, Any], named: str
) -> None:
    """A call in the older form was dropped from the conversation without a word."""
    refused = served.post(CHAT, {"messages": [*SAID, message]})
    assert refused.status_code == 422
    assert named in refused.json()["error"]["message"]


def told(served: Served, *messages: dict[str, Any]) -> str:
    found = served.post("/chat_tokenize", {"messages": [*SAID, *messages]})
    assert found.status_code == 200, found.text
    return str(found.json()["templated_text"])


def test_a_message_that_an_answer_was_is_read_again(trained: Served) -> None:
    """Whatever OpenAI's client dumps of a message may be sent back."""
    dumped = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    assert "Rain." in told(trained, {"role": "assistant", "content": "Rain.", **dumped})
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]}
    assert "I will not." in told(trained, refusal)
    call = {"id": None, "type": None, "function": {"name": "weather", "arguments": ""}}
    assert "weather" in told(trained, {"role": "assistant", "tool_calls": [call]})


# Calls


def calls(served: Served, **options: Any) -> list[str]:
    """The names of the tools that an answer calls, which are the same in a stream."""
    asked = body(CHAT, tools=TOOLS, **options)
    message = served.post(CHAT, asked).json()["choices"][0]["message"]
    found = [call["function"]["name"] for call in message.get("tool_calls", ())]
    deltas = [event["choices"][0]["delta"] for event in served.events(CHAT, {**asked, "stream": True})[:-1]]
    streamed = [call["function"].get("name") for delta in deltas for call in delta.get("tool_calls", ())]
    assert [name for name in streamed if name] == found
    return found


def test_one_call_at_a_time_is_one_call(calling: Served) -> None:
    """`parallel_tool_calls` false was accepted, and two calls came."""
    assert calls(calling) == calls(calling, parallel_tool_calls=True) == ["a", "b"]
    assert calls(calling, parallel_tool_calls=False) == ["a"]
    assert calls(calling, tool_choice="none") == []


def test_what_names_no_tool_is_text() -> None:
    """It was a call without a name, for which no client has a place."""
    with sure_of("<tool_call>not json</tool_call>" + CALLS) as served:
        assert calls(served) == ["a", "b"]
        message = served.post(CHAT, body(CHAT, tools=TOOLS)).json()["choices"][0]["message"]
        assert message["content"] == "not json"
        deltas = [
            event["choices"][0]["delta"]
            for event in served.events(CHAT, body(CHAT, tools=TOOLS, stream=True))[:-1]
        ]
        assert {call["index"] for delta in deltas for call in delta.get("tool_calls", ())} == {0, 1}


def test_a_call_that_is_cut_short_says_so(calling: Served) -> None:
    """It ended with `tool_calls`, and an agent went on with half the arguments."""
    asked = body(CHAT, tools=TOOLS, max_tokens=40)
    assert calling.post(CHAT, asked).json()["choices"][0]["finish_reason"] == "length"
    assert calling.events(CHAT, {**asked, "stream": True})[-2]["choices"][0]["finish_reason"] == "length"
    whole = body(CHAT, tools=TOOLS)
    assert calling.post(CHAT, whole).json()["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("allowed", ["b", "a"])
def test_only_allowed_tools_are_called(trained: Served, allowed: str) -> None:
    tools = [{"type": "function", "function": {"name": allowed}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    assert calls(trained, tool_choice=choice, temperature=0, max_tokens=60) == [allowed]
    assert calls(trained, tool_choice=tools[0], temperature=0, max_tokens=60) == [allowed]


def test_with_tools_and_a_format_an_answer_is_either(trained: Served) -> None:
    """It was refused, and OpenAI's agents ask for both."""
    schema = {"type": "object", "properties": {"sky": {"enum": ["blue"]}}, "required": ["sky"]}
    format = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema, "strict": True}}
    asked = body(CHAT, tools=TOOLS, response_format=format, temperature=0)
    for seed in range(3):
        message = trained.post(CHAT, {**asked, "temperature": 1, "seed": seed}).json()["choices"][0][
            "message"
        ]
        if "tool_calls" in message:
            assert message["tool_calls"][0]["function"]["name"] in "ab"
        else:
            assert json.loads(message["content"]) == {"sky": "blue"}
    text = body(CHAT, tools=TOOLS, response_format={"type": "text"}, max_tokens=4)
    assert trained.post(CHAT, text).status_code == 200
    regex = body(CHAT, tools=TOOLS, response_format={"type": "regex", "value": "a"})
    assert "mutually exclusive" in trained.post(CHAT, regex).json()["error"]["message"]


# Thoughts


@dataclass(frozen=True)
class Thoughtful(ScriptedSource):
    """A model whose chat template knows thoughts."""

    @property
    def tokenizer(self) -> Any:
        return SimpleNamespace(chat_template="<think>", decode=lambda ids: "", eos_token_id=None)

    def encode(self, prompt: Prompt) -> Sequence[int]:
        return (1,)


def test_thoughts_are_told_apart_without_tools_too() -> None:
    """Only chats with tools were read so; in all others a thought was the answer's text."""
    model = Thoughtful(BYTES, b"<think>hm</think>\n\nYes.", doubt=1e-9)
    with serving(Purifier.load(model, model, "geometric"), max_total_tokens=512) as served:
        message = served.post(CHAT, body(CHAT)).json()["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("hm", "Yes.")
        deltas = [event["choices"][0]["delta"] for event in served.events(CHAT, body(CHAT, stream=True))[:-1]]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "hm"
        assert "".join(delta.get("content", "") for delta in deltas) == "Yes."
    with sure_of("<think>hm</think>Yes.") as plain:  # nothing says that these models think
        message = plain.post(CHAT, body(CHAT)).json()["choices"][0]["message"]
        assert message["content"] == "<think>hm</think>Yes."


# Usage


def test_a_stream_of_completions_tells_the_usage_of_all_where_it_is_asked(served: Served) -> None:
    """It stood in each one's last chunk, asked for or not, and never in one of its own."""
    asked = {"prompt": ["Sun?", "Rain?"], "stream": True}
    assert not any("usage" in event for event in served.events(TEXT, asked)[:-1])
    *events, last, done = served.events(TEXT, {**asked, "stream_options": {"include_usage": True}})
    assert done == "[DONE]"
    assert [event["usage"] for event in events] == [None] * len(events)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 20)


def test_a_browser_s_client_may_send_its_key(served: Served) -> None:
    asked = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, x-stainless-lang",
    }
    assert served.client.options(CHAT, headers=asked).status_code == 200


@pytest.mark.parametrize(
    "allowed", ["x", {"tools": 5}, {"tools": [], "mode": "required"}, {"mode": "required"}]
)
def test_allowed_tools_that_are_no_list_of_tools_are_refused_by_name(trained: Served, allowed: Any) -> None:
    """They were a model's or a plugin's failure; "required" without any was forgotten."""
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed},
    }
    refused = trained.post("/v1/chat/completions", body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "tool_choice")
