"""No way around it: an LLM that is sure of a canary, and no canary at any client, in any log or proof.

Bypass matrix B1 to B3 and B8 of the list of tests for reliability.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from purify_plugins import SourceError
from purify_plugins.certificates import read
from tests.adapters.gateways import CANARY, FORBIDDEN, Poisoned, Served, poisoned, serving
from tests.toys import BYTES, Forbidding, pair

ROUTES = ("/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions", "/invocations")
OTHERS = (
    "/vertex",
    "/tokenize",
    "/chat_tokenize",
    "/v2/models/m/infer",
    "/predict",
    "/info",
    "/metrics",
    "/docs",
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"do_sample": True},
    {"temperature": 0.01},
    {"temperature": 100.0},
    {"temperature": 0},
    {"top_k": 1},
    {"top_p": 0.01},
    {"typical_p": 0.5},
    {"repetition_penalty": 0.1},
    {"frequency_penalty": -2.0},
    {"watermark": True},
    {"seed": 7},
    {"best_of": 2},
    {"n": 2},
    {"stop": [CANARY]},
    {"truncate": 2},
    {"grammar": {"type": "regex", "value": f"{CANARY}+|[a-z]+"}},
    {"response_format": {"type": "regex", "value": f"{CANARY}+|[a-z]+"}},
    {"logprobs": True, "top_logprobs": 5},
    {"logprobs": True},
    {"top_n_tokens": 5},
    {"details": True},
    {"adapter_id": "x"},
    {"return_full_text": True},
    {"decoder_input_details": True},
    {"logit_bias": [100.0]},
    {"stream_options": {"include_usage": True}},
)


def spoken(served: Served, method: str, path: str, body: Any) -> bytes:
    """Everything that came over the wire."""
    answer = served.client.request(method, path, json=body)
    headers = b"\n".join(name + b": " + value for name, value in answer.headers.raw)
    return headers + b"\n\n" + answer.content


def request(path: str, option: dict[str, Any], stream: bool) -> dict[str, Any]:
    """A body for a route, with an option where that route reads it."""
    if path.startswith("/v1/"):
        asked = {"messages": [{"role": "user", "content": "tell me"}], "prompt": "tell me", "max_tokens": 6}
        return {**asked, "stream": stream, **option}
    return {"inputs": "tell me", "parameters": {"max_new_tokens": 6, **option}, "stream": stream}


def unasked(certificate: str) -> str:
    """What a certificate says apart from what the client itself has asked for."""
    body = json.loads(certificate)
    for decoded in [each["certificate"] for each in body.get("drafts", ())] or [body]:
        del decoded["method"]["sampling"]
    return json.dumps(body)


@pytest.fixture(scope="module", params=["geometric", "balanced"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(poisoned(policy=request.param), certificates=100_000) as found:
        yield found


def test_the_canary_would_be_seen_without_the_slm() -> None:
    """The oracle works: the same LLM beside an SLM that allows everything leaks at once."""
    with serving(pair(Poisoned(BYTES), Forbidding(BYTES, 2, forbidden=frozenset({0})))) as served:
        assert CANARY in served.post("/generate", request("/generate", {}, False)).text


def test_no_route_and_no_option_lets_a_canary_through(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answered = 0
    for path, option, stream in product(ROUTES, OPTIONS, (False, True)):
        said = spoken(served, "POST", path, request(path, option, stream))
        assert CANARY.encode() not in said, (path, option, stream)
        answered += b"x-compute-type" in said
    assert answered > 150  # another dialect's options are refused by name
    assert len(served.app.service.certificates) > 20
    assert not any(CANARY in unasked(text) for text in served.app.service.certificates.values())
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    assert ours
    assert not any(CANARY in record.getMessage() for record in ours)
    metrics = served.client.get("/metrics").text
    assert CANARY not in metrics


def test_nothing_is_passed_on_whatever_the_path_or_method(served: Served) -> None:
    spellings = (
        "//generate",
        "/generate/",
        "/GENERATE",
        "/%67enerate",
        "/./generate",
        "/generate%00",
        "/generate;x",
        "/generate?stream=true",
    )
    for path, method in product(
        (*ROUTES, *OTHERS, *spellings), ("GET", "POST", "HEAD", "OPTIONS", "PUT", "ODD")
    ):
        said = spoken(served, method, f"{served.url}{path}", request(path, {}, False))
        assert CANARY.encode() not in said, (path, method)


def test_every_token_that_is_sent_is_in_the_certificate(served: Served) -> None:
    """B8: tokens at the client, tokens with a record, tokens in the certificate: the same ones."""
    *tokens, last = served.events("/generate_stream", request("/generate_stream", {"do_sample": True}, True))
    sent = [event["token"]["id"] for event in [*tokens, last]]
    proof = read(served.client.get(f"/certificates/{last['purify']['certificate']}").text)
    assert [row[0] for row in proof.body["steps"]] == sent
    assert [row[2] for row in proof.body["steps"]] == [
        f"{event['token']['logprob']:.9f}" for event in [*tokens, last]
    ]


class Telling(Poisoned):
    """An LLM whose failures say what it would have said."""

    def open(self, prompts: Any, scored: int = 0) -> Any:
        raise SourceError(f"the server said {CANARY}")


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_does_not_quote_the_llm(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    slm = Forbidding(BYTES, 2, forbidden=FORBIDDEN)
    with serving(pair(Telling(BYTES), slm)) as served:
        for path in ROUTES:
            answer = served.post(path, request(path, {}, stream))
            assert (answer.status_code, CANARY in answer.text) == (424, False)
            assert json.loads(answer.text)["error_type"] == "generation"
    assert CANARY not in caplog.text
