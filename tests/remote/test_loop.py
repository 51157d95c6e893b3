"""One event loop for all threads."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest

from purify_adapters.sources.http import event_loop as module


def test_threads_that_come_first_together_find_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = asyncio.new_event_loop, list[asyncio.AbstractEventLoop]()

    def slowly() -> asyncio.AbstractEventLoop:
        time.sleep(0.05)
        made.append(real())
        return made[-1]

    monkeypatch.setattr(module.asyncio, "new_event_loop", slowly)
    monkeypatch.setattr(module, "_made", [])
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: module.loop(), range(4)))
    assert found == set(made)
    assert len(made) == 1
    made[0].call_soon_threadsafe(made[0].stop)
    while made[0].is_running():
        time.sleep(0.001)
    made[0].close()


def test_a_client_that_leaves_while_its_request_is_being_started_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop ran the request before its future was known: `end` found nothing, and the thread waited on."""
    real, running, pending = asyncio.run_coroutine_threadsafe, threading.Event(), module.PendingRequest()

    def slowly(*arguments: Any) -> Future[Any]:
        future = real(*arguments)
        running.wait(60)
        time.sleep(0.1)  # the other thread calls `end` now
        return future

    async def request() -> None:
        running.set()
        await asyncio.sleep(60)

    def ask() -> None:
        pending.enter()
        module.wait(request())

    monkeypatch.setattr(module.asyncio, "run_coroutine_threadsafe", slowly)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        assert running.wait(60)
        pending.end()
        with pytest.raises(CancelledError):
            asked.result(timeout=40)
