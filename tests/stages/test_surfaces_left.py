"""Readers who leave at any moment, while programs wait and spans are written again: nothing stays open."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from purify_adapters.gateway.executor import DecodeExecutor
from purify_plugins import Purifier, RefusedError, Sampling
from purify_plugins.protocols import Session
from purify_plugins.stages.stage import Stage
from purify_plugins.types import Prompt
from tests.adapters.gateways import Served, serving
from tests.stages.surfaces_wire import ROUTES
from tests.stages.theatre import PROMPT, SILENT, VOCABULARY, Forbids, word
from tests.toys import Forbidding, pair

LENGTH = 6
OPEN: Counter[str] = Counter()
"""How many programs have begun, and how many of them have ended or were closed."""


@dataclass(frozen=True)
class Counted(Forbidding):
    """A storyteller that keeps every session it has opened."""

    sessions: list[Any] = field(default_factory=list, compare=False)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Any]:
        session, logits = super().open(prompts, scored)
        self.sessions.append(session)
        return session, logits


@dataclass(frozen=True)
class Busy(Stage):
    """Draws two drafts and asks again, under a check that has spans written again."""

    choices = 1

    def answer(self, request: Any) -> Any:
        OPEN["begun"] += 1
        try:
            yield [request.alone().seeded(at) for at in range(2)]
            return request.checked(Forbids(word(), redo=1), Forbids("zuzuzu"))
        finally:
            OPEN["closed"] += 1


def busy() -> tuple[Purifier, list[Counted]]:
    models = [Counted(VOCABULARY, seed, forbidden=SILENT) for seed in (1, 2)]
    sampling = Sampling(max_tokens=LENGTH)
    return pair(*models, "geometric", sampling=sampling, stages=[Busy()]), models


def still_open(models: Sequence[Counted]) -> int:
    return sum(session.open for model in models for session in model.sessions)


def leave_streams(count: int) -> None:
    purifier, models = busy()
    chance = random.Random(0)
    for _ in range(count):
        stream = purifier.stream(PROMPT)
        with closing(stream), suppress(RefusedError):  # of one that is blocked twice
            for _ in range(chance.randrange(LENGTH + 2)):
                next(stream, None)
    assert still_open(models) == 0
    assert OPEN["begun"] == OPEN["closed"] > count // 2


async def leave_gateway(served: Served, count: int) -> None:
    chance, places = random.Random(1), asyncio.Semaphore(16)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=served.url, timeout=60, limits=limits, trust_env=False) as client:

        async def one() -> None:
            route = chance.choice(list(ROUTES))
            path, body, *_ = ROUTES[route]
            path, stream = (
                ("/generate_stream", {}) if route.startswith("/generate") else (path, {"stream": True})
            )
            async with places:
                asked = asyncio.create_task(_read(client, path, {**body, **stream}))
                await asyncio.wait({asked}, timeout=chance.random() * 0.4)
                asked.cancel()
                await asyncio.wait({asked})

        await asyncio.gather(*(one() for _ in range(count)))


async def _read(client: httpx.AsyncClient, path: str, body: Any) -> None:
    async with client.stream("POST", path, json=body) as answer:
        async for _ in answer.aiter_lines():
            pass


def left_gateway(count: int) -> None:
    purifier, models = busy()
    before = {*threading.enumerate()}
    with serving(purifier, max_concurrent=8) as served:
        asyncio.run(leave_gateway(served, count))
        assert served.idle()
        assert served.app.service.executor.waiting == 0
        assert still_open(models) == 0
        assert served.post("/generate", ROUTES["/generate"][1]).status_code in (200, 422)
    assert OPEN["begun"] == OPEN["closed"]
    end = time.monotonic() + 60
    while (stuck := {*threading.enumerate()} - before) and time.monotonic() < end:
        time.sleep(0.05)
    assert not stuck


@pytest.fixture(autouse=True)
def counted() -> None:
    OPEN.clear()


def test_who_leaves_the_queue_as_a_place_is_freed_frees_no_other() -> None:
    """Two places were freed for one: in time more answers ran at once than `max_concurrent`."""

    async def leave() -> int:
        executor = DecodeExecutor(1, 4, 60.0)
        await executor._acquire()
        waiting = asyncio.create_task(executor._acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        executor.release()
        await asyncio.wait({waiting})
        executor.close()
        return executor.running

    assert asyncio.run(leave()) == 0


def test_some_who_leave_a_stream_leave_nothing_open() -> None:
    leave_streams(20)


def test_some_who_leave_the_gateway_leave_nothing_open() -> None:
    left_gateway(20)


@pytest.mark.slow
def test_a_thousand_who_leave_a_stream_leave_nothing_open() -> None:
    leave_streams(1000)


@pytest.mark.slow
def test_a_thousand_who_leave_the_gateway_leave_nothing_open() -> None:
    left_gateway(1000)
