"""Tokens a second over a real llama.cpp server: `python -m tests.remote.throughput`.

Beside each other, in turns: the server's own answers, its rows with a client that throws them away (no
lockstep over HTTP can be faster), a Purifier in this process, and the gateway. All of it, the server
too, shares this machine's cores. Beside the speed stand the milliseconds of processor time that a token
took here and in the server, which change little with others' load, and how many tokens two cores with
nothing else to do have time for in a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx

from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_hooks.evaluation import testbed
from purify_plugins import Purifier, Sampling
from purify_plugins.testbed import LLM, SLM
from tests.adapters.gateways import serving
from tests.remote.real_servers import llama_command, started, write_gguf

TOKENS = 32
STREAMS = (1, 8, 32)


def prompts(number: int) -> list[str]:
    """So many prompts, no two alike."""
    clean = testbed.attacks().clean
    return [f"{clean[at % len(clean)]} {at}" for at in range(number)]


@contextmanager
def llama() -> Iterator[str]:
    """The URL of a llama.cpp server with the test bed's LLM and four slots."""
    with TemporaryDirectory() as folder:
        file = write_gguf(LLM, Path(folder) / "llm.gguf")
        with started(llama_command(file), Path(folder) / "log", "/health") as url:
            yield url


async def _all(url: str, number: int, ask: Callable[[httpx.AsyncClient, int], Awaitable[int]]) -> int:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300, trust_env=False) as client:
        return sum(await asyncio.gather(*(ask(client, at) for at in range(number))))


def direct(url: str, number: int) -> int:
    """The server's own answers, whole and unpurified; tokens."""
    asked = {"n_predict": TOKENS, "ignore_eos": True, "temperature": 1.0}

    async def ask(client: httpx.AsyncClient, at: int) -> int:
        answer = await client.post("/completion", json={**asked, "prompt": prompts(number)[at]})
        return int(answer.raise_for_status().json()["tokens_predicted"])

    return asyncio.run(_all(url, number, ask))


def rows(source: LlamaCppSource, url: str, number: int) -> int:
    """As many rows, asked for as our source asks, and thrown away unread; rows."""
    likely = source.reader.tokenised(
        "the old king went to the sea and said to the fisherman that all is well"
    )

    async def ask(client: httpx.AsyncClient, at: int) -> int:
        ids = list(source.reader.tokenised(prompts(number)[at]))
        for step in range(TOKENS):
            body = {**source.body, "prompt": ids}
            (await client.post("/completion", json=body)).raise_for_status()
            ids.append(likely[(at + step) % len(likely)])
        return TOKENS

    return asyncio.run(_all(url, number, ask))


def inside(purifier: Purifier, number: int) -> int:
    """A Purifier in this process, all streams one batch; tokens."""
    found = purifier.generate(prompts(number), Sampling(max_tokens=TOKENS, ignore_eos=True))
    return sum(len(each.tokens) for each in found)


def through(url: str, number: int) -> int:
    """Streams of the gateway, each read to its end; tokens."""
    asked = {"parameters": {"max_new_tokens": TOKENS, "do_sample": True}}

    async def ask(client: httpx.AsyncClient, at: int) -> int:
        answer = await client.post("/generate_stream", json={**asked, "inputs": prompts(number)[at]})
        last = json.loads(answer.raise_for_status().text.rstrip().rpartition("data:")[2])
        assert last["generated_text"] is not None, last
        return answer.text.count("data:")

    return asyncio.run(_all(url, number, ask))


class Cost(NamedTuple):
    """Of one way: tokens a second, and milliseconds of processor time a token here and in the server."""

    speed: float
    here: float
    there: float


def measured(url: str, top_n: int, policy: str, engine: Any, rounds: int, streams: Any) -> Iterator[str]:
    """Lines of a table, each figure the median of the rounds."""
    source = LlamaCppSource.load(url, tokenizer=LLM, top_n=top_n, engine=engine)
    purifier = Purifier.load(source, SLM, policy)
    yield f"top_n {top_n}, policy {policy}, engine {engine}, decoder {purifier.walk}, {TOKENS} tokens each"
    yield f"{'streams':>8} {'':8} {'tokens/s':>9} {'ms here':>8} {'ms there':>9} {'two idle cores':>15}"
    with serving(purifier, max_concurrent=64) as served:
        for number in streams:
            ways: dict[str, Callable[[], int]] = {
                "direct": partial(direct, url, number),
                "rows": partial(rows, source, url, number),
                "inside": partial(inside, purifier, number),
                "gateway": partial(through, served.url, number),
            }
            for way in ways.values():
                way()
            found = [{name: _cost(way) for name, way in ways.items()} for _ in range(rounds)]
            for name in ways:
                speed, here, there = (
                    median(each) for each in zip(*(one[name] for one in found), strict=True)
                )
                most = 2000 / (here + there)
                yield f"{number:8d} {name:8} {speed:9.1f} {here:8.2f} {there:9.2f} {most:15.0f}"


def _cost(way: Callable[[], int]) -> Cost:
    begun, here, there = time.perf_counter(), time.process_time(), _children()
    tokens = way()
    seconds = time.perf_counter() - begun
    spent = 1000 * (time.process_time() - here) / tokens, 1000 * (_children() - there) / tokens
    return Cost(tokens / seconds, *spent)


def _children() -> float:
    """Seconds of processor time that the processes started here have used."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    found = [int(child) for each in tasks for child in each.read_text().split()]
    fields = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in found]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--top-n", type=int, nargs="+", default=[100, 2048])
    parser.add_argument("--policy", default="balanced")
    parser.add_argument("--engine", nargs="+", default=["untrusted", "trusted"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    asked = parser.parse_args()
    with llama() as url:
        for engine in asked.engine:
            for top_n in asked.top_n:
                for line in measured(url, top_n, asked.policy, engine, asked.rounds, asked.streams):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
