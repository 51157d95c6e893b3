"""One event loop for all threads."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from purify_adapters.sources.http import event_loop as module

if TYPE_CHECKING:
    import pytest


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
