"""Workers of `purify serve` killed under load: nothing unpurified, nobody hangs, every failure is typed.

The 5,000 requests of docs/deploy.md are `python -m tests.adapters.chaos`; these are fewer.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.adapters import chaos
from tests.adapters.chaos import Chaos, certified, kind, requested, until, workers
from tests.adapters.gateways import CANARY


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
def test_workers_killed_under_load_leave_typed_failures_and_are_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, 3) as served:
        found = requested(served, 400, readers=12, every=5, spared=1)
        assert found.killed >= 1, found
        assert (found.untyped, found.canaries, found.ends["hung"]) == (0, 0, 0), (found, found.odd)
        assert found.ends["whole"] > 100, found
        until(lambda: len(served.replicas()) == 3)
        after = requested(served, 40, readers=4, every=0)
        assert after.ends["whole"] + after.ends["left"] == 40, after
    assert CANARY not in served.log.read_text()


# The counting itself


def answer(status: int, content: str, streamed: bool = False, **headers: str) -> httpx.Response:
    media = "text/event-stream" if streamed else "application/json"
    return httpx.Response(status, headers={"content-type": media, **headers}, content=content.encode())


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("/generate", answer(200, '{"a": 1}'), "whole, no certificate"),
        ("/generate", answer(200, '{"a": 1}', **{"x-purify-certificate": "c"}), "whole"),
        ("/generate", answer(503, '{"error": "x"}'), "refused"),
        ("/generate", answer(500, "Internal Server Error"), "status 500 untyped"),
        ("/generate", answer(500, "{}"), "status 500 untyped"),
        ("/generate_stream", answer(200, 'data: {"token": 1}\n\n', True), "cut short"),
        ("/generate_stream", answer(200, 'data: {"purify": {}}\n\n', True), "whole"),
        ("/generate_stream", answer(200, 'data: {"error": "x"}\n\n', True), "error event"),
        ("/v1/chat/completions", answer(200, 'data: {"purify": {}}\n\n', True), "cut short"),
        ("/v1/chat/completions", answer(200, 'data: {"purify": {}}\n\ndata: [DONE]\n\n', True), "whole"),
        ("/v1/responses", answer(200, 'data: {"type": "error", "error": {"a": 1}}\n\n', True), "error event"),
        ("/v1/responses", answer(200, "", True), "cut short"),
    ],
)
def test_an_end_is_counted_for_what_it_is(path: str, given: httpx.Response, expected: str) -> None:
    assert kind(path, given, given.content) == expected


def test_what_is_of_no_known_kind_counts_against_us() -> None:
    found = Chaos()
    found.ends.update(["whole", "left", "refused", "error event", "broken connection", "cut short", "hung"])
    assert found.untyped == 2
    assert "1 hung, 2 untyped" in str(found)


def test_a_stream_needs_its_certificate_and_openai_s_its_end() -> None:
    proof: dict[str, Any] = {"purify": {"certificate": "c"}}
    assert certified("/generate_stream", [{}, proof])
    assert not certified("/generate_stream", [{}])
    assert not certified("/v1/chat/completions", [proof, {}])


def test_a_server_that_says_nothing_hangs_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return httpx.Response(200)

    async def act() -> str:
        transport = httpx.MockTransport(silent)
        async with httpx.AsyncClient(base_url="http://a", transport=transport, timeout=None) as client:
            return await chaos.once(client, random.Random(0), 4, Chaos())

    monkeypatch.setattr(chaos, "HANGS", 0.1)
    assert asyncio.run(act()) == "hung"
