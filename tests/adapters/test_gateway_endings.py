"""How answers end that do not run to their end: many clients leave, or the gateway is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from typing import Any

import httpx
import pytest

from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_plugins.testbed import LLM
from tests.adapters import soak
from tests.adapters.gateways import FORBIDDEN, Served, serving
from tests.fake_tgi import serving as answering
from tests.remote.fake_servers import FakeLlama
from tests.toys import BYTES, Forbidding, Slow, both, pair

MANY = 10_000
CHAT = "/v1/chat/completions"
PATHS = ("/generate_stream", CHAT, "/v1/completions")


def asked(path: str, tokens: int = MANY) -> dict[str, Any]:
    """A stream."""
    if path == "/generate_stream":
        return {"inputs": "Once", "parameters": {"max_new_tokens": tokens}}
    said = {"messages": [{"role": "user", "content": "Once"}]} if path == CHAT else {"prompt": "Once"}
    return {**said, "max_tokens": tokens, "stream": True, "model": "m"}


def client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False)


async def leave(url: str, streams: int) -> None:
    """Leave so many streams at the same time, each after its first event."""
    here = asyncio.Barrier(streams)
    async with client(url) as asking:

        async def one() -> None:
            async with asking.stream("POST", "/generate_stream", json=asked("/generate_stream")) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        break
                await here.wait()

        await asyncio.gather(*(one() for _ in range(streams)))


def left(seconds: float, free: Callable[[Served, LlamaCppSource], None]) -> None:
    """Sixteen leave a gateway over a server with four slots, that takes so many seconds for each row."""
    fake = FakeLlama(both()[0])
    with answering(fake.app()) as url:
        source = LlamaCppSource.load(url, tokenizer=LLM, top_n=8)
        purifier = pair(source, both()[1], "geometric")
        with serving(purifier, max_concurrent=16, max_total_tokens=2 * MANY) as served:
            fake.seconds = seconds
            asyncio.run(leave(served.url, 16))
            free(served, source)
            fake.seconds = 0.0
            short = {"inputs": "Once", "parameters": {"max_new_tokens": 2}}
            assert served.post("/generate", short).status_code == 200


def slots(source: LlamaCppSource) -> int:
    return source.http._permits._value


def test_sixteen_who_leave_free_their_places_and_the_server_s_slots() -> None:
    def free(served: Served, source: LlamaCppSource) -> None:
        assert served.idle()
        assert slots(source) == 4

    left(0.05, free)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("seconds", [0.05, 3.0])
def test_sixteen_who_leave_free_all_of_it_within_two_seconds(seconds: float) -> None:
    """Also where a row takes longer than that: sixteen waited for four slots, and nobody for them."""

    def free(served: Served, source: LlamaCppSource) -> None:
        assert served.idle(2.0)
        assert slots(source) == 4

    left(seconds, free)


async def ends(url: str, streams: int, tokens: int, stop: Callable[[], None]) -> Counter[str]:
    """How each stream ended, in the routes' dialects by turns, where `stop` is called once all have begun."""
    begun = asyncio.Barrier(streams + 1)
    async with client(url) as asking:

        async def one(path: str) -> str:
            async with asking.stream("POST", path, json=asked(path, tokens)) as answer:
                lines = (line async for line in answer.aiter_lines() if line.startswith("data:"))
                told = [await anext(lines)]
                await begun.wait()
                return end(path, told + [line async for line in lines])

        paths = [path for path, _ in zip(cycle(PATHS), range(streams), strict=False)]
        found = [asyncio.create_task(one(path)) for path in paths]
        await begun.wait()
        stop()
        return Counter(await asyncio.gather(*found))


def end(path: str, told: list[str]) -> str:
    """ "whole", or what the error says with which a stream ended; it may not just end."""
    if told[-1] == "data: [DONE]":
        assert any(choice["finish_reason"] for line in told[:-1] for choice in data(line)["choices"])
        return "whole"
    last = data(told[-1])
    if path == "/generate_stream":
        return str(last["error"]) if "error" in last else "whole" if last["generated_text"] else "cut"
    assert not any(choice["finish_reason"] for line in told[:-1] for choice in data(line)["choices"])
    return str(last["error"]["message"])


def data(line: str) -> Any:
    return json.loads(line.removeprefix("data:"))


STOPPED = "Request failed during generation: the gateway is shutting down"


def test_told_to_stop_under_fifty_streams_it_tells_each_why_it_was_cut_off() -> None:
    """One that just ended would have looked like a whole answer; "the deadline has passed" was not so."""
    slow = pair(Slow(BYTES, 1), Forbidding(BYTES, 2, forbidden=FORBIDDEN | {256}), walk="lockstep")
    with serving(slow, drain=0.2, max_total_tokens=2 * MANY) as served:

        def stop() -> None:
            served.server.should_exit = True

        assert asyncio.run(ends(served.url, 50, MANY, stop)) == {STOPPED: 50}


@pytest.mark.slow
@pytest.mark.alone
def test_sigterm_under_fifty_streams_tells_each_the_truth() -> None:
    """Of `purify serve` itself: what ends in time ends as ever, all else with an error in its dialect."""
    with soak.gateway("--drain", "1", "--policy", "geometric") as (url, process):
        found = asyncio.run(ends(url, 50, 400, lambda: os.kill(process, signal.SIGTERM)))
    assert found.total() == 50
    assert set(found) <= {"whole", STOPPED}
    assert found[STOPPED]


@pytest.mark.slow
@pytest.mark.alone
def test_memory_keeps_its_level_under_mixed_load() -> None:
    """Ten minutes of it are `python -m tests.adapters.soak`; docs/performance.md has the figure."""
    found = soak.soaked(50.0)
    assert found.resident[-1] < 1.1 * found.resident[soak.STEPS // 2], found
    assert not [end for end in found.ends if end.startswith("5")], found.ends
