"""The gateway speaks as TGI does: shapes, defaults, quirks and refusals."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from purify_adapters.gateway.sse import event
from purify_adapters.gateway.telemetry import (
    DURATION,
    FIRST_CHUNK,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Instruments,
)
from purify_plugins import RefusedError, Sampling, hookimpl
from purify_plugins.certificates import MEANING, read, verify
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.sources.wrapper import SourceWrapper
from tests.adapters.gateways import FORBIDDEN, Served, serving, stubs
from tests.fake_tgi import fake_tgi
from tests.remote.toy_server import Script, toy_source
from tests.toys import BYTES, Failing, real

KEY = "a key"
AUTH = {"authorization": f"Bearer {KEY}"}
SEED = 4
"""A seed with which the stubs do not end before they have to."""
TEN = {"max_new_tokens": 10, "seed": SEED}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(stubs(), certificates=8, queue=4, max_concurrent=4) as found:
        yield found


@pytest.fixture(scope="module")
def trained() -> Iterator[Served]:
    """The test bed's pair."""
    with serving(real("geometric")) as found:
        yield found


class Around(SourceWrapper):
    """A source around another one."""

    def __init__(self, source: Any) -> None:
        self.source = source


def ask(**parameters: Any) -> dict[str, Any]:
    return {"inputs": "hello", "parameters": {**TEN, **parameters}}


# TGI's own routes


def test_details_are_left_out_unless_they_are_asked_for(served: Served) -> None:
    assert served.post("/generate", ask()).json().keys() == {"generated_text"}
    details = served.post("/generate", ask(details=True)).json()["details"]
    assert details.keys() == {"finish_reason", "generated_tokens", "seed", "prefill", "tokens"}
    assert (details["finish_reason"], details["generated_tokens"], details["prefill"]) == ("length", 10, [])


def test_the_tokens_texts_add_up_to_the_answer(served: Served) -> None:
    found = served.post("/generate", ask(details=True, do_sample=True)).json()
    tokens = found["details"]["tokens"]
    assert [token.keys() for token in tokens] == [{"id", "text", "logprob", "special"}] * 10
    assert "".join(token["text"] for token in tokens) == found["generated_text"]
    assert all(token["logprob"] <= 0 for token in tokens)
    assert found["details"]["seed"] == SEED


def test_a_stream_says_token_by_token_what_a_whole_answer_says(served: Served) -> None:
    whole = served.post("/generate", ask(details=True, do_sample=True)).json()
    *rest, last = served.events("/generate_stream", ask(details=True, do_sample=True))
    count = whole["details"]["generated_tokens"]
    assert [event["index"] for event in [*rest, last]] == list(range(1, count + 1))
    assert [event["token"] for event in [*rest, last]] == whole["details"]["tokens"]
    assert {(event["generated_text"], event["details"]) for event in rest} == {(None, None)}
    assert last["generated_text"] == whole["generated_text"]
    assert last["details"] == {
        "finish_reason": whole["details"]["finish_reason"],
        "generated_tokens": count,
        "seed": SEED,
        "input_length": 5,
    }


@pytest.mark.parametrize("sampled", [False, True])
def test_the_likeliest_tokens_shown_are_the_fused_row_s(served: Served, sampled: bool) -> None:
    asked = ask(details=True, top_n_tokens=4, do_sample=sampled)
    details = served.post("/generate", asked).json()["details"]
    assert [event["top_tokens"] for event in served.events("/generate_stream", asked)] == details[
        "top_tokens"
    ]
    for token, shown in zip(details["tokens"], details["top_tokens"], strict=True):
        logprobs = [other["logprob"] for other in shown]
        assert len(shown) == 4
        assert logprobs == sorted(logprobs, reverse=True)
        assert token in shown or token["logprob"] <= logprobs[-1]
        assert sampled or token["id"] == shown[0]["id"]


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_the_likeliest_tokens_are_probabilities_of_what_is_possible(walk: str) -> None:
    """All of them together make a whole, and nothing that the SLM rules out is among them."""
    purifier = stubs(walk=walk)
    for token in (
        purifier.replace(top=10**6).generate("hello", Sampling(max_tokens=5, seed=1, top_k=7))[0].steps
    ):
        found = dict(token.top)
        assert sum(map(math.exp, found.values())) == pytest.approx(1, abs=1e-5)
        assert found[token.id] == pytest.approx(token.fused)
        assert not found.keys() & FORBIDDEN
    assert purifier.generate("hello", Sampling(max_tokens=1))[0].steps[0].top == ()


def test_a_chat_shows_its_likeliest_tokens_too(served: Served) -> None:
    said = [{"role": "user", "content": "a"}]
    body = {"messages": said, "max_tokens": 4, "temperature": 0, "logprobs": True}
    answer = served.post("/v1/chat/completions", {**body, "top_logprobs": 3}).json()
    for each in answer["choices"][0]["logprobs"]["content"]:
        assert len(each["top_logprobs"]) == 3
        assert each["top_logprobs"][0]["logprob"] == each["logprob"]
        assert bytes(each["bytes"]).decode(errors="replace") == each["token"]
    assert served.post("/v1/chat/completions", {**body, "top_logprobs": 20}).status_code == 200
    refused = served.post("/v1/chat/completions", {**body, "top_logprobs": 21})
    assert (refused.status_code, "Given: 21" in refused.json()["error"]["message"]) == (422, True)


@pytest.mark.parametrize("route", ["/generate", "/generate_stream", "/v1/completions"])
def test_an_answer_says_how_often_its_model_s_server_was_asked(route: str) -> None:
    """Its own requests alone, though others are answered at the same time; a stream says so as it ends."""
    lengths = [2, 5, 9]

    def count(length: int) -> int:
        if route == "/generate":
            headers = found.post(route, ask(max_new_tokens=length)).headers
            return int(headers["x-purify-upstream-requests"])
        theirs = {"prompt": "hello", "max_tokens": length, "temperature": 0, "stream": True}
        told = found.events(route, ask(max_new_tokens=length) if "generate" in route else theirs)
        return int(next(event["purify"]["upstream_requests"] for event in told if "purify" in event))

    with fake_tgi(Script(BYTES, b"abc" * 30), top_n=8, prefill=False) as upstream:
        llm = toy_source(upstream.url, BYTES, 8, ahead=0)
        with serving(stubs(llm)) as found, ThreadPoolExecutor(3) as pool:
            assert list(pool.map(count, lengths)) == lengths
            assert f"\npurify_upstream_requests {sum(lengths)}.0\n" in found.client.get("/metrics").text
    assert llm.http.counts.requests == sum(lengths)


def test_greedy_answers_have_no_seed(served: Served) -> None:
    assert served.post("/generate", ask(details=True)).json()["details"]["seed"] is None


def test_without_parameters_tgi_samples_and_with_any_it_does_not(served: Served) -> None:
    sampled = {served.post("/generate", {"inputs": "ab"}).json()["generated_text"] for _ in range(3)}
    greedy = {
        served.post("/generate", {"inputs": "ab", "parameters": {"max_new_tokens": 9}}).text for _ in range(3)
    }
    assert len(sampled) == 3
    assert len(greedy) == 1


@pytest.mark.parametrize("option", [{"temperature": 0.9}, {"top_k": 20}, {"top_p": 0.9}])
def test_any_sampling_option_switches_sampling_on(served: Served, option: dict[str, Any]) -> None:
    assert served.post("/generate", ask(details=True, **option)).json()["details"]["seed"] == SEED


def test_the_root_answers_with_a_list_that_repeats_the_prompt(served: Served) -> None:
    [found] = served.post("/", ask()).json()
    plain = served.post("/generate", ask()).json()["generated_text"]
    assert found["generated_text"] == f"hello{plain}"
    assert served.post("/", ask(return_full_text=False)).json() == [{"generated_text": plain}]
    assert served.events("/", {**ask(), "stream": True})[-1]["generated_text"] == f"hello{plain}"


def test_the_stop_string_stays_in_the_text(served: Served) -> None:
    text = served.post("/generate", ask()).json()["generated_text"]
    stop = text[3:5]
    found = served.post("/generate", ask(stop=[stop], details=True)).json()
    assert found["generated_text"] == text[:5]
    assert found["details"]["finish_reason"] == "stop_sequence"
    *rest, last = served.events("/generate_stream", ask(stop=[stop]))
    assert "".join(event["token"]["text"] for event in [*rest, last]) == last["generated_text"] == text[:5]


def test_an_end_token_is_special_and_no_part_of_the_text(trained: Served) -> None:
    body = {
        "inputs": "The end.",
        "parameters": {
            "do_sample": True,
            "seed": 1,
            "max_new_tokens": 300,
            "details": True,
            "temperature": 1.5,
        },
    }
    found = trained.post("/generate", body).json()
    last = found["details"]["tokens"][-1]
    assert (found["details"]["finish_reason"], last["special"]) == ("eos_token", True)
    assert not found["generated_text"].endswith(last["text"])


def test_no_limit_means_all_the_room_there_is() -> None:
    with serving(stubs(), max_total_tokens=30) as served:
        found = served.post(
            "/generate",
            {
                "inputs": "hello",
                "parameters": {"details": True, "grammar": {"type": "regex", "value": "a{100}"}},
            },
        )
        beyond = served.post(
            "/generate", {"inputs": "hello", "parameters": {"max_new_tokens": 512, "details": True}}
        )
    assert found.json()["details"]["generated_tokens"] == 25
    assert (
        beyond.json()["details"]["generated_tokens"] <= 25
    )  # LangChain's default is 512, whatever the models read


def test_truncation_keeps_the_end_of_the_prompt(served: Served) -> None:
    long = served.post("/generate", {"inputs": "xyzhello", "parameters": {**TEN, "truncate": 5}})
    assert long.json() == served.post("/generate", ask()).json()
    assert long.headers["x-prompt-tokens"] == "5"


def test_a_grammar_is_followed(served: Served) -> None:
    for grammar in (
        {"type": "regex", "value": "[0-9]{4}"},
        {"type": "json", "value": {"type": "integer", "minimum": 1000, "maximum": 9999}},
        {
            "type": "json_schema",
            "value": {"name": "n", "schema": {"type": "integer", "minimum": 1000, "maximum": 9999}},
        },
    ):
        found = served.post("/generate", ask(grammar=grammar)).json()
        assert found["generated_text"].isdigit()


def test_the_headers_tell_what_tgi_s_tell(served: Served) -> None:
    headers = served.post("/generate", ask()).headers
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("5", "10")
    assert headers["x-compute-characters"] == "5"
    times = ("total", "validation", "queue", "inference")
    assert all(int(headers[f"x-{name}-time"]) >= 0 for name in times)
    assert int(headers["x-time-per-token"]) >= 0
    stream = served.post("/generate_stream", ask()).headers
    assert stream["content-type"].startswith("text/event-stream")
    assert stream["x-accel-buffering"] == "no"
    assert stream["x-compute-type"] == headers["x-compute-type"]


def test_tokenize_lists_tokens_and_their_bytes(served: Served, trained: Served) -> None:
    assert served.post("/tokenize", {"inputs": "hi"}).json() == [
        {"id": 104, "text": "h", "start": 0, "stop": 1},
        {"id": 105, "text": "i", "start": 1, "stop": 2},
    ]
    text = "The king's daughter"
    found = trained.post("/tokenize", {"inputs": text}).json()
    assert "".join(text[token["start"] : token["stop"]] for token in found) == text


def test_chat_tokenize_shows_the_rendered_chat(trained: Served) -> None:
    found = trained.post("/chat_tokenize", {"messages": [{"role": "user", "content": "hello"}]}).json()
    assert "hello" in found["templated_text"]
    assert len(found["tokenize_response"]) > 2


def test_what_anyone_may_know(served: Served) -> None:
    info = served.client.get("/info").json()
    assert (info["max_concurrent_requests"], info["max_total_tokens"]) == (4, 4096)
    [model] = served.client.get("/v1/models").json()["data"]
    assert model == {"id": info["model_id"], "object": "model", "created": 0, "owned_by": info["model_id"]}
    for path in ("/health", "/ping", "/"):
        assert (served.client.get(path).status_code, served.client.get(path).content) == (200, b"")


def test_the_metrics_have_tgi_s_names_and_count(served: Served) -> None:
    def count() -> float:
        lines = served.client.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("tgi_request_success "))

    before = count()
    served.post("/generate", ask())
    assert count() == before + 1
    text = served.client.get("/metrics").text
    assert 'tgi_request_generated_tokens_bucket{le="16.0"}' in text
    assert "\ntgi_queue_size 0.0\n" in text


# OpenAI's routes


def test_a_chat_completion_has_openai_s_shape(served: Served) -> None:
    body = {
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 5,
        "seed": SEED,
        "logprobs": True,
    }
    found = served.post("/v1/chat/completions", {**body, "model": "any"}).json()
    [choice] = found["choices"]
    assert (found["object"], found["id"][:9], found["model"]) == ("chat.completion", "chatcmpl-", "any")
    assert choice["finish_reason"] == "length"
    assert choice["message"].keys() == {"role", "content"}
    assert "".join(each["token"] for each in choice["logprobs"]["content"]) == choice["message"]["content"]
    assert found["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


def test_a_chat_stream_adds_up_and_is_done(served: Served) -> None:
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "max_tokens": 5,
        "seed": SEED,
    }
    whole = served.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = served.events("/v1/chat/completions", {**body, **options})
    assert done == "[DONE]"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 5)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == whole
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 5 + ["length"]
    assert ["role" in chunk["choices"][0]["delta"] for chunk in chunks] == [True] + [False] * 5
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_temperature_zero_is_greedy_in_a_chat_and_refused_elsewhere(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "temperature": 0}
    assert (
        len(
            {
                served.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
                for _ in range(3)
            }
        )
        == 1
    )
    refused = served.post("/generate", ask(temperature=0))
    assert refused.json() == {
        "error": "Input validation error: `temperature` must be strictly positive",
        "error_type": "validation",
    }


def test_completions_take_several_prompts(served: Served) -> None:
    body = {"prompt": ["ab", "hello"], "max_tokens": 4, "temperature": 0}
    found = served.post("/v1/completions", body).json()
    texts = [choice["text"] for choice in found["choices"]]
    assert found["usage"] == {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15}
    *chunks, done = served.events("/v1/completions", {**body, "stream": True})
    for index, text in enumerate(texts):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in own) == text
        assert [choice["finish_reason"] for choice in own] == [None] * 4 + ["length"]
    assert done == "[DONE]"


def test_completions_end_with_openai_s_words(trained: Served, served: Served) -> None:
    """The model's own end and a stop string are both "stop", whole and streamed."""
    ended = {"prompt": "The end.", "seed": 1, "max_tokens": 300, "temperature": 1.5}
    text = served.post("/v1/completions", {"prompt": "hello", "max_tokens": 9, "temperature": 0}).json()
    stop = text["choices"][0]["text"][3:5]
    stopped = {"prompt": "hello", "max_tokens": 9, "temperature": 0, "stop": stop}
    for gateway, body in ((trained, ended), (served, stopped)):
        whole = gateway.post("/v1/completions", body).json()["choices"][0]
        *chunks, _ = gateway.events("/v1/completions", {**body, "stream": True})
        assert (whole["finish_reason"], chunks[-1]["choices"][0]["finish_reason"]) == ("stop", "stop")
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["text"]
    assert whole["text"] == text["choices"][0]["text"][:3]


def test_completions_tell_log_probabilities(served: Served) -> None:
    body = {"prompt": "hello", "max_tokens": 4, "temperature": 0, "logprobs": 2}
    [choice] = served.post("/v1/completions", body).json()["choices"]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    assert told["text_offset"] == [0, 1, 2, 3]
    for logprob, tops in zip(told["token_logprobs"], told["top_logprobs"], strict=True):
        assert max(tops.values()) == logprob
    *chunks, _ = served.events("/v1/completions", {**body, "stream": True})
    streamed = [token for chunk in chunks[:-1] for token in chunk["choices"][0]["logprobs"]["tokens"]]
    assert streamed == told["tokens"]


UNCHANGING: list[tuple[str, dict[str, Any]]] = [
    *(("/generate", {"parameters": {"max_new_tokens": 4, **each}}) for each in (
        {"top_p": 1.0}, {"top_k": 0}, {"top_k": -1}, {"typical_p": 1.0}, {"min_p": 0.0},
    )),
    *(("/v1/chat/completions", each) for each in (
        {"top_p": 1}, {"response_format": {"type": "text"}}, {"seed": -1}, {"n": 1}, {"logit_bias": {}},
        {"presence_penalty": 0}, {"top_k": -1}, {"stop": None}, {"stop": []}, {"stream_options": None},
        {"max_tokens": -1}, {"max_completion_tokens": -1}, {"parallel_tool_calls": True}, {"user": "me"},
    )),
    *(("/v1/completions", each) for each in (
        {"top_p": 1}, {"seed": -1}, {"echo": False}, {"best_of": 1}, {"stop": None}, {"logit_bias": None},
    )),
]  # fmt: skip


@pytest.mark.parametrize(("path", "option"), UNCHANGING, ids=str)
def test_a_value_that_changes_nothing_is_accepted(path: str, option: dict[str, Any]) -> None:
    """Clients send their defaults; "change one URL" failed on each of these with 422."""
    greedy = {"messages": [{"role": "user", "content": "hello"}], "prompt": "hello", "inputs": "hello"}
    greedy |= {"max_tokens": 4, "temperature": 0} if path.startswith("/v1") else {}
    with serving(stubs(), max_total_tokens=16) as served:
        assert served.post(path, {**greedy, **option}).status_code == 200


def test_one_stop_string_may_stand_alone(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9, "temperature": 0}
    text = served.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    [choice] = served.post("/v1/chat/completions", {**body, "stop": text[4]}).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text[: text.index(text[4])], "stop")


def test_a_json_object_is_any_object(trained: Served) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 60, "seed": SEED}
    body["response_format"] = {"type": "json_object"}
    text = trained.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    assert text.startswith("{")


def test_a_prompt_may_be_token_ids(served: Served) -> None:
    body = {"max_tokens": 4, "temperature": 0}
    text = served.post("/v1/completions", {**body, "prompt": "hello"}).json()["choices"][0]["text"]
    for prompt in (list(b"hello"), [list(b"hello")]):
        assert served.post("/v1/completions", {**body, "prompt": prompt}).json()["choices"][0]["text"] == text
    refused = served.post("/v1/completions", {**body, "prompt": [999]})
    assert (refused.status_code, "token 999" in refused.json()["error"]["message"]) == (422, True)


@pytest.mark.parametrize("end", ["\u0085", "\u2028", "\u2029"])
def test_what_python_takes_for_a_line_s_end_is_escaped(end: str) -> None:
    """huggingface_hub splits a stream into lines as Python does, and broke on such answers."""
    sent = event({"text": f"a{end}b"})
    assert len(sent.decode().rstrip("\n").splitlines()) == 1
    assert json.loads(sent.removeprefix(b"data: ")) == {"text": f"a{end}b"}


def test_a_model_is_found_by_its_name_and_no_other(served: Served) -> None:
    name = served.client.get("/v1/models").json()["data"][0]["id"]
    assert served.client.get(f"/v1/models/{name}").json()["id"] == name
    other = served.client.get("/v1/models/gpt-9")
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")


def test_openai_s_routes_have_openai_s_errors(served: Served) -> None:
    for body in ({"messages": 3}, {"messages": []}, {"messages": [{"role": "user", "content": "a"}], "n": 5}):
        refused = served.post("/v1/chat/completions", body)
        assert refused.status_code == 422
        assert refused.json()["error"].keys() >= {"message", "type", "param", "code"}
        assert refused.json()["error"]["type"] == "invalid_request_error"


def test_a_request_of_two_lengths_is_refused(served: Served) -> None:
    """A proxy may believe the one and a server the other: what follows would be a request of its own."""
    with socket.create_connection(("127.0.0.1", served.port)) as wire:
        wire.sendall(
            b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        assert wire.recv(99).startswith(b"HTTP/1.1 400")


def test_the_gateway_is_alive_and_not_ready_while_its_upstream_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the first request that fails, too: `/ready` asks the server, `/health` asks nobody."""
    monkeypatch.setattr("purify_adapters.gateway.readiness.FRESH", 0.0)
    with fake_tgi(Script(BYTES, b"abc"), top_n=8, prefill=False) as upstream:
        llm = toy_source(upstream.url, BYTES, 8, ahead=0)
        with serving(stubs(llm)) as served:
            found = served.client.get("/ready")
            told = {"ready": True, "gateway": "serving", "llm": "reachable", "slm": "loaded"}
            assert (found.status_code, found.json()) == (200, told)
    with serving(stubs(llm)) as served:
        found = served.client.get("/ready")
        assert (found.status_code, found.json()) == (503, {**told, "ready": False, "llm": "unavailable"})
        for _ in range(20):
            served.post("/generate", ask())
        assert llm.http.breaker.open
        assert served.client.get("/ready").json()["llm"] == "resting"
        assert [served.client.get(path).status_code for path in ("/health", "/ping")] == [200, 200]


def test_a_gateway_that_stops_is_not_ready() -> None:
    with serving(stubs()) as served:
        assert served.client.get("/ready").json()["ready"]
        served.app.service.executor.stopped = True
        found = served.client.get("/ready")
        assert (found.status_code, found.json()["gateway"]) == (503, "stopping")


def test_a_server_is_asked_whether_it_is_up_once_for_all_who_ask() -> None:
    """Anybody may ask the gateway; it does not pass a flood on. A model inside another is asked as well."""
    with fake_tgi(Script(BYTES, b"abc"), top_n=8, prefill=False) as upstream:
        around = Around(toy_source(upstream.url, BYTES, 8, ahead=0))
        with serving(stubs(around)) as served, ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: served.client.get("/ready").json()["llm"], range(16)))
        assert (found, upstream.probes) == (["reachable"] * 16, 1)


def test_an_answer_says_what_its_certificate_claims() -> None:
    """TGI's requests are greedy as soon as they have a parameter; nothing but the certificate told of it."""
    with serving(stubs(policy="windowed")) as served:
        greedy = served.post("/generate", ask(max_new_tokens=3))
        sampled = served.post("/generate", ask(max_new_tokens=3, do_sample=True, seed=None))
        *_, last = served.events("/generate_stream", ask(max_new_tokens=3))
        metrics = served.client.get("/metrics").text
    assert (greedy.headers["x-purify-guarantee"], last["purify"]["guarantee"]) == ("none", "none")
    assert sampled.headers["x-purify-guarantee"] != "none"
    assert "\npurify_answers_without_guarantee 2.0\n" in metrics


def test_what_no_guarantee_could_hold_for_can_be_refused() -> None:
    with serving(stubs(policy="windowed"), require_guarantee=True) as served:
        refused = served.post("/generate", ask(max_new_tokens=3))
        assert refused.status_code == 422
        assert "greedy decoding" in refused.json()["error"]
        assert served.post("/generate", ask(max_new_tokens=3, do_sample=True, seed=None)).status_code == 200
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        assert served.post("/v1/chat/completions", chat).status_code == 200
        assert served.post("/v1/chat/completions", {**chat, "temperature": 0}).status_code == 422


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"inputs": "hello"}, None),
        ({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}, "choices"),
        ({"prompt": "hello", "max_tokens": 2}, "choices"),
    ],
)
def test_invocations_take_any_of_the_three(served: Served, body: dict[str, Any], key: str | None) -> None:
    found = served.post("/invocations", body).json()
    assert isinstance(found, list) if key is None else key in found


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"days": {"enum": [1, 2]}}, "required": ["days"]},
    },
}


def test_a_required_tool_is_called(trained: Served) -> None:
    body = {
        "messages": [{"role": "user", "content": "Sun?"}],
        "tools": [TOOL],
        "tool_choice": "required",
        "max_tokens": 80,
        "temperature": 0,  # a draw may fill the limit with the white space that JSON allows
    }
    [call] = trained.post("/v1/chat/completions", body).json()["choices"][0]["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"])["days"] in (1, 2)
    deltas = [
        event["choices"][0]["delta"]
        for event in trained.events("/v1/chat/completions", {**body, "stream": True})[:-1]
    ]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert calls[0]["function"]["name"] == "weather"
    assert json.loads("".join(call["function"]["arguments"] for call in calls))["days"] in (1, 2)


def test_calls_and_results_of_before_are_read(trained: Served) -> None:
    """A fuzzer found it: a call without arguments was a server error."""
    for arguments in ('{"days": 1}', {"days": 1}, None):
        call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        said = [
            {"role": "user", "content": "Sun?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
        ]
        told = trained.post("/chat_tokenize", {"messages": said}).json()["templated_text"]
        assert "weather" in told
        assert "rain" in told
    call["function"]["arguments"] = "{"
    refused = trained.post("/v1/chat/completions", {"messages": said})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "validation")


# Refusals


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("watermark", True),
        ("best_of", 9),
        ("adapter_id", "mine"),
        ("decoder_input_details", True),
    ],
)
def test_what_purification_cannot_honour_is_refused_by_name(served: Served, option: str, value: Any) -> None:
    for path in ("/generate", "/generate_stream", "/", "/invocations"):
        refused = served.post(path, ask(**{option: value}))
        assert refused.status_code == 422
        assert refused.json()["error_type"] == "validation"
        assert f"`{option}`" in refused.json()["error"]


@pytest.mark.parametrize(
    ("path", "option", "value"),
    [
        *(
            ("/v1/chat/completions", name, value)
            for name, value in {
                "n": 5,
                "logit_bias": {"5": 1.0},
                "presence_penalty": 1.0,
                "functions": [{}],
            }.items()
        ),
        *(
            ("/v1/completions", name, value)
            for name, value in {"n": 5, "best_of": 9, "echo": True, "suffix": "x"}.items()
        ),
    ],
)
def test_openai_s_options_that_would_be_ignored_are_refused(
    served: Served, path: str, option: str, value: Any
) -> None:
    refused = served.post(
        path, {"messages": [{"role": "user", "content": "a"}], "prompt": "a", option: value}
    )
    assert refused.status_code == 422
    assert option in refused.json()["error"]["message"].lower()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *{"num_beams": 4, "min_tokens": 3, "ignore_eos": True, "guided_json": {"type": "object"}}.items(),
        *{"stop_token_ids": [3], "modalities": ["audio"], "chat_template_kwargs": {"a": 1}}.items(),
        *{"length_penalty": 2.0, "extra_body": {"num_beams": 2}, "temprature": 1.0, "foo": 0}.items(),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/v1/completions"])
def test_an_option_of_another_server_or_of_none_is_refused_and_not_ignored(
    served: Served, path: str, option: str, value: Any
) -> None:
    """They were ignored without a word: beams that were not searched, lengths that were not kept."""
    body = {"messages": [{"role": "user", "content": "a"}], "prompt": "a", "inputs": "a"}
    tables = [{option: value}, *([{"parameters": {option: value}}] if path == "/generate" else [])]
    for table in tables:
        refused = served.post(path, {**body, **table})
        assert refused.status_code == 422
        assert f"`{option}`" in refused.text
        if option == "temprature" and (path != "/generate" or "parameters" in table):
            assert "did you mean `temperature`?" in refused.text


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/v1/completions"])
def test_an_option_that_chooses_no_token_is_accepted(served: Served, path: str) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "prompt": "a", "inputs": "a", "model": "m"}
    harmless = {"user": "u", "metadata": {"a": "b"}, "store": True, "parallel_tool_calls": False, "foo": None}
    off = {"num_beams": 1, "min_tokens": 0, "ignore_eos": False, "modalities": ["text"], "guided_json": {}}
    short = {"parameters": {"max_new_tokens": 2}} if path == "/generate" else {"max_tokens": 2}
    assert served.post(path, {**body, **harmless, **off, **short}).status_code == 200


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"top_p": 1.1}, "`top_p` must be > 0.0 and <= 1.0"),
        ({"typical_p": 0.0}, "`typical_p` must be > 0.0 and <= 1.0"),
        ({"top_k": -2}, "`top_k` must be strictly positive"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": 2.5}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"truncate": 0}, "`truncate` must be strictly positive and less than 4095. Given: 0"),
        ({"grammar": {"type": "regex", "value": "("}}, "grammar is not valid"),
    ],
)
def test_invalid_parameters_are_told_in_tgi_s_words(
    served: Served, parameters: dict[str, Any], words: str
) -> None:
    refused = served.post("/generate", {"inputs": "hello", "parameters": parameters})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "validation")
    assert refused.json()["error"].startswith(f"Input validation error: {words}")


def test_an_empty_prompt_is_refused(served: Served) -> None:
    assert (
        served.post("/generate", {"inputs": ""}).json()["error"]
        == "Input validation error: `inputs` cannot be empty"
    )
    assert served.post("/v1/chat/completions", {"messages": []}).status_code == 422


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"inputs": "\\ud800"}', "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"inputs": 3}', "application/json", 422),
        (b'{"inputs": "a", "parameters": {"max_new_tokens": "3"}}', "application/json", 422),
        (b'{"inputs": "a", "parameters": {"max_new_tokens": -1}}', "application/json", 422),
        (b'{"inputs": "a", "parameters": {"seed": 18446744073709551616}}', "application/json", 422),
        (b'{"inputs": "a", "parameters": {"temperature": NaN}}', "application/json", 422),
        (b'{"inputs": "a", "parameters": {"temperature": 1e400}}', "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"{}", "multipart/form-data; boundary=x", 415),
        (b"{}", "application/json; charset=utf-16", 415),
    ],
)
def test_a_body_that_is_no_request_is_refused(served: Served, content: bytes, kind: str, status: int) -> None:
    refused = served.client.post("/generate", content=content, headers={"content-type": kind})
    assert refused.status_code == status
    assert refused.json().keys() == {"error"}


@pytest.mark.parametrize("temperature", [1e-40, 9e-7])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": "a", "parameters": {"temperature": None}}),
        ("/v1/completions", {"prompt": "a", "temperature": None}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "temperature": None}),
    ],
)
def test_a_temperature_too_low_to_draw_with_is_the_request_s_fault(
    served: Served, path: str, body: dict[str, Any], temperature: float
) -> None:
    """A temperature of 1e-40 was a 424: the models were said to have failed."""
    asked = json.loads(json.dumps(body).replace("null", str(temperature)))
    refused = served.post(path, asked)
    assert (refused.status_code, refused.json()["error_type"]) == (422, "validation")
    assert "temperature must be 0 (greedy), or finite and at least 1e-06" in refused.text


def test_a_body_is_at_most_two_million_bytes(served: Served) -> None:
    headers = {"content-type": "application/json"}
    declared = served.client.post("/generate", content=b" " * 2_000_001, headers=headers)
    chunked = served.client.post("/generate", content=iter([b" " * 1_000_000] * 3), headers=headers)
    assert (declared.status_code, chunked.status_code) == (413, 413)
    packed = served.client.post("/generate", content=b"", headers={**headers, "content-encoding": "gzip"})
    assert packed.status_code == 415


@pytest.mark.parametrize(
    "path",
    [
        "/vertex",
        "/v2/models/m/infer",
        "/generate/",
        "//generate",
        "/GENERATE",
        "/v1",
        "/docs",
        "/certificates",
    ],
)
def test_an_unknown_route_is_not_found(served: Served, path: str) -> None:
    for method in ("GET", "POST"):
        assert served.client.request(method, f"{served.url}{path}", json=ask()).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"])
def test_an_odd_method_is_not_allowed(served: Served, method: str) -> None:
    assert served.client.request(method, "/generate").status_code == 405


def test_the_key_is_asked_for_and_compared_exactly_and_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[Any] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or real(*pair))
    with serving(stubs(), api_key=KEY, certificates=2) as served:
        for path in (
            "/",
            "/generate",
            "/generate_stream",
            "/v1/chat/completions",
            "/v1/completions",
            "/invocations",
            "/tokenize",
        ):
            for headers in (
                {},
                {"authorization": f"Bearer {KEY.upper()}"},
                {"authorization": KEY},
                {"authorization": "Bearer é".encode()},
            ):
                refused = served.post(path, ask(), headers=headers)
                assert (refused.status_code, "the key is missing or wrong" in refused.text) == (401, True)
        assert served.client.get("/certificates/x").status_code == 401
        assert served.post("/generate", ask(), headers=AUTH).status_code == 200
        for path in ("/info", "/v1/models", "/health", "/ready", "/metrics"):
            assert served.client.get(path).status_code == 200
    assert len(compared) == 7 * 4 + 2


# Certificates


def test_an_answer_s_certificate_is_kept_and_verifies(served: Served) -> None:
    answer = served.post("/generate", ask(do_sample=True))
    digest = answer.headers["x-purify-certificate"]
    certificate = read(served.client.get(f"/certificates/{digest}").text)
    verify(certificate, load_plugins())
    text = answer.json()["generated_text"]
    assert certificate.digest == digest
    assert certificate.body["answer"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_stream_s_last_event_names_its_certificate(served: Served) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}], "prompt": "a", "max_tokens": 3, "stream": True}
    for path, body, at in (
        ("/generate_stream", ask(), -1),
        ("/v1/chat/completions", chat, -2),
        ("/v1/completions", chat, -2),
    ):
        named = served.events(path, body)[at]["purify"]
        assert served.client.get(f"/certificates/{named['certificate']}").status_code == 200
        assert named["slm_only"] == 0


def test_only_the_latest_certificates_are_kept(served: Served) -> None:
    def asked(seed: int) -> str:
        return served.post("/generate", ask(seed=seed, do_sample=True)).headers["x-purify-certificate"]

    first = asked(99)
    assert len({asked(seed) for seed in range(8)}) == 8
    assert served.client.get(f"/certificates/{first}").status_code == 404
    assert len(served.app.service.certificates) == 8


# Failing closed


def test_a_failure_before_the_first_token_is_a_typed_error() -> None:
    with serving(stubs(Failing(BYTES, opening=True))) as served:
        for path in ("/generate", "/generate_stream", "/"):
            refused = served.post(path, ask())
            assert (refused.status_code, refused.json()["error_type"]) == (424, "generation")
        body = {"messages": [{"role": "user", "content": "a"}], "prompt": "a", "stream": True}
        for path in ("/v1/chat/completions", "/v1/completions"):
            assert served.post(path, body).status_code == 424
        assert served.idle()


def test_a_failure_in_a_stream_is_its_last_event_and_no_success() -> None:
    with serving(stubs(Failing(BYTES, at=5), walk="lockstep")) as served:
        *tokens, error = served.events("/generate_stream", ask())
        assert len(tokens) == 5
        assert all(event["generated_text"] is None for event in tokens)
        assert error["error_type"] == "generation"
        body = {
            "messages": [{"role": "user", "content": "a"}],
            "prompt": "a",
            "stream": True,
            "max_tokens": 9,
            "temperature": 0,  # a drawn answer may end before it fails
        }
        for path in ("/v1/chat/completions", "/v1/completions"):
            *_, error = served.events(path, body)
            assert (error["error"]["http_status_code"], error["error"]["type"]) == (424, "server_error")
        assert served.post("/generate", ask()).status_code == 424
        assert served.idle()


def test_the_slm_may_go_on_alone_and_it_is_flagged() -> None:
    with serving(stubs(Failing(BYTES, at=5), walk="lockstep", on_llm_failure="slm")) as served:
        assert served.post("/generate", ask()).headers["x-purify-slm-only"] == "5"
        assert served.events("/generate_stream", ask())[-1]["purify"]["slm_only"] == 5


def test_a_plugin_s_refusal_is_passed_on_and_its_crash_is_not() -> None:
    class Refusing:
        @hookimpl
        def purify_request(self, prompts: Any) -> None:
            if "secret" in prompts[0]:
                raise RefusedError("this prompt names a secret")
            if "crash" in prompts[0]:
                raise KeyError(prompts[0])

    plugins = load_plugins()
    plugins.register(Refusing())
    with serving(stubs(plugins=plugins)) as served:
        refused = served.post("/generate", {**ask(), "inputs": "a secret"})
        assert (refused.status_code, refused.json()["error"]) == (422, "this prompt names a secret")
        crashed = served.post("/generate", {**ask(), "inputs": "crash me"})
        assert (crashed.status_code, "crash me" in crashed.text) == (424, False)


# What is written down


def test_the_log_has_one_line_a_request_and_no_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(stubs()) as served:
        text = served.post("/generate", {**ask(), "inputs": "a\nforged line"}).json()["generated_text"]
        served.client.get("/nowhere%0aforged%20line", headers={"user-agent": "forged\tline"})
        served.client.request("FORGED", "/generate")
    lines = [record.getMessage() for record in caplog.records if record.name == "purify.access"]
    assert [json.loads(line)["route"] for line in lines] == ["generate", "unknown", "generate"]
    said = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert "forged" not in said.lower()
    assert text not in said
    assert json.loads(lines[0])["generated_tokens"] == 10


def test_a_span_says_how_it_went_and_not_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("purify_adapters.gateway.access_log._tracer", lambda: provider.get_tracer("test"))
    with serving(stubs()) as served:
        text = served.post("/generate", ask()).json()["generated_text"]
    [span] = exporter.get_finished_spans()
    assert span.name == "POST generate"
    assert span.attributes["purify.generated_tokens"] == 10
    assert "hello" not in span.to_json()
    assert text not in span.to_json()


def test_inferences_are_told_by_the_genai_conventions_and_nothing_of_their_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, logs, reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()
    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    to = Instruments(tracers, MeterProvider([reader]), loggers)
    monkeypatch.setattr("purify_adapters.gateway.telemetry.instruments", lambda: to)
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, "stream": True}
    with serving(stubs(Failing(BYTES, at=8), walk="lockstep"), model_id="mine") as served:
        text = served.post("/generate", ask(max_new_tokens=5, stop=["hush"])).json()["generated_text"]
        served.post("/v1/chat/completions", {**chat, "seed": SEED})
        assert served.post("/generate", ask(max_new_tokens=12)).status_code == 424
    whole, streamed, failed = spans.get_finished_spans()
    assert [each.name for each in (whole, streamed)] == ["text_completion mine", "chat mine"]
    assert whole.attributes["gen_ai.provider.name"] == "purify"
    assert (whole.attributes["gen_ai.usage.output_tokens"], whole.attributes["gen_ai.request.stream"]) == (
        5,
        False,
    )
    assert 0 < streamed.attributes["gen_ai.response.time_to_first_chunk"] < 60
    assert failed.attributes["error.type"] == "generation"
    events = [each.log_record for each in logs.get_finished_logs()]
    assert {each.event_name for each in events} == {"gen_ai.evaluation.result"}
    assert [each.attributes["gen_ai.evaluation.name"] for each in events] == [
        "purify.guarantee",
        "purify.log_ratio",
    ] * 2
    assert events[0].attributes["gen_ai.evaluation.score.label"] == "none"
    told_of = events[0].attributes
    assert told_of["purify.certificate.digest"] == told_of["gen_ai.response.id"]
    assert told_of["purify.answer.sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (told_of["purify.policy"], told_of["purify.adversary"]) == ("geometric", "none")
    assert told_of["gen_ai.evaluation.explanation"].endswith(MEANING["none"])
    assert told_of["purify.certificate.signed"] is False
    assert events[0].attributes["gen_ai.response.id"] == whole.attributes["gen_ai.response.id"]
    assert [each.span_id for each in events[::2]] == [each.context.span_id for each in (whole, streamed)]
    told = reader.get_metrics_data().to_json()
    for name in (DURATION, FIRST_CHUNK, INPUT_TOKENS, OUTPUT_TOKENS):
        assert f'"{name}"' in told
    said = "".join([told, *(each.to_json() for each in spans.get_finished_spans()), *map(str, events)])
    assert not any(word in said for word in ("hello", "hush", json.dumps(text)))


def test_the_openapi_document_names_every_route(served: Served) -> None:
    paths = served.client.get("/api-doc/openapi.json").json()["paths"]
    assert {
        "/",
        "/generate",
        "/generate_stream",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/invocations",
        "/tokenize",
        "/chat_tokenize",
        "/info",
        "/v1/models",
        "/health",
        "/ping",
        "/ready",
        "/metrics",
    } == set(paths)


def test_a_browser_elsewhere_may_ask(served: Served) -> None:
    asked = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-lang",  # OpenAI's client
    }
    allowed = served.client.options("/generate", headers=asked)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "*")
