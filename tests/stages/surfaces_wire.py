"""Every way to ask over the wire: the gateway's routes, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.adapters.gateways import events
from tests.stages.surfaces import MESSAGES, House, Seen, Surface
from tests.stages.theatre import LENGTH, PROMPT, SEED

TGI = {"inputs": PROMPT, "parameters": {"do_sample": True, "max_new_tokens": LENGTH, "seed": SEED}}
DETAILED = {"inputs": PROMPT, "parameters": {**TGI["parameters"], "details": True}}  # type: ignore[dict-item]
BARE = {"inputs": PROMPT, "parameters": {**TGI["parameters"], "return_full_text": False}}  # type: ignore[dict-item]
OPENAI = {"model": "m", "max_tokens": LENGTH, "seed": SEED}
RESPONSES = {"model": "m", "max_output_tokens": LENGTH, "seed": SEED, "input": PROMPT}
SUCCEEDED = ("[DONE]", '"finish_reason":"stop"', '"finish_reason":"length"', "response.completed")
"""What a stream that failed must not have."""

Text = Callable[[Any], str]
ROUTES: dict[str, tuple[str, Any, Text, Text]] = {
    "/generate": ("/generate", TGI, lambda b: b["generated_text"], lambda e: e["token"]["text"]),
    "/generate details": ("/generate", DETAILED, lambda b: b["generated_text"], lambda e: e["token"]["text"]),
    "/": ("/", BARE, lambda b: b[0]["generated_text"], lambda e: e["token"]["text"]),
    "/v1/completions": (
        "/v1/completions",
        {**OPENAI, "prompt": PROMPT},
        lambda b: b["choices"][0]["text"],
        lambda e: "".join(each["text"] for each in e["choices"]),
    ),
    "/v1/chat/completions": (
        "/v1/chat/completions",
        {**OPENAI, "messages": MESSAGES},
        lambda b: b["choices"][0]["message"]["content"],
        lambda e: "".join(each["delta"].get("content") or "" for each in e["choices"]),
    ),
    "/v1/responses": (
        "/v1/responses",
        RESPONSES,
        lambda b: "".join(part["text"] for item in b["output"] for part in item["content"]),
        lambda e: e["delta"] if e["type"] == "response.output_text.delta" else "",
    ),
}


def _error(body: Any) -> str | None:
    """The class of error that a body names."""
    if not isinstance(body, dict) or not body.get("error"):
        return None
    found = body["error"]
    kind = body.get("error_type") or (found.get("code") if isinstance(found, dict) else None)
    return "RefusedError" if kind == "refused" else str(body)


def _kept(house: House) -> str:
    """What the gateway keeps and counts."""
    kept = house.served.app.service.certificates
    return "\n".join((*kept.values(), house.served.client.get("/metrics").text))


def whole(route: str) -> Surface:
    path, body, text_of, _ = ROUTES[route]

    def surface(house: House) -> Seen:
        answer = house.served.post(path, body)
        found = answer.json()
        error = None if answer.status_code == 200 else _error(found)
        written = f"{answer.headers}{answer.text}{_kept(house)}"
        return Seen("" if error else text_of(found), error, written)

    return surface


def streamed(route: str) -> Surface:
    path, body, _, delta = ROUTES[route]
    if route.startswith("/generate"):
        path = "/generate_stream"
    else:
        body = {**body, "stream": True}

    def surface(house: House) -> Seen:
        answer = house.served.post(path, body)
        if answer.status_code != 200:
            return Seen("", _error(answer.json()), answer.text)
        found = events(answer.text)
        *before, last = [each for each in found if isinstance(each, dict)]
        error = _error(last) or (_error(last.get("response")) if "response" in last else None)
        parts = before if error else [*before, last]
        if error:
            assert not [each for each in SUCCEEDED if each in answer.text]
            assert not any(each.get("generated_text") for each in before)
        return Seen("".join(map(delta, parts)), error, answer.text + _kept(house))

    return surface


WIRE_WHOLE: dict[str, Surface] = {route: whole(route) for route in ROUTES}
WIRE_STREAMED: dict[str, Surface] = {f"{route} streamed": streamed(route) for route in ROUTES}
TOKENS = {"transformers streamed", "/generate streamed", "/generate details streamed", "/ streamed"}
"""Surfaces that show whole tokens."""
