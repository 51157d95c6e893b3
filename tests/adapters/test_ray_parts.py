"""The parts of the Ray Serve application, without Ray: arguments, switch of gateways, guard of answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from purify_adapters.gateway import Gateway, Settings
from purify_adapters.gateway.sse import event
from purify_adapters.ray_serve import ServeArguments, proxy_middlewares
from purify_adapters.ray_serve.answer_guard import DONE, AnswerGuard
from purify_adapters.ray_serve.gateway_switch import GatewaySwitch
from tests.adapters.gateways import events, stubs

TOKEN = {"token": {"text": "a"}, "generated_text": None}
LAST = {"token": {"text": "b"}, "generated_text": "ab", "purify": {"certificate": "c"}}
DELTA = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": '"purify":'}}]}
STREAM = [(b"content-type", b"text/event-stream")]
PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]


def start(status: int = 200, headers: Any = STREAM) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def through(messages: Sequence[dict[str, Any]], path: str = "/generate_stream") -> list[dict[str, Any]]:
    """What a client's connection gets of a replica that sends these messages and no more."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(AnswerGuard(app)({"type": "http", "path": path}, receive, send))
    return sent


def content(sent: Sequence[dict[str, Any]]) -> bytes:
    assert not sent[-1].get("more_body", False)
    return b"".join(message.get("body", b"") for message in sent)


# The guard


@pytest.mark.parametrize(
    "messages",
    [
        [start(), body(event(TOKEN)), body(event(LAST)), body(b"", False)],
        [start(200, PLAIN), body(b"# TYPE tgi_request_count counter", False)],
        [start(422, [(b"content-type", b"application/json")]), body(b"{}", False)],
        [start(503, [(b"content-type", b"application/json")]), body(b'{"error": "x"}', False)],
    ],
)
def test_an_answer_that_ends_passes_as_it_is(messages: list[dict[str, Any]]) -> None:
    assert through(messages) == messages


@pytest.mark.parametrize("path", ["/generate_stream", "/v1/chat/completions", "/v1/responses"])
def test_a_replica_that_dies_before_its_answer_is_a_typed_refusal(path: str) -> None:
    sent = through([], path)
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"1") in sent[0]["headers"]
    told = json.loads(content(sent))["error"]
    assert "the replica has died" in (told if path == "/generate_stream" else told["message"])


@pytest.mark.parametrize("cut", range(3))
def test_a_stream_that_is_cut_ends_with_an_error_event_in_its_dialect(cut: int) -> None:
    tgi = content(through([start(), *[body(event(TOKEN))] * cut]))
    assert events(tgi.decode())[-1]["error_type"] == "generation"
    for path in ("/v1/chat/completions", "/invocations")[: cut + 1]:
        chat = content(through([start(), *[body(event(DELTA))] * cut], path))
        assert events(chat.decode())[-1]["error"]["http_status_code"] == 503
    response = {"type": "response.created", "sequence_number": 0}
    told = content(through([start(), *[body(event(response))] * cut], "/v1/responses")).decode()
    last = events(told)[-1]
    assert last["type"] == "error"
    assert last["sequence_number"] == cut
    assert told.rsplit("event: ", 1)[1].startswith("error\n")


def test_a_stream_whose_replica_dies_after_the_last_event_is_whole() -> None:
    """And one of several answers is so only with [DONE], whatever text a token has."""
    assert content(through([start(), body(event(TOKEN)), body(event(LAST))])).endswith(event(LAST))
    chat = [start(), body(event({**DELTA, "purify": {}}))]
    assert b"error" in content(through(chat, "/v1/completions"))
    assert b"error" in content(
        through([*chat, body(event({**DELTA, "text": DONE.decode()}))], "/invocations")
    )
    assert content(through([*chat, body(DONE)], "/v1/completions")).endswith(DONE)
    quoted = body(event({"token": {"text": '"purify":'}}))
    assert b"error_type" in content(through([start(), quoted]))


@pytest.mark.parametrize("status", [408, 429, 503])
def test_serve_s_own_refusals_are_typed(status: int) -> None:
    sent = through([start(status, PLAIN), body(b"no", False)], "/v1/completions")
    assert sent[0]["status"] == status
    assert json.loads(content(sent))["error"]["code"] == "overloaded"


def test_serve_s_own_routes_and_other_protocols_pass() -> None:
    assert through([start(503, PLAIN), body(b"no", False)], "/-/healthz")[1]["body"] == b"no"
    assert [each.cls for each in proxy_middlewares()] == [AnswerGuard]


# The switch


async def asked(switch: GatewaySwitch, path: str, send: Any, method: str = "GET", said: bytes = b"") -> None:
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    came = asyncio.Queue[dict[str, Any]]()
    came.put_nowait({"type": "http.request", "body": said})
    await switch(scope, came.get, send)


def named(name: str) -> Gateway:
    return Gateway(stubs(), Settings(model_id=name))


def test_a_request_ends_by_the_gateway_it_began_with_and_the_next_gets_the_newest() -> None:
    async def act() -> None:
        switch = GatewaySwitch()
        sent: list[dict[str, Any]] = []

        async def keep(message: Any) -> None:
            sent.append(message)

        await asked(switch, "/info", keep)
        assert sent[0]["status"] == 503
        old, new = named("old"), named("new")
        switch.change(old)
        began, goes_on = asyncio.Event(), asyncio.Event()

        async def slowly(message: Any) -> None:
            sent.append(message)
            began.set()
            await goes_on.wait()

        chat = json.dumps({"messages": [{"role": "user", "content": "a"}], "max_tokens": 5, "stream": True})
        stream = asyncio.create_task(asked(switch, "/v1/chat/completions", slowly, "POST", chat.encode()))
        await began.wait()
        before = switch.current
        switch.change(new)
        sent.clear()
        await asked(switch, "/info", keep)
        assert json.loads(sent[1]["body"])["model_id"] == "new"
        assert before is not None
        assert not before.ended
        sent.clear()
        goes_on.set()
        await stream
        told = events(b"".join(each.get("body", b"") for each in sent).decode())
        assert told[-1] == "[DONE]"
        assert told[0]["model"] == "old"
        await asyncio.wait_for(before.end(), 5)
        assert before.ended

    asyncio.run(act())


def test_the_server_s_end_ends_the_gateway_s_lifespan() -> None:
    async def act() -> None:
        switch = GatewaySwitch()
        switch.change(named("a"))
        came = asyncio.Queue[dict[str, Any]]()
        for each in ("startup", "shutdown"):
            came.put_nowait({"type": f"lifespan.{each}"})
        sent: list[Any] = []

        async def keep(message: Any) -> None:
            sent.append(message["type"])

        await switch({"type": "lifespan"}, came.get, keep)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert switch.current is not None
        assert switch.current.ended

    asyncio.run(act())


# The arguments


def test_arguments_come_as_text_and_become_serve_s_options() -> None:
    given = ServeArguments.model_validate(
        {"replicas": "2", "gpus": "0.25", "max_concurrent": "8", "queue": "9"}
    )
    assert given.options["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.25}
    assert given.options["num_replicas"] == 2
    assert given.options["max_ongoing_requests"] == 8
    assert given.options["max_queued_requests"] == 9
    assert given.options["health_check_period_s"] < 10  # Serve's own
    assert given.settings["workers"] == 2
    assert Settings(**given.settings).max_concurrent == 8


def test_with_max_replicas_their_number_follows_the_queue() -> None:
    given = ServeArguments(replicas=1, max_replicas=4, target_ongoing=3)
    assert given.options["num_replicas"] is None
    assert given.options["autoscaling_config"] == {
        "min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 3.0
    }  # fmt: skip
    assert given.settings["workers"] == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"replica": "2"}, "replica"),
        ({"replicas": "0"}, "greater than or equal to 1"),
        ({"replicas": "many"}, "valid integer"),
        ({"replicas": "3", "max_replicas": "2"}, "the most is less"),
        ({"gpus": "-1"}, "greater than or equal to 0"),
        ({"drain": "0"}, "greater than 0"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ServeArguments.model_validate(wrong)


@pytest.mark.parametrize("name", ServeArguments.model_fields)
def test_an_argument_is_documented(name: str) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "deploy.md").read_text("utf-8")
    assert f"`{name}`" in page
