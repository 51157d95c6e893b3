"""The gateway's overhead per answer: `python -m purify_adapters.gateway.measure`.

The models are stubs that take no time, so that what is left is the gateway: HTTP, JSON, checks, threads.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from purify_adapters.gateway import gateway
from purify_adapters.gateway.server import GatewayServer, config
from purify_plugins import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.testing import ScriptedSource, byte_vocabulary

ANSWERS = 400
TOKENS = 4


def stub() -> Purifier:
    """A pair of stub models that both put all mass on one text."""
    vocabulary = byte_vocabulary()
    script = ScriptedSource(vocabulary, b"once upon a time " * 400)
    return Purifier.load(script, script, "geometric")


@contextmanager
def running(purifier: Purifier, **settings: Any) -> Iterator[str]:
    """The URL of a gateway that serves on a thread until the block ends."""
    app = gateway(purifier, **settings)
    server = GatewayServer(config(app, app.service.settings, port=0), app.service)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def overhead(purifier: Purifier, answers: int = ANSWERS) -> list[float]:
    """Seconds that each answer takes longer through the gateway than without it, measured alternately."""
    body = {"inputs": "hello", "parameters": {"max_new_tokens": TOKENS}}
    sampling = Sampling(max_tokens=TOKENS, temperature=0)
    found = []
    with running(purifier) as url, httpx.Client(base_url=url, trust_env=False) as client:
        for _ in range(answers):
            plain = _timed(lambda: purifier.generate("hello", sampling))
            found.append(_timed(lambda: client.post("/generate", json=body).raise_for_status()) - plain)
    return found


def _timed(function: Any) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


async def streams(url: str, number: int, tokens: int) -> float:
    """Seconds until `number` streams, all open at once, have ended."""
    body = {"inputs": "hello", "parameters": {"max_new_tokens": tokens}}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300, trust_env=False) as client:

        async def read() -> None:
            answer = (await client.post("/generate_stream", json=body)).raise_for_status()
            assert answer.text.count("data:") == tokens

        start = time.perf_counter()
        await asyncio.gather(*(read() for _ in range(number)))
        return time.perf_counter() - start


def percentile(numbers: Sequence[float], share: int) -> float:
    return statistics.quantiles(numbers, n=100)[share - 1]


def main() -> None:
    """Print the figures."""
    purifier = stub()
    added = overhead(purifier, 20) and overhead(purifier)
    print(f"added to an answer of {TOKENS} tokens, of {ANSWERS}, one after another:", end=" ")
    print(f"p50 {1000 * statistics.median(added):.1f} ms, p99 {1000 * percentile(added, 99):.1f} ms")
    with running(purifier, max_concurrent=256) as url:
        for number in (1, 16, 256):
            seconds = asyncio.run(streams(url, number, 32))
            print(f"{number:4d} streams of 32 tokens at once: {number * 32 / seconds:7.0f} tokens a second")


if __name__ == "__main__":
    main()
